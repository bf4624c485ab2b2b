"""`superset-async queue`, `worker` and `query list`: what happens now, asked of the web tier."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, Literal, cast

import typer

from client.errors import UnexpectedAnswerError
from client.output import Format, text, write_rows
from client.superset_client import Column, Result, SupersetClient
from ops.options import Connect, RowFormat, connected, reported, tell

#: Columns in the order of reading: Superset's JSON has them by the alphabet.
QUEUE = (
    "queue",
    "waiting",
    "oldest_seconds",
    "in_flight",
    "workers",
    "slots",
    "expected_wait_seconds",
    "bound",
    "waiting_users",
    "problem",
)
QUERY = ("state", "seconds", "kind", "id", "username", "tenant", "database", "queue", "worker")
WORKER = ("worker", "state", "slots", "reserved", "queues", "queries")
#: Seconds between two looks at a worker that is to drain.
LOOK_SECONDS = 2.0


class Found(IntEnum):
    """How `queue` ends, beside the exit codes of `query`: something keeps a queue from being worked off."""

    PROBLEM = 12


@connected
def queue(
    *,
    format: RowFormat = Format.TABLE,
    connect: Connect,
) -> None:
    """Show each queue: messages that wait, the oldest, workers and slots, the wait to expect, and who waits.

    Exit code 12: a queue has a problem, such as messages and no worker. The user must be allowed to read Superset's action log.
    """
    with reported(), connect().client() as client:
        rows = client.operations.queues()
    _show(rows, QUEUE, format)
    problems = [f"{row['queue']}: {row['problem']}" for row in rows if row["problem"]]
    for problem in problems:
        tell(problem)
    if problems:
        raise typer.Exit(Found.PROBLEM)


@connected
def list_queries(
    *,
    format: RowFormat = Format.TABLE,
    connect: Connect,
) -> None:
    """Show every query and chart that runs or waits, of all users: since when, whose, in which queue, on which worker.

    The user must be allowed to read Superset's action log. `query stop ID` stops a query of SQL Lab.
    """
    with reported(), connect().client() as client:
        _show(client.operations.open_queries(), QUERY, format)


worker = typer.Typer(
    help="See the workers that live, and have one take no more queries.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Name = Annotated[str, typer.Argument(metavar="WORKER", help="as `worker list` has it")]


@worker.command(name="list")
@connected
def list_workers(
    *,
    format: RowFormat = Format.TABLE,
    connect: Connect,
) -> None:
    """Show each worker that lives: its state, slots, tasks that it has taken, queues, and the queries that it runs.

    idle, working: it takes queries. draining: it takes no more, and has some to end. drained: it may be stopped.
    """
    with reported(), connect().client() as client:
        _show(client.operations.workers(), WORKER, format)


@worker.command()
@connected
def drain(
    name: Name,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="until it has ended what it has taken")] = False,
    connect: Connect,
) -> None:
    """Have a worker take no more queries, within five seconds. What it has taken it ends; others take what waits.

    It lasts until `worker resume`, or until the worker starts anew. The user must be allowed to write Superset's action log.
    """
    with reported(), connect().client() as client:
        client.operations.ask_worker(name, "drain")
        state = _drained(client, name) if wait else "asked to drain: `superset-async worker list` shows when it has"
        tell(f"{name}: {state}")


@worker.command()
@connected
def resume(
    name: Name,
    *,
    connect: Connect,
) -> None:
    """Have a worker that was drained take queries again, within five seconds."""
    with reported(), connect().client() as client:
        client.operations.ask_worker(name, "resume")
        tell(f"{name}: asked to resume")


def _drained(client: SupersetClient, name: str) -> Literal["drained"]:
    while True:
        states = {row["worker"]: row["state"] for row in client.operations.workers()}
        if name not in states:
            raise UnexpectedAnswerError(f"{name} is gone: it was stopped, or died, while it drained")
        if states[name] == "drained":
            return "drained"
        time.sleep(LOOK_SECONDS)


def _show(rows: Sequence[dict[str, Any]], columns: Sequence[str], format: Format) -> None:
    if format is Format.TABLE and not rows:
        return
    shown = rows if format is Format.JSON else [{name: _cell(row[name]) for name in columns} for row in rows]
    write_rows(Result(tuple(Column(name, None) for name in columns), list(shown), cut=False), format, sys.stdout)


def _cell(value: Any) -> Any:
    """A list or mapping as people read it; nothing for None and for an empty one."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(each)}" for key, each in cast("dict[str, object]", value).items())
    if isinstance(value, list):
        return ", ".join(text(each) for each in cast("list[object]", value))
    return "" if value is None else value
