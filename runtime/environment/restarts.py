"""Whether a Redis server is still the process that it was: one that is not may have lost what it was told last.

Users of this project may not ask a server who it is (`INFO` is an administrator's). But a server keeps scripts in memory only:
a script of our own that it does not know any more was given to another process, before a restart or a failover.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from redis.exceptions import NoScriptError


class RestartDetector:
    """Says of one server, question by question, whether it has been the same process since the question before."""

    def __init__(self) -> None:
        self._script = f"return '{uuid.uuid4().hex}'"
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def is_same(self, client: Any) -> bool:
        """False at the first question, and after each restart or failover. Raises what redis-py raises."""
        try:
            client.evalsha(self._digest, 0)
        except NoScriptError:
            client.script_load(self._script)
            return False
        return True
