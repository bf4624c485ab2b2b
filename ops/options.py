"""What every command that talks to a Superset has: the options that say which one and as whom, and how its errors end it."""

from __future__ import annotations

import functools
import getpass
import inspect
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from client.errors import ClientError, ExitCode
from client.output import Format, escaped
from ops.connection import Connection, Wanted, local_platform, resolve

_CONNECTION = "Connection (default: the local platform)"
Url = Annotated[
    str | None,
    typer.Option(
        "--url", help="Superset's address [env: SUPERSET_ASYNC_URL]", show_default=False, rich_help_panel=_CONNECTION
    ),
]
Username = Annotated[
    str | None,
    typer.Option(
        "--username",
        "-u",
        help="who logs in [env: SUPERSET_ASYNC_USERNAME]",
        show_default=False,
        rich_help_panel=_CONNECTION,
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help="file with the password; else SUPERSET_ASYNC_PASSWORD, else asked for",
        show_default=False,
        rich_help_panel=_CONNECTION,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="file with an access token of Superset's login API, instead of a password [env: SUPERSET_ASYNC_TOKEN]",
        show_default=False,
        rich_help_panel=_CONNECTION,
    ),
]
Stack = Annotated[
    str, typer.Option("--stack", help="which local platform, where no address is given", rich_help_panel=_CONNECTION)
]
RowFormat = Annotated[Format, typer.Option("--format", "-f", help="how rows are written")]
#: What a command calls to know where to connect.
Connect = Callable[[], Connection]


def _options(
    *,
    url: Url = None,
    username: Username = None,
    password_file: PasswordFile = None,
    token_file: TokenFile = None,
    stack: Stack = "local",
) -> Connection:
    """The connection that these options say."""
    return connection(Wanted(url, username, password_file, token_file), stack)


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer with these options after its own; `command` takes `connect: Connect` in their place.

    Nothing is asked for, and no UsageError raised, before it calls that.
    """
    own, theirs = inspect.signature(command).parameters, inspect.signature(_options).parameters

    @functools.wraps(command)
    def call(*arguments: Any, **given: Any) -> None:
        said = {name: given.pop(name) for name in theirs}
        command(*arguments, connect=functools.partial(_options, **said), **given)

    # Evaluated where they were written: the wrapper's module does not know the command's names.
    hints = get_type_hints(command, include_extras=True) | get_type_hints(_options, include_extras=True)
    parameters = [*(each for name, each in own.items() if name != "connect"), *theirs.values()]
    taken = [each.replace(annotation=hints[each.name]) for each in parameters]
    call.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in taken}
    return call


def connection(wanted: Wanted, stack: str) -> Connection:
    """Where to connect, from options, environment and local platform; asks for a password where there is a terminal."""
    return resolve(wanted, os.environ, local_platform(stack), getpass.getpass if sys.stdin.isatty() else None)


@contextmanager
def reported() -> Generator[None]:
    """Print an error of the block on stderr, and end with its exit code."""
    try:
        yield
    except ClientError as error:
        tell(f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        # The reader of the rows has seen enough.
        raise
    except OSError as error:
        tell(f"error: the rows could not be written: {error.strerror}")
        raise typer.Exit(ExitCode.UNEXPECTED) from None


def tell(line: str) -> None:
    """Write a line on stderr; what a terminal would obey is escaped."""
    sys.stderr.write(escaped(line) + "\n")
