"""A chart is stopped before it has ended: nobody waits for it any more, or who does has stopped it."""

from __future__ import annotations

from runtime.queries import abandoned_charts, chart_jobs, final_states
from runtime.queries.interfaces import superset
from runtime.results import followers

#: What the page of whoever has stopped it shows.
STOPPED = "This chart was stopped. Update the chart to run it again."


def stop(job: chart_jobs.ChartJob, followed_by: int, message: str) -> bool:
    """Stop a chart that waits or runs, tell its pages `message`, and end its record; False where others wait for it too.

    `followed_by` is how many jobs may follow it: one that has joined it since is waited for. Its statement is cancelled by the
    child that executes it, which looks every `abandoned_charts.LOOK_SECONDS`. Raises the errors of redis-py and SQLAlchemy.
    """
    if not followers.close_if(job.job_id, followed_by):
        return False
    abandoned_charts.stop(job.job_id)
    superset().ending.chart(job.metadata, message)
    chart_jobs.remove(job.metadata)
    final_states.end("chart", job.job_id, "stopped", message)
    return True
