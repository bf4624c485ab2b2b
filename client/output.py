"""Rows as a table, CSV or JSON text. Pure, apart from writing to the stream that is given."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol, cast

from rich.cells import cell_len

from client.superset_client import Result


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


#: The largest integer up to which a double has every one (RFC 8259, section 6).
EXACT = 2**53 - 1


class Writable(Protocol):
    """What rows are written to."""

    def write(self, text: str, /) -> object:
        """Take `text`."""
        ...


def write_rows(result: Result, kind: Format, stream: Writable) -> None:
    """Write all rows, values in the order of the columns. A statement that returns no columns has no table."""
    names = [column.name for column in result.columns]
    rows = [[row.get(name) for name in names] for row in result.rows]
    writers = {Format.TABLE: table_lines, Format.CSV: csv_lines, Format.JSON: json_lines}
    for line in writers[kind](names, rows):
        stream.write(line + "\n")


def table_lines(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Aligned columns, numbers to the right; NULL is written so, and what would move the cursor is written as an escape."""
    if not names:
        return
    heads = [_visible(name) for name in names]
    cells = [[_visible("NULL" if value is None else text(value)) for value in row] for row in rows]
    widths = [max(cell_len(line[at]) for line in [heads, *cells]) for at in range(len(names))]
    right = [_numeric([row[at] for row in rows]) for at in range(len(names))]

    def line(parts: Sequence[str], sides: Sequence[bool]) -> str:
        padded = (_pad(part, width, side) for part, width, side in zip(parts, widths, sides, strict=True))
        return " | ".join(padded).rstrip()

    yield line(heads, right)
    yield "-+-".join("-" * width for width in widths)
    for row in cells:
        yield line(row, right)


def csv_lines(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """RFC 4180 with a header, and PostgreSQL's rule for the rest: NULL is an empty field, an empty string is `""`.

    Where there is but one column, NULL is `""` too: to most readers an empty line is no row.
    """
    if not names:
        return
    yield ",".join(map(_csv_field, names))
    null = "" if len(names) > 1 else '""'
    for row in rows:
        yield ",".join(null if value is None else _csv_field(text(value)) for value in row)


def json_lines(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """One JSON array of objects, one object a line; see `exact` for numbers."""
    if not rows:
        yield "[]"
        return
    yield "["
    for number, row in enumerate(rows, 1):
        record = json.dumps(dict(zip(names, map(exact, row), strict=True)), ensure_ascii=False)
        yield record + ("," if number < len(rows) else "")
    yield "]"


def exact(value: Any) -> Any:
    """`value` as JSON readers take it without loss: a number that most of them round is text.

    That is an integer beyond ±2^53, and a Decimal.
    """
    if isinstance(value, Decimal):
        return text(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    if isinstance(value, list):
        return [exact(inner) for inner in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in cast("dict[str, Any]", value).items()}
    return value


def text(value: object) -> str:
    """A value other than None as text: booleans and nested values as in JSON, anything else as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _csv_field(value: str) -> str:
    plain = value and value == value.strip() and not any(mark in value for mark in ',"\r\n')
    return value if plain else '"' + value.replace('"', '""') + '"'


def _visible(value: str) -> str:
    """`value` on one line, without control or direction characters that a terminal would obey."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _OBEYED or char in _BIDI else char
        for char in value
    )


#: Control characters, line and paragraph separators, halves of a surrogate pair.
_OBEYED = frozenset({"Cc", "Zl", "Zp", "Cs"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _numeric(values: Sequence[object]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in given)


def _pad(value: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(value))
    return space + value if right else value + space


def escaped(message: str) -> str:
    """A message from the server for a terminal: line ends stay, nothing else that a terminal would obey."""
    return "\n".join(_visible(line) for line in message.splitlines())
