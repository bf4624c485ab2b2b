"""Sizes and CPU shares as Kubernetes writes them ("512Mi", "500m"), read into whole bytes and millicores and back."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

KIB, MIB, GIB = 2**10, 2**20, 2**30

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000**power) for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{unit: Decimal(1024**power) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(m|k|[KMGTPE]i|[MGTPE])?")
#: What a stack file may say, where a mistake in a unit should not pass as a size.
_MEMORY = re.compile(r"\d+(Ki|Mi|Gi|Ti|k|M|G|T)?")
_CPU = re.compile(r"\d+m|\d+(\.\d{1,3})?")

#: Context of a validation that reads a stack file. There a bare number of a CPU share is one of cores, as Kubernetes has it;
#: anywhere else it is the number of millicores that the field's name says.
STACK_FILE: Final = {"source": "stack file"}


def parse_quantity(value: object) -> Decimal:
    """Any quantity that Kubernetes takes ("500m", "1.5Gi", "1e3", 2) as a number; ValueError for anything else."""
    match = _QUANTITY.fullmatch(str(value))
    if not match:
        raise ValueError(f"{value!r} is no quantity")
    return Decimal(match[1]) * _FACTORS[match[2] or ""]


def parse_memory(value: object) -> object:
    """Bytes from "512Mi", "2Gi", "500M" or a whole number of bytes; ValueError with the rule for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not _MEMORY.fullmatch(value.strip()):
        raise ValueError("must be a size such as 512Mi or 2Gi")
    return int(parse_quantity(value.strip()))


def parse_cpu(value: object) -> object:
    """Millicores from "500m", "1.5" or a number of cores; ValueError with the rule for anything else."""
    if isinstance(value, bool) or not _CPU.fullmatch(str(value).strip()):
        raise ValueError("must be a CPU share such as 500m or 1.5")
    return int(parse_quantity(str(value).strip()) * 1000)


def format_memory(size: int) -> str:
    """`size` bytes as Kubernetes prints them, in the largest binary unit that divides it."""
    for suffix, factor in (("Ti", 2**40), ("Gi", GIB), ("Mi", MIB), ("Ki", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)


def format_cpu(millis: int) -> str:
    """`millis` millicores as Kubernetes prints them."""
    return str(millis // 1000) if millis % 1000 == 0 else f"{millis}m"


def _cpu_share(value: object, info: ValidationInfo) -> object:
    return parse_cpu(value) if info.context is STACK_FILE else value


#: Bytes.
Memory = Annotated[
    int, BeforeValidator(parse_memory), WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{_MEMORY.pattern}$"})
]
#: Millicores.
Cpu = Annotated[
    int, BeforeValidator(_cpu_share), WithJsonSchema({"type": ["string", "number"], "pattern": f"^({_CPU.pattern})$"})
]
