"""Which Superset a command talks to, and as whom: from options, the environment, or the local platform's state."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.session import checked_url
from client.superset_client import SupersetClient
from local.state import StateFolder, web_url
from topology.model import Topology

URL_ENV = "SUPERSET_ASYNC_URL"
USERNAME_ENV = "SUPERSET_ASYNC_USERNAME"
PASSWORD_ENV = "SUPERSET_ASYNC_PASSWORD"  # noqa: S105 - the name of the variable, not its value
TOKEN_ENV = "SUPERSET_ASYNC_TOKEN"  # noqa: S105


@dataclass(frozen=True)
class Wanted:
    """What the command line says; None where it says nothing."""

    url: str | None = None
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None


@dataclass(frozen=True)
class LocalPlatform:
    """The platform on this machine, as a client needs it; `database_id` is the first database of the stack."""

    stack: str
    url: str
    username: str
    password_file: Path
    database_id: int | None
    topology: Topology


@dataclass(frozen=True)
class Connection:
    """Where to connect, and with what; `home` is the local platform, where it is that."""

    url: str
    username: str | None
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    home: LocalPlatform | None

    def client(self) -> SupersetClient:
        """A client for it; nothing is sent yet."""
        return SupersetClient(self.url, username=self.username, password=self.password, token=self.token)


def local_platform(stack: str) -> LocalPlatform | None:
    """The platform of `stack` on this machine, or None where this version never started one; it need not run."""
    folder = StateFolder.of(stack)
    topology = folder.read_topology()
    if topology is None:
        return None
    made: dict[str, Any] = (
        json.loads(folder.bootstrapped.read_text(encoding="utf-8")) if folder.bootstrapped.exists() else {}
    )
    return LocalPlatform(
        stack, web_url(topology), topology.admin_username, folder.password_file, made.get("database_id"), topology
    )


def resolve(
    wanted: Wanted, env: Mapping[str, str], local: LocalPlatform | None, ask: Callable[[str], str] | None
) -> Connection:
    """The connection: an option wins over the environment, and that over the local platform.

    The local platform's own password goes to its own address only. `ask` prompts for a password (None: nobody to ask).
    UsageError says what is missing and every way to give it.
    """
    if wanted.password_file and wanted.token_file:
        raise UsageError("--password-file and --token-file: give one of them")
    url = wanted.url or env.get(URL_ENV) or (local.url if local else None)
    if not url:
        raise UsageError(
            f"this version has started no local platform here (`make up` does): say which Superset by --url or {URL_ENV}"
        )
    url = checked_url(url)
    home = local if local and checked_url(local.url) == url else None
    username = wanted.username or env.get(USERNAME_ENV) or (home.username if home else None)
    token = _secret(wanted.token_file) or (env.get(TOKEN_ENV) if not wanted.password_file else None)
    if token:
        return Connection(url, None, None, token, home)
    if not username:
        raise UsageError(
            f"{url}: say who logs in by --username or {USERNAME_ENV}, or give a token by --token-file or {TOKEN_ENV}"
        )
    password = _secret(wanted.password_file) or env.get(PASSWORD_ENV)
    if not password and home and username == home.username:
        password = _secret(home.password_file)
    if not password and ask:
        password = ask(f"Password of {username} on {url}: ")
    if not password:
        raise UsageError(
            f"{url}: no password for {username!r}: give --password-file or {PASSWORD_ENV}, or use a terminal to be asked"
        )
    return Connection(url, username, password, None, home)


def _secret(file: Path | None) -> str | None:
    """The one line of a secret's file; UsageError where it cannot be read or is empty."""
    if file is None:
        return None
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from None
    if not secret:
        raise UsageError(f"{file}: is empty, and should hold a secret")
    return secret


def queue_of(topology: Topology, username: str | None) -> str | None:
    """The queue that the SQL of `username` goes to: of the tenant that lists the user, else the default one.

    None where only the server knows: roles or databases decide too, or the user is a token's.
    """
    if topology.urgent is not None and topology.urgent.roles:
        return None
    listed = next((tenant.queue for tenant in topology.tenants if username in tenant.users), None)
    if listed is not None or not topology.tenants:
        return listed or topology.celery.default_queue
    told_otherwise = any(tenant.roles or tenant.databases for tenant in topology.tenants)
    return None if username is None or told_otherwise else topology.celery.default_queue
