"""What is wrong with a stack file, said once for each mistake and all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


class MendableError(Exception):
    """What a person can mend: its text is the whole message, and no traceback helps. Anything else is a defect."""


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake: the key's path, its value, the rule that it breaks, and the way out."""

    key: str
    value: str
    rule: str
    fix: str
    #: Other keys that the rule reads: with one of those wrong itself, this problem may not be real.
    also: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: {self.rule}. {self.fix}"


class StackError(MendableError, ValueError):
    """A stack that cannot be built; `problems` holds every mistake found, in the order of their keys."""

    def __init__(self, stack: str, problems: Iterable[Problem]) -> None:
        self.stack = stack
        self.problems = tuple(sorted(set(problems)))
        noun = "problem" if len(self.problems) == 1 else "problems"
        lines = [f"stack {stack!r} has {len(self.problems)} {noun}; nothing was started or changed:"]
        lines += [f"  {number}. {problem}" for number, problem in enumerate(self.problems, 1)]
        super().__init__("\n".join(lines))


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that `word` most likely stands for, or None where nothing is near."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A sentence with the nearest known word, or with all of them."""
    near = nearest(word, known)
    return f"Did you mean {near!r}?" if near else f"Known: {', '.join(sorted(known))}"
