"""Asynchronous charts that are the same are sent once: the others follow the job that there is (`runtime.results.followers`).

Replaces the tasks' `delay` in Superset's manager of asynchronous charts, through `runtime.superset.chart_events` (read and
tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from runtime.queries import chart_jobs
from runtime.queries.admission import Refusal
from runtime.results.followers import Follower, digest, join
from runtime.superset import charts, refusals
from runtime.superset.submission import ChartTask
from runtime.tenants.identity import current_tenant_id

logger = logging.getLogger(__name__)


class SharedTask:
    """Superset's task of a chart, sent only where no job that computes the same for the same tenant is under way.

    What is the same is told by the cache keys that this request has just looked for in vain, so a forced refresh, which does
    not look, always has its own job. `join_seconds`: how long others may follow a job. `end`: ends a job's followers.
    """

    def __init__(
        self, task: ChartTask, join_seconds: int, end: Callable[[dict[str, Any], str, dict[str, Any]], None]
    ) -> None:
        self._task = task
        self._join_seconds = join_seconds
        self._end = end

    def delay(self, job: dict[str, Any], form: dict[str, Any]) -> None:
        """Follow the job that there is, or send this one; raises what sending raises."""
        keys = charts.missed()
        metadata = {key: value for key, value in job.items() if key != "guest_token"}
        if keys and self._follows(job, metadata, keys, form):
            return
        try:
            self._task.delay(job, form)
        except Exception as error:
            if not keys:
                raise
            with contextlib.suppress(Exception):
                self._end(metadata, "error", {"errors": [{"message": str(error)}]})
            _unregister(metadata)
            raise

    def _follows(self, job: dict[str, Any], metadata: dict[str, Any], keys: list[str], form: dict[str, Any]) -> bool:
        identity = digest([current_tenant_id(), sorted(keys)])
        try:
            # Before others can follow it: if this process ended in between, nobody would find it lost, nor its followers.
            self._task.register(job, form)
            # By its own request it is fetched: two charts may show the same data differently.
            follower = Follower(metadata, charts.keep_form(form))
            leader = join(identity, follower, self._join_seconds)
        except Refusal as refusal:
            raise refusals.superset_error(refusal) from refusal
        except Exception:
            logger.warning("a chart's job was sent without asking whether there is the same one", exc_info=True)
            return False
        if leader is None:
            return False
        _unregister(metadata)
        return True


def _unregister(metadata: dict[str, Any]) -> None:
    try:
        chart_jobs.remove(metadata)
    except Exception:
        logger.warning("job %s stays registered, until the reaper ends it", metadata["job_id"], exc_info=True)
