"""The scripts that prepare, back up and restore the metadata database, run by a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from components import postgres, scripts
from components.scripts import Script, texts
from local import binaries
from tests.waiting import free_port, until
from topology import stack_file
from topology.model import Postgres
from topology.plan import plan

#: Users of this system that stand for those of two images: initdb looks them up.
DEBIAN, ALPINE = 1, 2
SCRIPTS = Path(scripts.__file__).parent


class Server:
    """A PostgreSQL pod on this machine: its volume, and its two containers."""

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        programs: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        port = port or free_port()
        planned = plan("minimal", config or stack_file.read("minimal")).postgres
        self.spec: Postgres = planned.model_copy(update={"port": port, "max_connections": 40})
        self.folder = folder
        #: Before each program of the server: as whom it runs.
        self.prefix = binaries.postgres_prefix()
        scripts = folder / "scripts"
        scripts.mkdir()
        for name, text in texts("alive.sh", "prepare.sh", "roles.sql").items():
            (scripts / name).write_text(text)
        # There is no system user `postgres` here that the socket could know by name.
        (scripts / "pg_hba.conf").write_text(postgres.client_rules(self.spec).replace("peer", "trust"))
        self.environment = {
            "PATH": f"{programs or binaries.postgres_program('initdb').parent}:{os.environ['PATH']}",
            "PGDATA": str(folder / "pgdata"),
            "PGHOST": str(folder),
            "PGPORT": str(port),
            "SCRIPTS": str(scripts),
            "METADATA_USER": self.spec.user,
            "METADATA_DATABASE": self.spec.database,
        }

    def prepare(self, password: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, "sh", f"{self.environment['SCRIPTS']}/prepare.sh"]
        environment = {**self.environment, "METADATA_PASSWORD": password}
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)

    @contextmanager
    def running(self) -> Generator[None]:
        here = {
            postgres.TLS: str(self.folder / "tls"),
            postgres.SCRIPTS: self.environment["SCRIPTS"],
            postgres.SOCKETS: self.environment["PGHOST"],
        }
        arguments = postgres.server_arguments(self.spec)
        for there, path in here.items():
            arguments = [argument.replace(there, path) for argument in arguments]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen([*self.prefix, *arguments], env=self.environment, stdout=log, stderr=log)
        try:
            ready = ["pg_isready", "--quiet", "--host=localhost"]
            until(lambda: self.run(ready).returncode == 0, 30, f"the server answers; see {self.folder / 'log'}")
            yield
        finally:
            process.terminate()
            process.wait(60)

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env={**self.environment, **environment}, check=False, capture_output=True, text=True, timeout=60
        )

    def sql(self, statement: str, password: str, *, user: str | None = None, database: str | None = None) -> str:
        """Rows of a statement over the network, as the role that Superset uses; or psql's words."""
        done = self.run(
            ["psql", "--no-psqlrc", "--tuples-only", "--no-align", f"--command={statement}", "--host=127.0.0.1"],
            PGUSER=user or self.spec.user,
            PGDATABASE=database or self.spec.database,
            PGPASSWORD=password,
        )
        return done.stdout.strip() or done.stderr.strip()

    def as_superuser(self, statement: str) -> str:
        return self.run(
            ["psql", "--no-psqlrc", "--tuples-only", "--no-align", f"--command={statement}", "-U", "postgres", "postgres"]
        ).stdout.strip()

    def script(self, name: Script, dumps: Path, password: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            ["sh", str(SCRIPTS / name)],
            DUMPS=str(dumps),
            KEEP="2",
            PGHOST="127.0.0.1",
            PGUSER=self.spec.user,
            PGDATABASE=self.spec.database,
            PGPASSWORD=password,
            **environment,
        )


@pytest.fixture(scope="module")
def pod() -> Iterator[Server]:
    """A server's volume, made once; its path is short, since a socket lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Server(folder)
        first = server.prepare("first")
        assert first.returncode == 0, first.stdout + first.stderr
        assert "first" not in first.stdout + first.stderr
        yield server
    finally:
        shutil.rmtree(folder)


def test_the_role_owns_its_database_and_nothing_else(pod: Server) -> None:
    with pod.running():
        assert pod.sql("CREATE TABLE of_mine (id int); SELECT 1", "first").endswith("1")
        roles = "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        assert pod.sql(roles, "first") == "f|f|f"
        assert "password authentication failed" in pod.sql("SELECT 1", "wrong")
        # The superuser has no password, and so no way in over the network.
        assert "password authentication failed" in pod.sql("SELECT 1", "first", user="postgres", database="postgres")
        assert pod.as_superuser("SHOW max_connections") == "40"
        assert pod.as_superuser("SHOW superuser_reserved_connections") == str(pod.spec.reserved_connections)


def test_a_new_password_takes_effect_at_the_next_start_and_data_stays(pod: Server) -> None:
    assert pod.prepare("it's new").returncode == 0
    with pod.running():
        assert pod.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'of_mine'", "it's new") == "1"
        assert "password authentication failed" in pod.sql("SELECT 1", "first")
    assert pod.prepare("first").returncode == 0


def run_as(user: int) -> list[str]:
    """What to put before a command that runs as a user of a pod, whose groups are its own."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]


def give_to_group(volume: Path, group: int) -> None:
    """What the kubelet does with a volume whose root is not `fsGroup`'s: group and mode of all, and the owner of nothing."""
    for path in (volume, *volume.rglob("*")):
        if not path.is_symlink():
            os.chown(path, -1, group)
            mode = path.stat().st_mode
            path.chmod(mode | (0o2770 if path.is_dir() else 0o660))


@pytest.mark.services
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users")
def test_another_user_takes_the_data_over_and_back() -> None:
    """An image on Debian, one on Alpine, and back; each time the kubelet gives the volume to the new user's group."""
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        root.chmod(0o755)
        volume = root / "volume"
        volume.mkdir()
        server = Server(root)
        server.environment |= {"PGDATA": str(volume / "pgdata"), "PGHOST": str(volume)}
        for turn, user in enumerate((DEBIAN, ALPINE, ALPINE, DEBIAN)):
            give_to_group(volume, user)
            server.prefix = run_as(user)
            done = server.prepare("password")
            assert done.returncode == 0, done.stdout + done.stderr
            data = volume / "pgdata"
            assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (user, 0o700)
            assert [path.name for path in volume.iterdir() if path.is_dir()] == ["pgdata"]
            server.folder = volume
            with server.running():
                server.sql("CREATE TABLE IF NOT EXISTS turns (turn int)", "password")
                server.sql(f"INSERT INTO turns VALUES ({turn})", "password")
                assert server.sql("SELECT count(*) FROM turns", "password") == str(turn + 1)
    finally:
        shutil.rmtree(root)


@pytest.mark.services
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users")
def test_a_takeover_without_room_or_cut_short_leaves_the_data() -> None:
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        root.chmod(0o755)
        volume, small = root / "volume", root / "bin"
        volume.mkdir()
        small.mkdir()
        server = Server(root)
        server.environment |= {"PGDATA": str(volume / "pgdata"), "PGHOST": str(volume)}
        give_to_group(volume, DEBIAN)
        server.prefix = run_as(DEBIAN)
        assert server.prepare("password").returncode == 0
        give_to_group(volume, ALPINE)
        server.prefix = run_as(ALPINE)
        df = small / "df"
        df.write_text("#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho 'x 9 9 1 9% /'\n")
        df.chmod(0o755)
        path = server.environment["PATH"]
        server.environment["PATH"] = f"{small}:{path}"
        done = server.prepare("password")
        assert done.returncode == 1
        assert f"go back to images.postgres_user {DEBIAN}" in done.stderr
        assert (volume / "pgdata").stat().st_uid == DEBIAN
        # Between its two last steps: only the former directory is there, and a whole copy.
        server.environment["PATH"] = path
        (volume / "pgdata").rename(volume / "pgdata.former")
        assert server.prepare("password").returncode == 0
        assert [each.name for each in volume.iterdir() if each.is_dir()] == ["pgdata"]
    finally:
        shutil.rmtree(root)


def test_a_server_that_recovers_lives_and_one_that_is_gone_does_not(pod: Server) -> None:
    """The liveness probe on the answers of a server: connections taken, refused for now, and none."""
    probe = ["sh", f"{pod.environment['SCRIPTS']}/alive.sh", pod.environment["PGPORT"]]
    with pod.running():
        assert pod.run(probe).returncode == 0
    assert pod.run(probe).returncode == 1
    with socket.socket() as recovering:
        recovering.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        recovering.bind(("127.0.0.1", int(pod.environment["PGPORT"])))
        recovering.listen()
        answer = threading.Thread(target=refuse, args=(recovering,))
        answer.start()
        done = pod.run(probe)
        answer.join(30)
    assert (done.returncode, "rejecting connections" in done.stdout) == (0, True), done.stdout


def refuse(listener: socket.socket) -> None:
    """What a server in recovery says: FATAL 57P03."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1024)
        fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is in recovery mode\0\0"
        connection.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)


@pytest.mark.services
def test_a_preparation_that_was_cut_short_begins_again() -> None:
    fresh = Server(Path(tempfile.mkdtemp(prefix="pg-")))
    try:
        leftover = Path(f"{fresh.environment['PGDATA']}.new")
        leftover.mkdir()
        (leftover / "half").write_text("of an initdb")
        assert fresh.prepare("first").returncode == 0
        assert not leftover.exists()
    finally:
        shutil.rmtree(fresh.folder)


def test_a_failing_statement_does_not_show_the_password(pod: Server) -> None:
    broken = pod.environment | {"METADATA_USER": "postgres"}
    before, pod.environment = pod.environment, broken
    try:
        done = pod.prepare("hidden-password")
    finally:
        pod.environment = before
    assert done.returncode != 0
    assert "hidden-password" not in done.stdout + done.stderr
    # The server that it started for itself must not be left behind.
    assert pod.prepare("first").returncode == 0


def test_a_dump_puts_back_what_was_lost_and_the_oldest_dumps_go(pod: Server, tmp_path: Path) -> None:
    with pod.running():
        pod.sql("CREATE TABLE charts AS SELECT generate_series(1, 1000) AS id", "first")
        for _ in range(3):
            done = pod.script("dump.sh", tmp_path, "first")
            assert done.returncode == 0, done.stderr
            time.sleep(1.1)
        assert len(list(tmp_path.iterdir())) == 2
        pod.sql("DROP TABLE charts; CREATE TABLE later (id int)", "first")
        done = pod.script("restore.sh", tmp_path, "first")
        assert done.returncode == 0, done.stderr
        assert pod.sql("SELECT count(*) FROM charts", "first") == "1000"


def test_a_dump_that_fails_leaves_the_others_and_no_half_file(pod: Server, tmp_path: Path) -> None:
    (tmp_path / f"{pod.spec.database}-20260101T000000Z.dump").write_text("an older one")
    with pod.running():
        assert pod.script("dump.sh", tmp_path, "wrong").returncode != 0
        assert pod.script("restore.sh", tmp_path, "first").returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == [f"{pod.spec.database}-20260101T000000Z.dump"]


@pytest.mark.parametrize(
    ("images", "kind", "user"),
    [
        ({"postgres": "registry.example.com/alpine/cloudnative-pg-mirror/postgres:18.1"}, "statefulset", 999),
        ({"postgres": "postgres:18.1-alpine", "postgres_user": 70}, "statefulset", 70),
        ({"postgres": "registry.example.com/postgresql:18.1"}, "cloudnativepg", 26),
    ],
)
def test_the_user_is_the_stacks_and_not_read_from_a_path(images: dict[str, object], kind: str, user: int) -> None:
    planned = plan("users", {"topology": "minimal", "images": images, "postgres": {"kind": kind}})
    assert postgres.user_of(planned.postgres, planned.images) == user
