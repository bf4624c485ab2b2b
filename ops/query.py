"""`superset-async query`: run SQL asynchronously on a Superset and print its rows."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.status import Status
from typer.core import TyperGroup

from client.errors import (
    ExitCode,
    NotStoppedError,
    NoWorkerError,
    StillRunningError,
    UsageError,
)
from client.output import Format, escaped, write_rows
from client.states import QueryHandle, QueryStatus, State, timeline, utc
from client.superset_client import Result, SupersetClient, new_client_id
from ops.connection import Connection, queue_of
from ops.options import Connect, RowFormat, connected, reported, tell

EXIT_CODES = """
Exit codes: 0 rows printed · 1 Superset answered something unexpected · 2 wrong usage, unknown database or query ·
3 server unreachable · 4 login refused or no permission · 5 query failed · 6 timed out (the database's limit or --timeout) ·
7 stopped by somebody · 8 result expired · 9 no worker took it · 10 broker refused it · 11 could not be stopped ·
130 Ctrl-C · 143 terminated
"""


class SqlGroup(TyperGroup):
    """A group whose first word may be SQL: `query "SELECT 1"` is `query run "SELECT 1"`.

    Without ambiguity, because no SQL statement has the name of a command: one that is a single word must be written after
    `run`, so that a mistyped command is never sent to a database.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before arguments that do not begin with a command."""
        return super().parse_args(ctx, with_command(args, list(self.commands)))


def with_command(args: Sequence[str], commands: Sequence[str]) -> list[str]:
    """`args` with the command `run` before them where they begin with SQL, with `-` (standard input) or with an option."""
    if not args or args[0] in commands or args[0] in ("-h", "--help"):
        return list(args)
    first = args[0]
    sql = first.startswith("-") or len(first.split()) > 1 or not first.replace("_", "").isalnum()
    return ["run", *args] if sql else list(args)


app = typer.Typer(
    cls=SqlGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"""Run SQL asynchronously on a Superset, through its HTTP API and its workers.

`superset-async query "SELECT 1"` submits, shows the state on stderr, and prints the rows on stdout. Without --url it uses
the platform that `make up` started on this machine. Ctrl-C stops the query on the server too.
{EXIT_CODES}""",
)

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="write rows to this file instead of stdout", show_default=False)
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, help="seconds to wait for the end of the query; default: no end", show_default=False),
]
PendingTimeout = Annotated[
    float, typer.Option("--pending-timeout", min=0, help="seconds to wait for a worker to take it; 0: no end")
]
ShowTimeline = Annotated[bool, typer.Option("--timeline", help="print when it was queued, started, finished, fetched (ms)")]
QueryId = Annotated[int, typer.Argument(metavar="ID", help="the number that Superset gave the query", min=1)]


@app.command(epilog=EXIT_CODES)
@connected
def run(
    sql: Annotated[
        str | None, typer.Argument(metavar="[SQL]", help="what to run; `-` reads it from stdin", show_default=False)
    ] = None,
    *,
    database: Annotated[
        str | None,
        typer.Option("--database", "-d", help="name or id; default: the local platform's sample", show_default=False),
    ] = None,
    schema: Annotated[str | None, typer.Option("--schema", help="default schema of the query", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="read the SQL from this file; `-`: stdin", show_default=False)
    ] = None,
    format: RowFormat = Format.TABLE,
    output: Output = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="most rows; default: the server's limit", show_default=False)
    ] = None,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="ask to pass the queries that wait; users with one of urgent.marker_roles may")
    ] = False,
    timeout: Timeout = None,
    pending_timeout: PendingTimeout = 60,
    show_timeline: ShowTimeline = False,
    connect: Connect,
) -> None:
    """Submit SQL, follow it, print its rows. `query SQL` without `run` is the same. Off a terminal stderr gets its id.

    When --timeout is over, or on Ctrl-C, the query is stopped on the server, be it queued or running. A query that no
    worker took in --pending-timeout stays queued: `query status ID` and `query results ID` find it again.
    """
    with reported():
        text = _sql(sql, file)
        _check_output(output)
        chosen = connect()
        with chosen.client() as client, _naming_queue(chosen), _state_line() as say:
            database_id = _database_id(client, chosen, database)
            with _stopping(client) as submitted:
                client_id = submitted.client_id
                submitted.handle = handle = client.submit(
                    text, database_id, schema=schema, limit=limit, client_id=client_id, urgent=urgent
                )
                say(f"query {handle.id}: submitted")
                if not sys.stderr.isatty():
                    # Whoever reads a log finds it again by this number.
                    tell(f"query {handle.id}")
                status = client.wait(handle, _teller(say, client), timeout, pending_timeout or None)
            say(f"query {handle.id}: fetching rows")
            result = client.results(status)
            moments = timeline(handle, status, time.time() * 1000)
            say(None)
            _write(result, format, output)
        _warn_if_cut(result, limit)
        if show_timeline:
            tell(f"query {handle.id}: {moments}")


@app.command()
@connected
def status(
    id: QueryId,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    connect: Connect,
) -> None:
    """Show a query: id, status, SQL, rows, execution time, start and end; where it waits. Exit code 0 whatever its state is."""
    with reported(), connect().client() as client:
        asked = client.status(id)
        found = described(asked) | _place(client, asked)
        if as_json:
            sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            return
        width = max(map(len, found))
        for name, value in found.items():
            shown = "-" if value is None else escaped(str(value)).replace("\n", "\n" + " " * (width + 2))
            sys.stdout.write(f"{name:{width}}  {shown}\n")


@app.command()
@connected
def results(
    id: QueryId,
    *,
    format: RowFormat = Format.TABLE,
    output: Output = None,
    timeout: Timeout = None,
    pending_timeout: PendingTimeout = 60,
    connect: Connect,
) -> None:
    """Print the rows of a query submitted earlier; waits for its end if need be. Ctrl-C leaves the query alone."""
    with reported():
        _check_output(output)
        chosen = connect()
        with chosen.client() as client, _naming_queue(chosen), _state_line() as say:
            ended = client.wait(id, _teller(say, client), timeout, pending_timeout or None)
            result = client.results(ended)
            say(None)
            _write(result, format, output)
        _warn_if_cut(result, None)


@app.command()
@connected
def stop(
    id: QueryId,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="the query as `status --json` has it, for programs")] = False,
    connect: Connect,
) -> None:
    """Stop a query on the server, queued or running, which cancels it in its database too. Exit code 11: it could not be.

    One that had ended stays as it was, with exit code 0: its state says so.
    """
    with reported(), connect().client() as client:
        left = client.stop(id)
        if as_json:
            sys.stdout.write(json.dumps(described(left), indent=1, ensure_ascii=False) + "\n")
        else:
            tell(f"query {id}: {left.state}")


def described(found: QueryStatus) -> dict[str, Any]:
    """A status under the names that people read; times in UTC, in ISO 8601."""
    moments = {
        "queued": utc(found.queued_ms),
        "started": utc(found.started_ms),
        "ended": utc(found.ended_ms),
    }
    return {
        "id": found.id,
        "status": str(found.state),
        "sql": found.sql,
        "rows": found.rows,
        "execution_ms": None if found.execution_ms is None else round(found.execution_ms, 1),
        **{name: moment and moment.isoformat(timespec="milliseconds") for name, moment in moments.items()},
        "error": found.error,
    }


# Input


def _sql(argument: str | None, file: Path | None) -> str:
    if (argument is None) == (file is None):
        raise UsageError("give the SQL either as the argument or by --file (`-` for stdin)")
    try:
        if argument == "-" or file == Path("-"):
            text = sys.stdin.read()
        elif file is not None:
            text = file.read_text(encoding="utf-8")
        else:
            text = argument or ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--file {file}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None
    if not text.strip():
        raise UsageError("the SQL is empty")
    return text


def _database_id(client: SupersetClient, connection: Connection, wanted: str | None) -> int:
    if wanted is not None:
        return int(wanted) if wanted.isdecimal() else client.database_id(wanted)
    if connection.home is not None and connection.home.database_id is not None:
        return connection.home.database_id
    known = client.databases()
    if len(known) != 1:
        names = ", ".join(sorted(known)) or "none that this user may see"
        raise UsageError(f"say which database by --database; there are: {names}")
    return next(iter(known.values()))


# State, on stderr

#: Seconds between two questions where a query waits.
_PLACE_SECONDS = 3.0


@contextmanager
def _state_line() -> Generator[Callable[[str | None], None]]:
    """A function that shows a line of state while the block runs, or none (None); silent where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Status("connecting", console=Console(stderr=True)) as line:

        def say(text: str | None) -> None:
            if text is None:
                line.stop()
            else:
                line.update(text)

        yield say


def _teller(say: Callable[[str], None], client: SupersetClient) -> Callable[[QueryStatus], None]:
    """What tells a person of each state; of a query that waits also where, asked every few seconds."""
    began = time.monotonic()
    place, asked = "", began

    def tell(now: QueryStatus) -> None:
        nonlocal place, asked
        if now.state is not State.PENDING:
            place = ""
        elif sys.stderr.isatty() and time.monotonic() - asked > _PLACE_SECONDS:
            place, asked = placed(_place(client, now)), time.monotonic()
        say(f"query {now.id}: {now.state}, {time.monotonic() - began:.1f} s{place}")

    return tell


def placed(place: Mapping[str, Any]) -> str:
    """Where a query waits, in words, after a comma; nothing where nobody knows."""
    if not place:
        return ""
    wait = place["expected_wait_seconds"]
    expected = "" if wait is None else f", about {wait:.0f} s to wait"
    return f", {place['before']} before it in queue {place['queue']}{expected}"


def _place(client: SupersetClient, status: QueryStatus) -> dict[str, Any]:
    """Where the query waits; nothing where it does not, or where this Superset does not tell."""
    return (client.operations.place(status.id) or {}) if status.state is State.PENDING else {}


# Stopping


class _Submitted:
    """What is to be stopped when the command is interrupted."""

    def __init__(self) -> None:
        self.client_id = new_client_id()
        self.handle: QueryHandle | None = None


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends the command as Ctrl-C does, with another code."""


@contextmanager
def _stopping(client: SupersetClient) -> Generator[_Submitted]:
    """Stop the query that the block submits on the server when the block is interrupted, or its own time is over."""
    submitted = _Submitted()

    def terminate(*_: object) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield submitted
    except KeyboardInterrupt as error:
        tell("interrupted: stopping the query on the server (once more to leave it running)")
        handle = submitted.handle or client.find(submitted.client_id, patience=2)
        if handle is None:
            tell("the query had not been submitted")
        else:
            _stop(client, handle)
        raise typer.Exit(ExitCode.TERMINATED if isinstance(error, _TerminatedError) else ExitCode.INTERRUPTED) from None
    except StillRunningError as error:
        tell(f"error: {error}: --timeout is over")
        if submitted.handle is not None:
            _stop(client, submitted.handle)
        raise typer.Exit(error.exit_code) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(client: SupersetClient, handle: QueryHandle) -> None:
    try:
        left = client.stop(handle)
    except NotStoppedError as error:
        tell(str(error))
    else:
        tell(f"query {handle.id} is {left.state} on the server{f': {left.error}' if left.error else ''}")


# Rows


def _check_output(output: Path | None) -> None:
    """UsageError before anything is submitted where `output` cannot be written."""
    if output is None:
        if sys.stdout.name == os.devnull:
            raise UsageError("stdout is closed, so the rows would go nowhere: give --output FILE")
        return
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"--output {output}: wants a file in a folder that exists")
    target = output if output.exists() else output.parent
    if not os.access(target, os.W_OK):
        raise UsageError(f"--output {output}: may not be written")


def _write(result: Result, kind: Format, output: Path | None) -> None:
    """Rows to stdout, or to a file that is complete when it appears."""
    if output is None:
        _lenient(sys.stdout)
        write_rows(result, kind, sys.stdout)
        sys.stdout.flush()
        return
    if output.exists() and not output.is_file():
        with output.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            write_rows(result, kind, stream)
        return
    target = output.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    with tempfile.NamedTemporaryFile(
        "w",
        encoding="utf-8",
        errors="backslashreplace",
        newline="",
        dir=target.parent,
        prefix=f".{target.name}.",
        delete=False,
    ) as stream:
        draft = Path(stream.name)
        try:
            write_rows(result, kind, stream)
            stream.flush()
            draft.chmod(mode)
            draft.replace(target)
        except BaseException:
            draft.unlink()
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _lenient(stream: TextIO) -> None:
    """Let a stream write what its encoding lacks as an escape, rather than fail in the middle of the rows."""
    reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _warn_if_cut(result: Result, limit: int | None) -> None:
    if result.cut:
        by = "--limit" if limit is not None and len(result.rows) >= limit else "the server's row limit"
        tell(f"warning: only the first {len(result.rows)} rows, because of {by}; the query has more")


@contextmanager
def _naming_queue(connection: Connection) -> Generator[None]:
    """Let a NoWorkerError of the local platform name the queue that no worker served."""
    try:
        yield
    except NoWorkerError as error:
        home = connection.home
        if home is None:
            raise
        queue = queue_of(home.topology, connection.username)
        its = f"Its queue is {queue!r}: " if queue else ""
        hint = f"{its}`superset-async status --stack {home.stack}` shows the workers"
        raise NoWorkerError(f"{error}. {hint}") from None
