"""Results too large for Redis, as files in a folder that web and workers share; each is gone after its lifetime.

A file has the signed envelope of one key. It is written beside its name and renamed, so that no reader sees half of it, and
its name begins with when it ends, so that cleaning up reads no file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path

logger = logging.getLogger(__name__)

SUFFIX = ".result"
#: A process looks for ended files at most this often, when it writes one.
CLEAN_SECONDS = 60
#: What a process that was killed while it wrote leaves behind is removed after this long.
ABANDONED_SECONDS = 3600


class Folder:
    """The files of one purpose in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cleaned = 0.0

    def write(self, key: str, content: bytes, seconds: float) -> str:
        """Write `content` for `key`, to be kept `seconds`; the file's name. OSError where the folder cannot be written."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.clean()
        name = f"{int(time.time() + seconds) + 1}-{hashlib.sha256(key.encode()).hexdigest()}-{os.urandom(4).hex()}{SUFFIX}"
        handle, temporary = tempfile.mkstemp(dir=self._path, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).rename(self._path / name)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        return name

    def read(self, name: str) -> bytes | None:
        """What the file `name` has; None where it is gone."""
        if "/" in name or not name.endswith(SUFFIX):
            return None
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file that nothing names any more."""
        if "/" not in name and name.endswith(SUFFIX):
            with contextlib.suppress(OSError):
                (self._path / name).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what has ended, at most once in `CLEAN_SECONDS` in a process. It never fails."""
        now = time.time()
        if now < self._cleaned + CLEAN_SECONDS:
            return
        self._cleaned = now
        try:
            for entry in os.scandir(self._path):
                with contextlib.suppress(OSError):
                    if ended(entry.name, now, entry.stat().st_mtime):
                        Path(entry.path).unlink()
        except OSError:
            logger.warning("results of %s that have ended could not be removed", self._path, exc_info=True)


def ended(name: str, now: float, written: float) -> bool:
    """Whether the file `name`, last written at `written`, is of no more use at `now`. Other people's files never are."""
    if name.endswith(SUFFIX):
        end = name.partition("-")[0]
        return end.isdecimal() and int(end) < now
    return name.endswith(".part") and written + ABANDONED_SECONDS < now
