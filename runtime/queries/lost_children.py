"""What a worker's parent process does when a child is gone: the query's end does not wait for the reaper.

As shipped (Celery 5.6, Superset 6.1) neither the hard limit nor a lost child says anything to Superset: the query stays
`running`, and the browser of a chart waits, for ever. Imported only by Celery.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import cast

from runtime.broker import fork_safety
from runtime.broker.requests import WatchedRequest
from runtime.environment import metadata_database
from runtime.queries import completions, execution_leases, executions, final_states, query_tasks
from runtime.queries.executions import Outcome
from runtime.queries.interfaces import Seen, superset
from runtime.tenants.identity import TENANT_HEADER

logger = logging.getLogger(__name__)

#: How often, and how far apart, the parent tries to write an end. After that it is the reaper's.
TRIES, TRY_SECONDS = 5, 3.0


class LostChildRequest(WatchedRequest):
    """A request of Superset's query tasks: the one that Celery's setting `task_annotations` names."""

    def at_hard_limit(self, seconds: float) -> None:
        """The query ends with its child."""
        _bury(self)
        _later(self, lambda asked: _end_at_limit(self, asked, seconds))

    def child_lost(self, *, comes_again: bool) -> None:
        """The query ends, or whoever takes its message finds it free."""
        # Before the message goes back: whoever takes it must not wait for the lease of a dead process.
        _bury(self)
        if comes_again:
            _later(self, lambda asked: _end_write(self, asked))
        else:
            _later(self, lambda asked: _end_lost(self, asked))


def _bury(request: WatchedRequest) -> None:
    asked = query_tasks.of(request.task.name, request.args, request.kwargs)
    if asked is None or not request.worker_pid:
        return
    try:
        execution_leases.bury(asked.kind, asked.subject, str(request.hostname), int(request.worker_pid))
    except Exception as error:
        logger.warning("lease of %s %s is left to expire: %s", asked.kind, asked.subject, error)


def _end_write(request: WatchedRequest, asked: query_tasks.Work) -> None:
    """End what is not to be executed again now, instead of when its message is delivered again."""
    if asked.kind != "sql" or not final_states.left_write(int(asked.subject)):
        return
    query_id = int(asked.subject)
    if final_states.end_lost({query_id: query_tasks.LOST_WRITE})[query_id]:
        _count(request, "lost")


def _end_at_limit(request: WatchedRequest, asked: query_tasks.Work, seconds: float) -> None:
    last, seen = _last(asked), _cancelled(asked)
    message = query_tasks.hard_limit(seconds, seen, writes=last is not None and last.writes)
    _end(request, asked, last, message, "timed_out")


def _end_lost(request: WatchedRequest, asked: query_tasks.Work) -> None:
    last, seen = _last(asked), _cancelled(asked)
    message = query_tasks.LOST_WRITE if last is not None and last.writes else query_tasks.LOST_READ
    _end(request, asked, last, query_tasks.with_seen(message, seen), "lost")


def _last(asked: query_tasks.Work) -> executions.Attempt | None:
    with metadata_database.transaction() as connection:
        return executions.last(connection, asked.kind, asked.subject)


def _cancelled(asked: query_tasks.Work) -> Seen:
    """Cancel the statement of what nobody will finish: a server may not look whether its client is still there.

    A chart's session has no tag: it ends when its database looks for its client, and by its limit.
    """
    if asked.kind == "chart":
        return "unknown"
    query_id = int(asked.subject)
    return superset().ending.cancel((query_id,), final_states.CANCEL_SECONDS)[query_id]


def _end(
    request: WatchedRequest, asked: query_tasks.Work, last: executions.Attempt | None, message: str, outcome: Outcome
) -> None:
    if asked.kind == "chart" and (last is None or last.outcome is None):
        superset().ending.chart(asked.job, message)
    if final_states.end(asked.kind, asked.subject, outcome, message):
        _count(request, outcome)


def _count(request: WatchedRequest, outcome: Outcome) -> None:
    """Count an end that the child did not live to count."""
    delivery = cast("Mapping[str, object]", request.delivery_info or {})
    headers = cast("Mapping[str, object]", request.request_dict)
    queue, tenant = str(delivery.get("routing_key") or ""), str(headers.get(TENANT_HEADER) or "")
    completions.count(str(request.task.name), queue, tenant, outcome)


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="endings")


def _later(request: WatchedRequest, end: Callable[[query_tasks.Work], None]) -> None:
    """Have `end` called outside of the event loop, which must not wait for a database."""
    asked = query_tasks.of(request.task.name, request.args, request.kwargs)
    if asked is not None:
        _thread().submit(_try, asked, end)


def _try(asked: query_tasks.Work, end: Callable[[query_tasks.Work], None]) -> None:
    for attempt in range(TRIES):
        if attempt:
            time.sleep(TRY_SECONDS)
        # The child is gone, and the next one is about to be forked.
        with fork_safety.undisturbed():
            try:
                end(asked)
            except Exception as error:
                logger.warning("the end of %s %s was not written: %s", asked.kind, asked.subject, error)
            else:
                logger.info("%s %s: its child is gone, and its end is written where it has one", asked.kind, asked.subject)
                return
