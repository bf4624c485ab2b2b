"""How much memory processes of this machine use, as the kernel says it (Linux)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
#: Where control groups are, and the file that counts by the version of them.
CGROUPS = Path("/sys/fs/cgroup")
EVENTS = {2: "memory.events", 1: "memory.oom_control"}


@dataclass(frozen=True)
class Used:
    """Resident bytes of the largest of several processes, now and at its peak, and the most that one has grown."""

    now: int = 0
    peak: int = 0
    grown: int = 0


class Children:
    """Looks at the child processes of this one, again and again, and remembers what each used at the first look."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._first: dict[int, int] = {}

    def look(self, pids: Iterable[int]) -> Used:
        """What those of `pids` use that live."""
        seen = {pid: used for pid in pids if (used := _resident(self._proc, pid)) is not None}
        self._first = {pid: self._first.get(pid, now) for pid, (now, _) in seen.items()}
        return Used(
            now=max((now for now, _ in seen.values()), default=0),
            peak=max((peak for _, peak in seen.values()), default=0),
            grown=max((now - self._first[pid] for pid, (now, _) in seen.items()), default=0),
        )


class OomKills:
    """Processes of this one's control group that the kernel has killed for want of memory, since this object was made."""

    def __init__(self, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._before = self._counted()

    def __call__(self) -> int:
        """How many; 0 where the kernel does not say."""
        return max(0, self._counted() - self._before)

    def _counted(self) -> int:
        for file in self._files():
            try:
                found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
            except OSError:
                continue
            if found:
                return int(found[1])
        return 0

    def _files(self) -> Iterator[Path]:
        """Its group's file by its path; and that of the root, all that a container without a namespace of groups sees."""
        try:
            groups = (self._proc / "self/cgroup").read_text().splitlines()
        except OSError:
            return
        for group in groups:
            _, controllers, path = group.split(":", 2)
            if controllers == "":
                yield from (self._cgroups / at / EVENTS[2] for at in (path.lstrip("/"), "."))
            elif "memory" in controllers.split(","):
                yield from (self._cgroups / "memory" / at / EVENTS[1] for at in (path.lstrip("/"), "."))


def _resident(proc: Path, pid: int) -> tuple[int, int] | None:
    """Resident bytes of a process, now and at its peak; None for one that is gone."""
    try:
        status = (proc / str(pid) / "status").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return (int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024) if len(found) == 2 else None
