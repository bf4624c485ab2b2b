"""Progress on the terminal: one line a step, with what it took."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console

#: Columns where nobody looks at a terminal: a table that is cut to 80 lacks what a program searches for.
WIDE = 400


def console(*, stderr: bool = False) -> Console:
    """A console of the terminal's width; off a terminal as wide as its content."""
    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=WIDE)


class Steps:
    """Prints each step as it ends; where the output is a terminal, the step under way spins."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, doing: str) -> Generator[None]:
        """Show `doing` until the block ends; a block that raises is marked as failed, and the error goes on."""
        started = time.monotonic()
        mark = "[red]✗[/]"
        try:
            with self.console.status(doing):
                yield
            mark = "[green]✓[/]"
        finally:
            self.console.print(f"{mark} {doing}  [dim]{time.monotonic() - started:.1f} s[/]", highlight=False)

    def note(self, text: str) -> None:
        """Print a line that is no step."""
        self.console.print(f"[yellow]·[/] {text}", highlight=False)
