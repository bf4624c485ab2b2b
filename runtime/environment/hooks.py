"""How a module puts its own function in the place of one of a library's, such as Superset's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

#: Attribute of a replacement: the modules that had their turn, its own last.
_REPLACED_BY = "superset_async_replaced_by"


def replace(owner: Any, name: str, by: str, made_of: Callable[[Any], Callable[..., Any]]) -> None:
    """Put what `made_of` makes of the function `name` of `owner` (a module or a class) in its place.

    Once in a process for each module `by`: a second call changes nothing.
    """
    shipped = getattr(owner, name)
    before: tuple[str, ...] = getattr(shipped, _REPLACED_BY, ())
    if by in before:
        return
    replacement = functools.update_wrapper(made_of(shipped), shipped)
    setattr(replacement, _REPLACED_BY, (*before, by))
    setattr(owner, name, replacement)
