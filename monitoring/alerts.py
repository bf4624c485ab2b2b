"""The alerts of a stack: what each means, when it fires, whom it wakes, and its page in docs/runbooks.

`page`: users wait or lose queries now, and a person can do something about it. `ticket`: a cause that will become one, or that
someone must look at this week.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from monitoring.objectives import objectives
from topology import metric_names as names
from topology.model import Topology

#: `none`: for the machine that hears it, and no person.
Severity = Literal["page", "ticket", "none"]
#: Messages in a queue that are a backlog, unless so many are never taken.
DEEP = 500
#: The reaper looks every 10 seconds at most.
SILENT_SECONDS = 120
#: A result that takes so long is one that its user waits for.
SLOW_SECONDS = 1.0
#: The oldest message may wait so many times as long as the objective says.
OLDEST_FACTOR = 10
PAGE = "alerts.md"


@dataclass(frozen=True)
class Alert:
    """One alert: `expr` is PromQL that has a result while it is true, `lasting` for how long until it fires.

    `summary` and `description` may use Prometheus's templates. The objectives' own alerts have no `expr` here.
    """

    name: str
    severity: Severity
    lasting: str
    expr: str
    summary: str
    description: str


def alerts(topology: Topology) -> tuple[Alert, ...]:
    """The alerts of a stack, but for those of its objectives."""
    return (*_symptoms(topology), *_causes(topology), *_watchers(topology))


def texts(topology: Topology) -> dict[str, dict[str, str]]:
    """What each alert says, the objectives' as well, by its name."""
    said = {alert.name: (alert.summary, alert.description) for alert in alerts(topology)}
    for objective in objectives(topology):
        said[objective.alert] = (
            f"Queue {{{{ $labels.queue }}}}: the promise that {objective.promise} is being broken",
            'The error budget of 30 days of queue {{ $labels.queue }}, tenant {{ $labels.tenant | printf "%q" }}, burns too fast '
            "in both windows.",
        )
    return {
        name: {"summary": summary, "description": description, "runbook_url": runbook(topology, name)}
        for name, (summary, description) in said.items()
    }


def runbook(topology: Topology, alert: str) -> str:
    """Where to read what to do about an alert."""
    return f"{topology.exporter.runbooks.rstrip('/')}/{PAGE}#{alert.lower()}"


def _stack(topology: Topology) -> str:
    return f'namespace="{topology.namespace}"'


def _by_queue(topology: Topology, name: str) -> str:
    """A gauge by queue. Two exporters, while one replaces the other, say the same: hence max."""
    return f"max by ({names.QUEUE_LABEL}) ({name}{{{_stack(topology)}}})"


def _symptoms(topology: Topology) -> tuple[Alert, ...]:
    oldest = OLDEST_FACTOR * topology.exporter.objectives.wait
    depth, workers = _by_queue(topology, names.DEPTH), _by_queue(topology, names.WORKERS)
    return (
        Alert(
            "AsyncOldestMessageTooOld",
            "page",
            "1m",
            f"{_by_queue(topology, names.OLDEST_WAITING)} > {oldest:g}",
            "Queue {{ $labels.queue_name }}: a query has waited for {{ $value | humanizeDuration }}",
            f"More than {oldest:g} s, {OLDEST_FACTOR} times the objective. Whoever sent it sees it pending.",
        ),
        Alert(
            "AsyncQueueWithoutWorkers",
            "page",
            "2m",
            f"{depth} > 0 and {workers} == 0",
            "Queue {{ $labels.queue_name }}: {{ $value }} queries wait, and no worker listens",
            "They wait until one does.",
        ),
        Alert(
            "AsyncQueryOlderThanItsLimit",
            "page",
            "2m",
            f"max({names.OLDEST_RUNNING}{{{_stack(topology)}}}) > "
            f"{topology.longest_time_limit + topology.resilience.final_state_seconds}",
            "A query has run for {{ $value | humanizeDuration }}, longer than any may",
            "Neither its limits nor the reaper have ended it: its user waits for ever.",
        ),
    )


def _causes(topology: Topology) -> tuple[Alert, ...]:
    stack = _stack(topology)
    deep = min(DEEP, topology.resilience.max_queued // 2)
    depth, workers = _by_queue(topology, names.DEPTH), _by_queue(topology, names.WORKERS)
    completed, results = names.TASKS_COMPLETED, names.RESULTS_SECONDS
    by_place = "sum by (queue, tenant)"
    memory = f"max({names.BROKER_MEMORY}{{{stack}}}) / (max({names.BROKER_MEMORY_MAX}{{{stack}}}) > 0)"
    return (
        Alert(
            "AsyncTaskFailureRateHigh",
            "ticket",
            "5m",
            f'{by_place} (rate({completed}{{{stack},status="failure"}}[5m])) / '
            f"{by_place} (rate({completed}{{{stack}}}[5m])) > 0.05 "
            f'and {by_place} (increase({completed}{{{stack},status="failure"}}[5m])) >= 3',
            "Queue {{ $labels.queue }}: {{ $value | humanizePercentage }} of queries fail",
            "More than 5 % over 5 minutes, errors of the queries themselves included.",
        ),
        Alert(
            "AsyncQueueDepthHigh",
            "ticket",
            "10m",
            f"{depth} > {deep}",
            "Queue {{ $labels.queue_name }}: {{ $value }} queries wait",
            f"More than {deep} for 10 minutes; at {topology.resilience.max_queued} further ones are refused.",
        ),
        Alert(
            "AsyncWorkersBelowExpected",
            "ticket",
            "5m",
            f"{workers} < {_by_queue(topology, names.WORKERS_EXPECTED)}",
            "Queue {{ $labels.queue_name }}: only {{ $value }} workers",
            "Fewer than its pools have at the least, for 5 minutes.",
        ),
        Alert(
            "AsyncScalerAtMaximum",
            "ticket",
            "15m",
            f"{depth} > 0 and {workers} >= {_by_queue(topology, names.WORKERS_MAX)} "
            f"and {_by_queue(topology, names.OLDEST_WAITING)} > {topology.exporter.objectives.wait:g}",
            "Queue {{ $labels.queue_name }}: all workers that it may have, and {{ $value }} queries wait",
            "The scaler can add none, and the oldest has waited longer than the objective, for 15 minutes.",
        ),
        Alert(
            "AsyncResultsBackendSlow",
            "ticket",
            "5m",
            f"histogram_quantile(0.95, sum by (cache, operation, le) (rate({results}_bucket{{{stack}}}[5m]))) > {SLOW_SECONDS:g}",
            "Results ({{ $labels.cache }}): a {{ $labels.operation }} takes {{ $value | humanizeDuration }} (P95)",
            f"More than {SLOW_SECONDS:g} s for 5 minutes.",
        ),
        Alert(
            "AsyncResultsBackendFailing",
            "page",
            "2m",
            f"sum by (cache, operation) (increase({names.RESULTS_FAILED}{{{stack}}}[5m])) >= 3",
            "Results ({{ $labels.cache }}): {{ $labels.operation }}s fail",
            "Queries whose rows cannot be kept or fetched fail.",
        ),
        Alert(
            "AsyncBrokerMemoryHigh",
            "ticket",
            "5m",
            f"{memory} > 0.8",
            "The broker's memory is {{ $value | humanizePercentage }} full",
            "At 100 % it refuses submissions.",
        ),
        Alert(
            "AsyncBrokerEvicts",
            "page",
            "0m",
            f"max(increase({names.BROKER_EVICTED}{{{stack}}}[5m])) > 0",
            "The broker evicts keys",
            "Queues may be among them: submissions are answered and then lost."
            if not topology.instance(topology.database("broker").instance).carries_caches
            else "The broker shares its server with caches, which are to be evicted first. Its memory is full all the same.",
        ),
        Alert(
            "AsyncBrokerCannotSave",
            "page",
            "1m",
            f'min({{__name__=~"{names.BROKER_SNAPSHOT}|{names.BROKER_AOF}",{stack}}}) == 0',
            "The broker's server cannot save",
            "It refuses submissions, or what waits in it is lost when it restarts.",
        ),
        Alert(
            "AsyncBeatSilent",
            "ticket",
            "1m",
            f"time() - max({names.REAPED_AT}{{{stack}}}) > {SILENT_SECONDS} or "
            f"absent({names.REAPED_AT}{{{stack}}}) and on () max({names.UP}{{{stack}}}) == 1",
            "Beat is silent: nothing ends lost queries",
            f"The reaper has not looked for {SILENT_SECONDS} s. Scheduled jobs do not run either.",
        ),
        Alert(
            "AsyncSubmissionsRefused",
            "ticket",
            "5m",
            f"sum by (queue, reason) (increase({names.REFUSED}{{{stack}}}[5m])) > 0",
            "Queue {{ $labels.queue }}: queries are refused ({{ $labels.reason }})",
            "Their users read that they should try again later.",
        ),
        Alert(
            "AsyncForeignMessages",
            "ticket",
            "0m",
            f"sum by (where) (increase({names.POISON}{{{stack}}}[10m])) > 0",
            "What is no message of this stack was found ({{ $labels.where }})",
            "It was dropped. Something else writes to the broker, or two versions do not agree.",
        ),
    )


def _watchers(topology: Topology) -> tuple[Alert, ...]:
    stack = _stack(topology)
    return (
        Alert(
            "AsyncExporterLost",
            "page",
            "5m",
            f"absent({names.UP}{{{stack}}})",
            "The exporter of queue metrics is gone: no other alert of the stack can fire",
            "Prometheus gets nothing of it.",
        ),
        Alert(
            "AsyncBrokerUnreadable",
            "page",
            "1m",
            f"max({names.UP}{{{stack}}}) == 0",
            "The exporter cannot read the broker",
            "Where it cannot, web and workers most likely cannot either: submissions are refused.",
        ),
        Alert(
            "Watchdog",
            "none",
            "0m",
            "vector(1)",
            "Alerting works",
            "It always fires. Whoever stops hearing it must ask why.",
        ),
    )
