"""Redis and PostgreSQL servers with TLS, and certificates for them: Debian's packages redis-server, postgresql and openssl."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest


def redis_server() -> str:
    """The redis-server on PATH; skips, with the reason, where there is none that knows TLS (the wheel's does not)."""
    found = shutil.which("redis-server")
    if found is None or shutil.which("openssl") is None:
        pytest.skip("redis-server with TLS, and openssl, not found: install Debian's packages redis-server and openssl")
    # A server without TLS does not know the directive; this one stops at the next line.
    text = "tls-auth-clients no\nno-such-directive yes\n"
    tried = subprocess.run([found, "-"], input=text, capture_output=True, text=True, check=False, timeout=20)
    if "no-such-directive" not in tried.stderr + tried.stdout:
        pytest.skip(f"{found} has no TLS: install Debian's package redis-server")
    return found


def postgres_programs() -> Path:
    """The folder with a PostgreSQL server that knows TLS (the wheel's does not); skips, with the reason, where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if not found or shutil.which("openssl") is None:
        pytest.skip("PostgreSQL with TLS, and openssl, not found: install Debian's packages postgresql and openssl")
    return found[-1].parent


def known_to(program: str, acl: str) -> str:
    """`acl` without what a server older than Redis 7.2, such as Debian 12's, does not know and refuses to start on."""
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    old = "v=7.0" in version or "v=6" in version
    return acl.replace(" +client|setinfo", "") if old else acl


class Authority:
    """An authority in a folder of its own, which signs certificates as a kubernetes.io/tls Secret has them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._key, self.certificate = folder / "ca.key", folder / "ca.crt"
        _openssl("req", "-x509", *_new_key(self._key), "-subj", "/CN=test authority", "-out", self.certificate)

    def sign(self, folder: Path, names: Iterable[str]) -> Path:
        """Write tls.crt, tls.key and ca.crt to `folder`, for a server of these DNS names or addresses."""
        folder.mkdir(exist_ok=True)
        extension = f"subjectAltName={','.join(f'{_kind(name)}:{name}' for name in names)}"
        signed = ("-CA", self.certificate, "-CAkey", self._key, "-addext", extension, "-addext", "basicConstraints=CA:FALSE")
        _openssl("req", "-x509", *_new_key(folder / "tls.key"), "-subj", "/CN=redis", *signed, "-out", folder / "tls.crt")
        shutil.copy(self.certificate, folder / "ca.crt")
        return folder


def _kind(name: str) -> str:
    return "IP" if name.replace(".", "").isdigit() else "DNS"


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2", "-keyout", path)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
