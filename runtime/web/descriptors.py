"""How many connections a process may hold, by the file descriptors that it may have."""

from __future__ import annotations

import resource

#: As many as gunicorn itself takes.
_MOST = 1000
#: Descriptors beside those of clients: files, the server's sockets, and for each thread connections to Redis and PostgreSQL.
_OWN = 64
_OWN_A_THREAD = 4


class TooFewDescriptors(RuntimeError):
    """The process may not open what it needs; the message says how many, and where the limit is set."""


def connections(limit: int, threads: int) -> int:
    """How many clients' connections a process of `threads` threads may hold that may open `limit` files; more than one for each
    thread. TooFewDescriptors where it can't.
    """
    own = _OWN + _OWN_A_THREAD * threads
    if limit - own <= threads:
        raise TooFewDescriptors(
            f"this process may open {limit} files and needs more than {own + threads} for its {threads} threads: raise the hard "
            "limit (ulimit -Hn, LimitNOFILE= of the container's runtime), or lower web.threads"
        )
    return min(_MOST, limit - own)


def raised() -> int:
    """How many files this process may open, after it has raised its limit to what the system allows (at most 65536)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return wanted if soft == resource.RLIM_INFINITY else soft
