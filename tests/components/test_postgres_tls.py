"""PostgreSQL over TLS: the pod's server on a real PostgreSQL, its clients, and certificates that are renewed while they query."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from components import certificate, postgres
from infra.render import render
from local import binaries
from tests.components.test_postgres import DEBIAN, SCRIPTS, Server, give_to_group, run_as
from tests.runtime.stacks import environment
from tests.tls import Authority, postgres_programs
from tests.waiting import until
from topology import stack_file
from topology.plan import plan
from topology.server_tls import libpq_options

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be the pod's user")
PASSWORD = "it's a password"
PROJECT = Path(__file__).resolve().parents[2]
STACK = stack_file.read("minimal") | {
    "postgres": {"tls": {"kind": "secret", "secret": "postgres-tls"}},
    "celery": {"result_backend": "postgresql"},
}
NAMES = postgres.certificate_names(plan("minimal", STACK).postgres, "superset")


class Pod(Server):
    """A PostgreSQL pod with a certificate, as the kubelet mounts it: root's files, which the server's group may read."""

    def __init__(self, folder: Path, authority: Path) -> None:
        super().__init__(folder, programs=postgres_programs(), config=STACK)
        self.prefix = run_as(DEBIAN)
        self.authority = Authority(authority)
        #: What clients have of the Secret.
        self.ca_file = folder / "ca.crt"
        self.tls.mkdir()
        self.show(self.authority)

    @property
    def tls(self) -> Path:
        return self.folder / "tls"

    def show(self, authority: Authority, *, key: Path | None = None) -> None:
        """Renew the certificate and its key: the files change all at once, by a link. `key` is another one, which is wrong."""
        signed = authority.sign(self.folder / "signed", NAMES)
        if key:
            shutil.copy(key, signed / "tls.key")
        self.mount({path.name: path.read_text() for path in signed.iterdir()})

    def mount(self, files: Mapping[str, str]) -> None:
        turn = self.tls / f"..{len(list(self.tls.iterdir()))}"
        turn.mkdir()
        for name, text in files.items():
            (turn / name).write_text(text)
        for path in (turn, *turn.iterdir()):
            os.chown(path, 0, DEBIAN)
            path.chmod(0o550 if path.is_dir() else 0o440)
        self.point(Path(turn.name))

    def point(self, turn: Path) -> None:
        (self.tls / "..next").symlink_to(turn)
        (self.tls / "..next").rename(self.tls / "..data")
        for name in ("tls.crt", "tls.key", "ca.crt"):
            if not (self.tls / name).is_symlink():
                (self.tls / name).symlink_to(f"..data/{name}")

    def trust(self, *authorities: Authority) -> None:
        """What clients have as ca.crt, replaced as a whole."""
        fresh = self.folder / "ca.fresh"
        fresh.write_text("".join(each.certificate.read_text() for each in authorities))
        fresh.rename(self.ca_file)

    def probe(self) -> subprocess.CompletedProcess[str]:
        """The liveness probe, as the kubelet runs it in the container."""
        command = ["sh", f"{self.environment['SCRIPTS']}/alive.sh", str(self.spec.port), str(self.tls)]
        return self.run([*self.prefix, *command, f"{self.environment['PGDATA']}.certificate"])

    def client(self, **changed: str) -> dict[str, str]:
        """libpq's variables of a client in the stack's namespace; the name is what the certificate is verified against."""
        tls = self.spec.tls
        assert tls
        options = libpq_options(tls) | {"sslrootcert": str(self.ca_file)}
        return {
            **{f"PG{name.upper()}": value for name, value in options.items()},
            "PGHOST": "postgres",
            "PGHOSTADDR": "127.0.0.1",
            "PGUSER": self.spec.user,
            "PGDATABASE": self.spec.database,
            "PGPASSWORD": PASSWORD,
            **changed,
        }

    def query(self, statement: str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", **changed: str) -> str:
        """Rows, or psql's words."""
        command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", f"--command={statement}"]
        done = self.run(command, **self.client(**changed))
        return done.stdout.strip() or done.stderr.strip()

    def serial(self) -> str:
        """The serial number of the certificate that the server shows."""
        command = ["openssl", "s_client", "-starttls", "postgres", "-connect", f"127.0.0.1:{self.spec.port}"]
        shown = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=30).stdout
        return _serial(shown)


def _serial(certificate: str) -> str:
    command = ["openssl", "x509", "-noout", "-serial"]
    return subprocess.run(command, input=certificate, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    folder = Path(tempfile.mkdtemp(prefix="pg-tls-"))
    try:
        folder.chmod(0o755)
        volume = folder / "volume"
        volume.mkdir()
        server = Pod(folder, folder / "authority")
        server.environment |= {"PGDATA": str(volume / "pgdata"), "PGHOST": str(volume)}
        give_to_group(volume, DEBIAN)
        server.trust(server.authority)
        done = server.prepare(PASSWORD)
        assert done.returncode == 0, done.stdout + done.stderr
        with server.running():
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.mark.superset
def test_clients_are_let_in_over_tls_alone_and_refuse_a_server_that_they_cannot_verify(pod: Pod) -> None:
    assert pod.query() == "t"
    assert "no encryption" in pod.query(PGSSLMODE="disable")
    other = Authority(pod.folder / "other")
    wrong = {
        "certificate verify failed": {"PGSSLROOTCERT": str(other.certificate)},
        "does not match host name": {"PGHOST": "postgres.another-namespace.svc"},
    }
    for reason, changed in wrong.items():
        assert reason in pod.query(**changed)
    # Superset's engine, its psycopg2 and Celery's result backend, by the topology that their pods get.
    assert set(used(pod).values()) == {"ok"}
    refused = used(pod, other.certificate)
    assert len(refused) == 3
    assert {name: said for name, said in refused.items() if "certificate verify failed" not in said} == {}
    # The backup job's own client.
    dumps = pod.folder / "dumps"
    dumps.mkdir()
    dump = ["sh", str(SCRIPTS / "dump.sh")]
    done = pod.run(dump, DUMPS=str(dumps), KEEP="1", **pod.client())
    assert done.returncode == 0, done.stderr
    done = pod.run(dump, DUMPS=str(dumps), KEEP="1", **pod.client(PGSSLROOTCERT=str(other.certificate)))
    assert "certificate verify failed" in done.stderr


def used(pod: Pod, ca_file: Path | None = None) -> dict[str, str]:
    """What each client of Superset's environment got of the server."""
    topology = plan("minimal", STACK)
    tls = topology.postgres.tls
    assert tls
    tls = tls.model_copy(update={"ca_file": str(ca_file or pod.ca_file)})
    server = topology.postgres.model_copy(update={"port": pod.spec.port, "tls": tls})
    file = pod.folder / "topology.json"
    file.write_text(topology.model_copy(update={"postgres": server}).model_dump_json())
    env = {**environment(topology), topology.postgres.password_env: PASSWORD, "PGHOSTADDR": "127.0.0.1"}
    command = [str(binaries.superset_python()), "-m", "tests.components.postgres_clients_process", str(file)]
    done = subprocess.run(command, env=env, cwd=PROJECT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_generated_certificate_is_taken_and_verified_and_stays_until_it_must_go(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the inputs that the program gives the provider; where a render makes it, the next render keeps it."""
    monkeypatch.setenv(stack_file.STACKS_ENV, str(tmp_path))
    file = tmp_path / "secrets.yaml"

    def rendered(**postgres: object) -> dict[str, str]:
        keys = {
            "topology": "minimal",
            "platform": "kubernetes",
            "postgres": {"tls": {"kind": "generated"}, **postgres},
        }
        text = yaml.safe_dump({"config": {f"{stack_file.PROJECT_NAME}:{key}": value for key, value in keys.items()}})
        (tmp_path / "Pulumi.made.yaml").write_text(text)
        render("made", tmp_path / "build", secrets_file=file)
        found = {each["metadata"]["name"]: each["stringData"] for each in yaml.safe_load_all(file.read_text()) if each}
        return found["postgres-tls"]

    made = rendered()
    before = (pod.tls / "..data").readlink()
    try:
        pod.mount(made)
        pod.ca_file.write_text(made["ca.crt"])
        assert pod.probe().returncode == 0
        until(lambda: pod.serial() == _serial(made["tls.crt"]), 60, "the server shows the generated certificate")
        assert pod.query() == "t"
        assert "does not match host name" in pod.query(PGHOST="postgres.another-namespace.svc")
    finally:
        pod.point(before)
        pod.trust(pod.authority)
    assert rendered() == made
    monkeypatch.setattr(certificate, "CERTIFICATE_EARLY_HOURS", certificate.CERTIFICATE_HOURS + 1)
    following = rendered()
    assert not set(following.values()) & set(made.values())


class Client(threading.Thread):
    """Asks a query after the other, each on a connection of its own, until it is told to stop."""

    def __init__(self, pod: Pod) -> None:
        super().__init__()
        self.pod, self.answers, self.done = pod, list[str](), threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            self.answers.append(self.pod.query())


def test_certificate_and_authority_are_renewed_and_no_query_is_lost(pod: Pod) -> None:
    """Each step while clients connect anew and one session is in the middle of a transaction."""
    assert pod.probe().returncode == 0
    session = subprocess.Popen(
        ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"],
        env={**pod.environment, **pod.client()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert session.stdin
    assert session.stdout
    session.stdin.write("BEGIN; CREATE TABLE begun (id int); SELECT 'in the middle';\n")
    while session.stdout.readline().strip() != "in the middle":
        assert session.poll() is None
    clients = [Client(pod) for _ in range(2)]
    for each in clients:
        each.start()
    try:
        serials = {pod.serial()}
        following = Authority(pod.folder / "following")
        steps: tuple[tuple[Authority, tuple[Authority, ...]], ...] = (
            # The next certificate of the same authority; then the next authority, beside the former one until that signs none.
            (pod.authority, (pod.authority,)),
            (pod.authority, (pod.authority, following)),
            (following, (pod.authority, following)),
            (following, (following,)),
        )
        for authority, trusted in steps:
            pod.trust(*trusted)
            pod.show(authority)
            wanted = _serial((pod.tls / "tls.crt").read_text())
            assert pod.probe().returncode == 0
            until(lambda wanted=wanted: pod.serial() == wanted, 60, "the server shows the next certificate")
            serials.add(wanted)
            asked = [len(each.answers) for each in clients]
            until(
                lambda asked=asked: all(len(c.answers) > n + 1 for c, n in zip(clients, asked, strict=True)), 60, "queries"
            )
        # One that does not belong to its key changes nothing, and neither kills the server.
        shown = pod.serial()
        pod.show(following, key=pod.authority.certificate.with_name("ca.key"))
        assert pod.probe().returncode == 0
        until(lambda: "key values mismatch" in (pod.folder / "log").read_text(), 60, "the server says what is wrong")
        assert pod.serial() == shown
    finally:
        for each in clients:
            each.done.set()
        for each in clients:
            each.join(60)
    answers = [answer for each in clients for answer in each.answers]
    assert set(answers) == {"t"}
    assert len(serials) == len(steps) + 1
    out, _ = session.communicate("COMMIT; SELECT 'kept';\n", timeout=60)
    assert (session.returncode, out.strip().splitlines()[-1]) == (0, "kept")
    assert pod.query("SELECT count(*) FROM begun") == "0"
