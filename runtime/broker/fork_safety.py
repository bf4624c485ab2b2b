"""A worker's parent forks its children while threads of its own talk to Redis and PostgreSQL.

What they call has locks: libpq's Kerberos, glibc's resolver, clients' pools, the buffer of the stream that the log goes to. A
child that is forked while a thread has one of them gets it locked, and nobody in the child unlocks it: at its first
connection, or its first line of log, it waits for ever, with the task that it was given. So all that those threads do, their
logging too, is `undisturbed`: a fork waits until they are out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

#: Taken by the thread that forks, too, which is the one that the child goes on with.
_lock = threading.RLock()


@contextmanager
def undisturbed() -> Generator[None]:
    """No child is forked by another thread during the block, which has to end by timeouts of its own."""
    with _lock:
        yield


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
