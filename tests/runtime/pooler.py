"""A PgBouncer before the tests' PostgreSQL, on loopback."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.runtime.conftest import Services, free_ports, until

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")


@contextmanager
def pooler(services: Services, folder: Path, size: int, mode: str = "transaction") -> Generator[int]:
    """One in `mode`, with `size` connections of the server for each user and database; its port.

    All of PostgreSQL's databases are behind it.
    """
    assert PROGRAM is not None
    port = free_ports(1)
    password = (services.folder / "postgres-password").read_text()
    (folder / "users.txt").write_text(f'"superset" "{password}"\n"analyst" "analyst"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={services.postgres_port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {folder}/users.txt\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    with (folder / "pgbouncer.log").open("w") as log:
        # It does not run as root.
        process = subprocess.Popen([PROGRAM, "-u", "nobody", str(folder / "pgbouncer.ini")], stdout=log, stderr=log)
    try:
        until(lambda: "process up" in (folder / "pgbouncer.log").read_text(), 30, "PgBouncer is up")
        yield port
    finally:
        process.terminate()
        process.wait(30)
