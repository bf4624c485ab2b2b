"""`superset-async audit`: the records of who did what, from where they are kept; it asks no Superset."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from client.errors import UsageError
from client.output import Format, write_rows
from client.superset_client import Column, Result
from local.state import StateFolder
from ops import kubectl
from ops.options import RowFormat, Stack, reported
from runtime.environment import audit_records

#: What a table shows in columns of its own; the rest of a record is its last column.
COLUMNS = ("time", "user", "action", "outcome", "query_id", "task_id")
#: What every record has, and a table does not say.
UNSAID = frozenset({audit_records.VERSION_KEY, "id", "process", "host", *COLUMNS})
#: Containers that write records.
SELECTOR = "app.kubernetes.io/part-of=superset-async"


def audit(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="files with records, as a log collector keeps them, `-` for stdin; default: this machine's", metavar="FILE"
        ),
    ] = None,
    *,
    user: Annotated[str | None, typer.Option("--user", help="of this user")] = None,
    action: Annotated[str | None, typer.Option("--action", help="that begin so, such as query.run, change or login")] = None,
    query: Annotated[str | None, typer.Option("--query", help="about the query of this id", metavar="ID")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="ok, refused or failed")] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="of the last hours; default: all")] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="of the pods of this namespace, by kubectl and its kubeconfig", metavar="NS"),
    ] = None,
    format: RowFormat = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="whole records, as --format json")] = False,
    stack: Stack = "local",
) -> None:
    """Show who logged in, ran, stopped, fetched, exported and changed what: the audit trail, oldest first.

    A cluster's pods have what their node still keeps of their output: older records are where the log collector has put them.
    Exit code 1: there is no record that fits.
    """
    with reported():
        if files and namespace:
            raise UsageError("give files or --namespace, not both")
        since = None if hours is None else datetime.now(UTC) - timedelta(hours=hours)
        found = audit_records.read(_texts(files or [], namespace, stack, hours))
        shown = [each for each in found if fits(each, user=user, action=action, query=query, outcome=outcome, since=since)]
        if as_json or format is Format.JSON:
            sys.stdout.write(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
        else:
            write_rows(table(shown), format, sys.stdout)
    raise typer.Exit(0 if shown else 1)


def fits(
    record: dict[str, Any],
    *,
    user: str | None,
    action: str | None,
    query: str | None,
    outcome: str | None,
    since: datetime | None,
) -> bool:
    """Whether a record is asked for; None asks for all."""
    return (
        (user is None or record.get("user") == user)
        and (action is None or f"{record['action']}.".startswith(f"{action}."))
        and (query is None or record.get("query_id") == query)
        and (outcome is None or record["outcome"] == outcome)
        and (since is None or datetime.fromisoformat(str(record["time"])) >= since)
    )


def table(records: list[dict[str, Any]]) -> Result:
    """The records as rows; `about` has what is said beside, as `name=value`."""
    names = (*COLUMNS, "about")
    rows = [{**{name: each.get(name) for name in COLUMNS}, "about": " ".join(_about(each))} for each in records]
    return Result(tuple(Column(name, None) for name in names), rows, cut=False)


def _about(record: dict[str, Any]) -> Iterator[str]:
    for name, value in record.items():
        if name not in UNSAID:
            yield f"{name}={','.join(cast('list[str]', value)) if isinstance(value, list) else value}"


def _texts(files: list[Path], namespace: str | None, stack: str, hours: float | None) -> Iterator[str]:
    if namespace:
        yield from kubectl.logs(namespace, SELECTOR, hours)
        return
    if not files:
        folder = StateFolder.of(stack).audit
        files = sorted(folder.glob("*.jsonl"))
        if not files:
            raise UsageError(f"no audit trail in {folder}: name files, or --namespace, or start the platform by `make up`")
    for file in files:
        yield from _lines(file)


def _lines(file: Path) -> Iterable[str]:
    if str(file) == "-":
        return sys.stdin
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
