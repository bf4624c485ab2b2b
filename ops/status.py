"""`superset-async status`: whether a platform works, asked of it: processes, disk, log-in, the broker, beat, and one query."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from client.errors import ClientError, NoWorkerError, StillRunningError
from client.superset_client import SupersetClient
from local.progress import console
from ops.connection import URL_ENV, Connection, Wanted
from ops.options import PasswordFile, Stack, TokenFile, Url, Username, connection, reported
from topology.checkout import require_checkout

#: Seconds that the query has: a platform at work answers in less than one, a busy one in its wait.
QUERY_SECONDS = 20.0
PROBE = "SELECT 1 AS superset_async_status"
out = console()


def status(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="without log-in and query: processes and what they answer")] = False,
    database: Annotated[
        str | None,
        typer.Option("--database", "-d", help="of the query; default: the local platform's sample, or the first one"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    url: Url = None,
    username: Username = None,
    password_file: PasswordFile = None,
    token_file: TokenFile = None,
    stack: Stack = "local",
) -> None:
    """Ask whether it works: what runs here, the disk, the broker's writes, beat, a log-in and one query.

    With --url only the last two, of a Superset anywhere. Exit code 0: it works; 3: stopped; 4: degraded.
    """
    elsewhere = url or os.environ.get(URL_ENV)
    known: dict[str, Any] = {"state": "running", "problems": []}
    if not elsewhere:
        require_checkout("status")
        from local import platform

        known = platform.status(stack)
    # Of a platform that is stopped or degraded it is known already that nobody is answered, or why.
    if known["state"] == "running" and not quick:
        with reported():
            to = connection(Wanted(url, username, password_file, token_file), stack)
        known["asked"] = asked(to, database)
        known["url"] = to.url
        known["problems"] = [*known["problems"], *problems(known["asked"])]
        if known["problems"]:
            known["state"] = "degraded"
    if as_json:
        sys.stdout.write(json.dumps(known, indent=1) + "\n")
    else:
        _show(known)
    raise typer.Exit({"running": 0, "stopped": 3}.get(known["state"], 4))


def asked(to: Connection, database: str | None) -> dict[str, dict[str, Any]]:
    """A log-in and a query: for each the seconds that it took, and the error, None where there was none."""
    found: dict[str, dict[str, Any]] = {}
    with to.client() as client:
        for name, ask in (("log_in", client.login), ("query", lambda: _query(client, to, database))):
            begun = time.monotonic()
            try:
                ask()
                error = None
            except ClientError as failure:
                error = str(failure)
            found[name] = {"seconds": round(time.monotonic() - begun, 2), "error": error}
            if error is not None:
                break
    return found


def problems(found: dict[str, dict[str, Any]]) -> list[str]:
    """What failed of what was asked, in words."""
    words = {"log_in": "nobody can log in", "query": "a query is not answered (`superset-async doctor` says why)"}
    return [f"{words[name]}: {each['error']}" for name, each in found.items() if each["error"] is not None]


def _query(client: SupersetClient, to: Connection, database: str | None) -> None:
    """One query and its rows; what has not begun or ended in time is stopped."""
    if database is not None:
        id = int(database) if database.isdecimal() else client.database_id(database)
    else:
        home = to.home.database_id if to.home else None
        id = home or min(client.databases().values())
    handle = client.submit(PROBE, id)
    try:
        client.results(client.wait(handle, timeout=QUERY_SECONDS, pending_timeout=QUERY_SECONDS))
    except (NoWorkerError, StillRunningError):
        client.stop(handle)
        raise


def _show(known: dict[str, Any]) -> None:
    out.print(
        f"{'stack ' + known['stack'] if 'stack' in known else known['url']}: [bold]{known['state']}[/]", highlight=False
    )
    table = Table("process", "state", "pid", "", box=None)
    for name, process in known.get("processes", {}).items():
        table.add_row(name, str(process["state"]), str(process["pid"]), str(process["description"]))
    if known.get("processes"):
        out.print(table)
    for name, each in known.get("asked", {}).items():
        if each["error"] is None:
            out.print(f"{name.replace('_', '-')}: answered in {each['seconds']:.2f} s", highlight=False)
    for key in ("url", "username", "password_file"):
        if key in known:
            out.print(f"{key}: {known[key]}", highlight=False)
    for problem in known["problems"]:
        out.print(f"[red]![/] {escape(problem)}", highlight=False, soft_wrap=True)
    for warning in known.get("warnings", []):
        out.print(f"[yellow]![/] {escape(warning)}", highlight=False, soft_wrap=True)
