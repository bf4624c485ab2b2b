"""What every section of a stack file is made of: its base class, and how its fields and keys belong together."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """Base of every section: immutable, unknown keys refused, no silent conversion of a string to a number.

    A field whose name ends in its unit has the stack file's key, which does not, as its validation alias. A stack file is read
    by the keys alone (`topology.settings.read`); Python and the topology's JSON use the fields' names.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, str_strip_whitespace=True, validate_by_alias=True, validate_by_name=True
    )


def fields_by_key(section: type[BaseModel]) -> dict[str, tuple[str, FieldInfo]]:
    """Name and description of each field, by the key that a stack file has for it."""
    return {str(field.validation_alias or name): (name, field) for name, field in section.model_fields.items()}


def inherited(section: Section, base: type[Section]) -> dict[str, Any]:
    """What `section` has from `base`, for the part of the topology that has the same base."""
    return {name: getattr(section, name) for name in base.model_fields}


def section_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section inside an annotation (`X`, `X | None`, `dict[str, X]`) and whether it is a map of them; None for a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin = typing.get_origin(annotation)
    if origin is dict:
        return section_in(typing.get_args(annotation)[1])[0], True
    if origin in (types.UnionType, typing.Union):
        for option in typing.get_args(annotation):
            found, is_map = section_in(option)
            if found:
                return found, is_map
    return None, False
