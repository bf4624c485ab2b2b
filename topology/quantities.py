"""Sizes and CPU shares as Kubernetes writes them ("512Mi", "500m"), read into whole bytes and millicores and back."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_MEMORY = re.compile(r"(\d+)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_FACTORS = {
    None: 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_CPU = re.compile(r"(\d+)m|(\d+(?:\.\d{1,3})?)")

KIB, MIB, GIB = 2**10, 2**20, 2**30


def parse_memory(value: object) -> object:
    """Bytes from "512Mi", "2Gi", "500M" or a whole number of bytes; ValueError with the rule for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError("must be a size such as 512Mi or 2Gi")
    return int(match[1]) * _FACTORS[match[2]]


def parse_cpu(value: object) -> object:
    """Millicores from "500m", "1.5" or a number of cores; ValueError with the rule for anything else."""
    match = _CPU.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if not match:
        raise ValueError("must be a CPU share such as 500m or 1.5")
    return int(match[1]) if match[1] else round(float(match[2]) * 1000)


def format_memory(size: int) -> str:
    """`size` bytes as Kubernetes prints them, in the largest binary unit that divides it."""
    for suffix, factor in (("Ti", 2**40), ("Gi", GIB), ("Mi", MIB), ("Ki", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)


def format_cpu(millis: int) -> str:
    """`millis` millicores as Kubernetes prints them."""
    return str(millis // 1000) if millis % 1000 == 0 else f"{millis}m"


Memory = Annotated[int, BeforeValidator(parse_memory)]
Cpu = Annotated[int, BeforeValidator(parse_cpu)]
