"""The topology of this process: as it was when the process started, and as its file is now.

On Kubernetes the file is a mounted ConfigMap, which the kubelet replaces within about a minute of a change. What a process
took from the topology at its start (limits, caches, addresses) changes only with a restart, which the digest in its pod's
template causes; what is asked for by `current` takes effect without one. `topology.readers` says which is which.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, cast, get_args

from pydantic import ValidationError

from runtime.environment.secrets import ConfigurationError
from topology.commands import ROLE_ENV, TOPOLOGY_ENV
from topology.model import Topology

logger = logging.getLogger(__name__)

#: The file is checked (one `stat`) at most this often.
CHECK_SECONDS = 5.0

Role = Literal["web", "worker", "beat", "init"]


def role(env: Mapping[str, str]) -> Role:
    """Which kind of process this is, from the environment; ConfigurationError for none or an unknown one."""
    value = env.get(ROLE_ENV, "")
    if value not in get_args(Role):
        raise ConfigurationError(f"{ROLE_ENV} is {value!r}, and must be one of {', '.join(get_args(Role))}")
    return cast(Role, value)


def load_topology(env: Mapping[str, str]) -> Topology:
    """The topology in the file that the environment names; ConfigurationError where there is none, or it does not fit."""
    path = env.get(TOPOLOGY_ENV)
    if not path:
        raise ConfigurationError(f"{TOPOLOGY_ENV} is not set: it must be the path of the topology's JSON")
    try:
        return Topology.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{TOPOLOGY_ENV}={path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(
            f"{TOPOLOGY_ENV}={path} is no topology of this version ({error.error_count()} problems, first: "
            f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}). Make it again with this version"
        ) from None


@lru_cache(maxsize=1)
def started() -> Topology:
    """The topology with which this process started; ConfigurationError where its environment names none."""
    return load_topology(os.environ)


class Watched:
    """A topology that follows its file; a file that cannot be read, or is of another version, changes nothing."""

    def __init__(self, path: Path, first: Topology | None = None, every: float = CHECK_SECONDS) -> None:
        self._path = path
        self._every = every
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._next = time.monotonic() + every
        self._topology = first or Topology.model_validate_json(path.read_text(encoding="utf-8"))

    def __call__(self) -> Topology:
        """The topology; the same object for as long as the file is the same."""
        # Whoever comes while another checks goes on with what is known.
        if time.monotonic() >= self._next and self._lock.acquire(blocking=False):
            try:
                self._check()
            finally:
                self._lock.release()
        return self._topology

    def _check(self) -> None:
        self._next = time.monotonic() + self._every
        signature = self._signature()
        if signature == self._seen or signature is None:
            return
        self._seen = signature
        try:
            changed = Topology.model_validate_json(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.error("the changed topology in %s is not taken: %s", self._path, error)  # noqa: TRY400 - its text says it
            return
        logger.info("the topology in %s has changed: tenants %s", self._path, [tenant.id for tenant in changed.tenants])
        self._topology = changed

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            # Through the symbolic links by which a mounted ConfigMap is replaced.
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


@cache
def _watched(path: str) -> Watched:
    return Watched(Path(path))


def current(env: Mapping[str, str] = os.environ) -> Topology:
    """The topology of this process as its file is now; KeyError where its environment names none."""
    return _watched(env[TOPOLOGY_ENV])()
