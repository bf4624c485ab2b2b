"""Loaded by Python itself at the start of each process that has this folder on PYTHONPATH: writes down what it reads.

Each field that the process reads of a topology becomes a line of the file that TRACED_READS names: the kind of process, `start`
for the topology of its start or `live` for the one that follows the file, the field's path, with `*` for items of lists, and the
module that reads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from topology import model
from topology.readers import Process

FILE = os.environ.get("TRACED_READS", "")
KIND: Process | str = os.environ.get("SUPERSET_ASYNC_ROLE") or "exporter"
#: Where each part of a topology stands in it. The parts are kept, so that no other object gets the number of one of them.
_places: dict[int, tuple[str, str, object]] = {}
_told: set[tuple[str, str, str]] = set()
_plain = BaseModel.model_validate_json.__func__  # type: ignore[attr-defined]


def _place(value: object, source: str, path: str) -> None:
    if isinstance(value, BaseModel):
        _places[id(value)] = (source, path, value)
        for name in type(value).model_fields:
            _place(value.__dict__[name], source, f"{path}.{name}" if path else name)
    elif isinstance(value, tuple):
        for inner in value:
            _place(inner, source, f"{path}.*")


def _read(self: Any, text: Any, **options: Any) -> Any:
    made = _plain(self, text, **options)
    _place(made, "start" if sys._getframe(1).f_code.co_name == "load_topology" else "live", "")
    return made


def _reader() -> str:
    """The module that reads; through a property of the topology, who asks for that."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals["__name__"].startswith(("topology.", "pydantic")):
        frame = frame.f_back
    return str(frame.f_globals["__name__"])


def _traced(self: BaseModel, name: str) -> Any:
    found = object.__getattribute__(self, name)
    place = _places.get(id(self))
    if place and name in type(self).model_fields and not isinstance(found, BaseModel):
        source, path, _ = place
        said = (source, f"{path}.{name}" if path else name, _reader())
        if said not in _told:
            _told.add(said)
            with Path(FILE).open("a") as file:
                file.write(f"{KIND} {' '.join(said)}\n")
    return found


def _parts(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = (field.annotation for field in annotation.model_fields.values())
        return {annotation}.union(*(_parts(each) for each in inner))
    return set[type[BaseModel]]().union(*(_parts(each) for each in getattr(annotation, "__args__", ())))


if FILE:
    model.Topology.model_validate_json = classmethod(_read)  # type: ignore[assignment,method-assign]
    for part in _parts(model.Topology):
        part.__getattribute__ = _traced  # type: ignore[method-assign]
