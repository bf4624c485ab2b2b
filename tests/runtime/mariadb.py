"""Debian's MariaDB, and PyMySQL, which Superset's environment has for tests alone (`make .venv-superset/.mysql`)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local import binaries
from tests.runtime.conftest import free_ports, until

PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"
PROGRAM = shutil.which("mariadbd", path=PATH)
#: Of the server's only database, `analytics`.
USER, PASSWORD = "analyst", "analyst"

has_mariadb = pytest.mark.skipif(
    PROGRAM is None, reason="mariadbd is not installed (Debian: apt-get install mariadb-server)"
)


def has_driver() -> bool:
    """Whether Superset's environment has PyMySQL."""
    return any(binaries.superset_python().parents[1].glob("lib/python3*/site-packages/pymysql"))


@contextmanager
def mariadb(folder: Path) -> Generator[int]:
    """A server with a database and a user, on loopback; its port."""
    assert PROGRAM is not None
    port, data, socket = free_ports(1), folder / "data", folder / "socket"
    made = [str(shutil.which("mariadb-install-db", path=PATH)), "--no-defaults", f"--datadir={data}", "--skip-test-db"]
    user = f"--user={Path('/').owner()}"
    subprocess.run([*made, "--auth-root-authentication-method=normal", user], check=True, capture_output=True)
    first = folder / "first.sql"
    first.write_text(
        # One statement a line.
        f"CREATE DATABASE analytics;\nCREATE USER {USER} IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON analytics.* TO {USER};\n"
    )
    options = [f"--datadir={data}", f"--socket={socket}", f"--pid-file={folder}/pid", f"--init-file={first}", user]
    with (folder / "mariadb.log").open("w") as log:
        server = [PROGRAM, "--no-defaults", *options, f"--port={port}", "--bind-address=127.0.0.1"]
        process = subprocess.Popen(server, stdout=log, stderr=log)
    try:
        until(lambda: "ready for connections" in (folder / "mariadb.log").read_text(), 60, "MariaDB is ready")
        yield port
    finally:
        process.terminate()
        process.wait(60)
