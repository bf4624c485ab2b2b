"""What a run costs: processor time by tier and of strangers, memory in proportion, and what machine this is."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil


def tree(roots: Iterable[int]) -> Iterator[psutil.Process]:
    """The processes `roots` and all that descend from them, each once; those that are gone are left out."""
    seen: set[int] = set()
    for root in roots:
        try:
            parent = psutil.Process(root)
            found = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in found:
            if process.pid not in seen:
                seen.add(process.pid)
                yield process


def cpu_seconds(roots: Iterable[int]) -> float:
    """Processor seconds that `roots` and their descendants have taken, those that have ended included."""
    total = 0.0
    for process in tree(roots):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def pss_bytes(roots: Iterable[int]) -> int:
    """Proportional set size: shared pages divided among those who share them."""
    total = 0
    for process in tree(roots):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def slot_bytes(worker_roots: Iterable[int]) -> int | None:
    """Proportional size of the median child of a worker, which is what one more slot costs; None without children."""
    children = sorted(
        process.memory_full_info().pss for root in worker_roots for process in psutil.Process(root).children(recursive=True)
    )
    return children[len(children) // 2] if children else None


@dataclass(frozen=True)
class Reading:
    """Processor seconds up to a moment: by tier of the side, of the benchmark itself, and of the whole machine."""

    at: float
    tiers: Mapping[str, float]
    own: float
    machine: float


def read(tiers: Mapping[str, tuple[int, ...]], own: Iterable[int]) -> Reading:
    """Read all counters now. `own`: processes of the benchmark, the other side's among them."""
    times = psutil.cpu_times()
    idle = times.idle + times.iowait
    # Guests are in `user` and `nice` already.
    machine = sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return Reading(time.monotonic(), {tier: cpu_seconds(pids) for tier, pids in tiers.items()}, cpu_seconds(own), machine)


def foreign_share(before: Reading, after: Reading, cores: int) -> float:
    """The share of all cores' time between two readings that strangers took; what is not theirs is at least 0."""
    known = sum(after.tiers.values()) - sum(before.tiers.values()) + after.own - before.own
    strangers = after.machine - before.machine - known
    return max(0.0, strangers / (cores * (after.at - before.at)))


def machine_facts() -> dict[str, str]:
    """What a reader must know of the machine: processor, cores, memory, kernel, and the programs' versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cores": str(psutil.cpu_count() or 1),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load average at the start": " ".join(f"{value:.1f}" for value in psutil.getloadavg()),
    }
