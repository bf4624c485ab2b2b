"""Whether a process that wrote its name down still lives, for processes that can see it: those of the same container.

A name is `<boot>.<namespace>:<pid>.<start>`: the kernel's boot id, its process namespace, the id in that namespace, and when it
began (clock ticks since boot, proc(5)), so that a name is never another process's, whatever ids and host names repeat.
"""

from __future__ import annotations

import os
import uuid
from functools import lru_cache
from pathlib import Path

_PROC = Path("/proc")
#: Fields of /proc/<pid>/stat behind the program's name: its state, and when it began.
_STATE, _START = 0, 19


def name() -> str:
    """This process's name."""
    pid = os.getpid()
    return f"{_namespace()}:{pid}.{_stat(pid)[_START]}"


def has_ended(named: str) -> bool:
    """Whether that process is known to have ended; False for one that cannot be seen from here, and for what is no name."""
    namespace, _, process = named.rpartition(":")
    pid, _, start = process.partition(".")
    if namespace != _namespace() or not (pid.isdecimal() and start.isdecimal()):
        return False
    try:
        stat = _stat(int(pid))
    except (FileNotFoundError, ProcessLookupError):
        return True
    # One that was killed is a zombie until its parent has looked.
    return stat[_START] != start or stat[_STATE] in "ZX"


@lru_cache(maxsize=1)
def _namespace() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}.{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        # A kernel that does not tell, as some sandboxes': nobody is seen from here, and nobody sees us.
        return uuid.uuid4().hex


def _stat(pid: int) -> list[str]:
    # The program's name is in parentheses, and may have any character.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
