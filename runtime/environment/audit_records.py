"""The records of the audit trail as lines of text, written and read: pure.

A line is a JSON object of at most `LINE_BYTES`: so much a pipe takes whole, and lines of several processes are never mixed
(POSIX). What is longer goes on in lines of the same `id` with a `part`: texts and lists are put together again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

#: Key of the format's version: a line without it is no record.
VERSION_KEY, VERSION = "audit", 1
#: PIPE_BUF of Linux.
LINE_BYTES = 4096
#: Characters of a text in one line, for each of which JSON may need twelve bytes; and bytes of a list, or of a first line.
TEXT, PART_BYTES = 250, 3000

Value = str | int | bool | None | list[str]


def lines(record: Mapping[str, Value]) -> Iterator[bytes]:
    """The record as lines, the first one with everything that is short; an item of a list that is longer than `TEXT` is cut."""
    short: dict[str, Value] = {}
    rest: list[tuple[str, Value]] = []
    for name, value in record.items():
        first, *others = _parts(value)
        if short and len(_line({**short, name: first})) > PART_BYTES:
            others = [first, *others]
        else:
            short[name] = first
        rest += [(name, part) for part in others]
    yield _line(short)
    kept = {name: short[name] for name in (VERSION_KEY, "id", "time")}
    for number, (name, part) in enumerate(rest, 1):
        yield _line({**kept, "part": number, name: part})


def _parts(value: Value) -> list[Value]:
    if isinstance(value, str):
        return [value[at : at + TEXT] for at in range(0, len(value), TEXT)] or [""]
    if not isinstance(value, list):
        return [value]
    parts: list[list[str]] = [[]]
    for item in value:
        cut = item if len(item) <= TEXT else item[: TEXT - 1] + "…"
        if parts[-1] and len(json.dumps([*parts[-1], cut])) > PART_BYTES:
            parts.append([])
        parts[-1].append(cut)
    return [*parts]


def _line(record: Mapping[str, Value]) -> bytes:
    return (json.dumps(record) + "\n").encode()


def read(texts: Iterable[str]) -> list[dict[str, Any]]:
    """The records in lines of text, in which there may be others and repeated ones, by time; the parts of each put together."""
    found: dict[str, dict[str, Any]] = {}
    parts: dict[tuple[str, int], dict[str, Any]] = {}
    for record in filter(None, map(_record, texts)):
        if "part" in record:
            parts[str(record["id"]), int(record["part"])] = record
        else:
            found.setdefault(str(record["id"]), record)
    for (id, _), part in sorted(parts.items(), key=lambda each: each[0]):
        whole = found.get(id, {})
        for name in part.keys() - {VERSION_KEY, "id", "time", "part"}:
            whole[name] = whole[name] + part[name] if name in whole else part[name]
    return sorted(found.values(), key=lambda record: str(record["time"]))


def is_record(text: str) -> bool:
    """Whether a line is a record, or a part of one."""
    return _record(text) is not None


def _record(text: str) -> dict[str, Any] | None:
    # A collector may have put words of its own before it.
    at = text.find('{"' + VERSION_KEY + '"')
    try:
        record = cast("dict[str, Any]", json.loads(text[at:])) if at >= 0 else {}
    except ValueError:
        return None
    return record if record.get(VERSION_KEY) == VERSION and {"id", "time"} <= record.keys() else None
