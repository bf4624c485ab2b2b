"""Upper bounds of the histograms' buckets, in seconds: who counts and who asks must mean the same ones."""

from __future__ import annotations

#: Of a task's duration: these, and as many of the next as it takes to have one beyond the longest hard limit.
TASK_BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
LONG_TASK_BUCKETS = (120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0)
#: Of the time that a message waits.
WAIT_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
#: Of reading or writing a result.
RESULT_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Of answering a request of the web tier.
REQUEST_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def task_buckets(longest_limit_seconds: int) -> tuple[float, ...]:
    """The bounds of the tasks of a stack with this longest hard limit: however late one ends, it is below a bound."""
    below = sum(bound <= longest_limit_seconds for bound in LONG_TASK_BUCKETS)
    return (*TASK_BUCKETS, *LONG_TASK_BUCKETS[: below + 1])
