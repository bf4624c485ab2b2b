"""Rules about Celery: every task finds a worker, runs once, within limits that all agree on, and its result goes in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.configurations import QUERY_TASKS, Configuration, configurations, readable
from policies.graph import Graph, at
from policies.processes import (
    CeleryProcess,
    beats,
    celery_processes,
    celery_workers,
    configuration_of,
    most_pods,
    scalers_of,
    web_processes,
)
from policies.rule import Option, Options, Rules
from policies.servers import PostgresServer, host_of, postgres_servers, reaches
from policies.workloads import Container
from topology.quantities import format_memory

RULES = Rules("policy-celery")
#: What a Superset child needs before it has run anything (214 to 233 MB measured on Superset 6.1).
CHILD_AT_REST = 233_000_000
#: Seconds that a worker needs after the soft limit to store a result and close its connections.
GRACE_MARGIN = 30
#: The three places that Celery reads a visibility timeout from.
VISIBILITY = ("broker_transport_options", "result_backend_transport_options", "visibility_timeout")


@RULES.rule(
    "celery-config-unreadable",
    configurations,
    fix="Make it again from the stack file (make render), or correct it",
    runbook="configuration",
)
def config_unreadable(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """A configuration that the pods cannot read ends every Superset process at its start."""
    if found.error:
        yield f"is no configuration of this version: {found.error}"


@RULES.rule(
    "celery-config-unseen",
    celery_workers,
    severity="advisory",
    fix="Mount superset_config.py, or the topology, from a ConfigMap or Secret of this stack",
    runbook="configuration",
)
def config_unseen(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """Where a worker's configuration is in its image, no rule can check its queues, limits and broker."""
    files = [each for each in graph.derive(configurations) if worker.container in each.readers]
    graph.require_complete()
    if not files:
        yield "reads a configuration that is not in this stack"


@RULES.rule(
    "celery-config-differs",
    celery_processes,
    fix="Mount the same ConfigMap or Secret in all of them",
    runbook="configuration",
)
def config_differs(process: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """Web, workers and beat that read different configurations send tasks where nobody listens and miss caches."""
    mine = process.configuration
    for web in graph.derive(web_processes):
        theirs = configuration_of(web, graph)
        if mine and theirs and mine is not theirs and web.resource.namespace == process.resource.namespace:
            yield f"reads {mine.resource.title}, and {web.resource.title} reads {theirs.resource.title}"


@RULES.rule(
    "celery-queue-unheard",
    readable,
    fix="Add the queue to a worker's --queues, or stop routing to it",
    runbook="queues",
)
def queue_unheard(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """A task in a queue that no worker listens to stays pending for ever, and nothing says so."""
    workers = [each for each in graph.derive(celery_workers) if each.configuration is found]
    heard = {queue for each in workers if most_pods(graph, each.workload) > 0 for queue in each.queues}
    graph.require_complete()
    for queue in sorted(found.queues - heard):
        yield f"routes to queue {queue!r}, which no worker listens to"


@RULES.rule(
    "celery-queue-undeclared",
    celery_workers,
    fix="Declare the queue in task_queues, or take it out of --queues",
    runbook="queues",
)
def queue_undeclared(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """A worker on a queue that nothing is sent to looks healthy and does nothing."""
    if worker.configuration:
        for queue in sorted(worker.queues - worker.configuration.queues):
            yield f"listens to queue {queue!r}, which is declared nowhere"


@RULES.rule(
    "celery-limits",
    readable,
    fix="Set statement timeout < soft limit < hard limit < visibility timeout, by task_annotations for Superset's tasks",
    runbook="limits",
    loses_data=True,
)
def limits(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """The longest query must end before its worker is killed, and that before the broker delivers it again."""
    visible = _visibility(found)
    for task in QUERY_TASKS:
        soft, hard = found.limits(task)
        if soft is None or hard is None:
            yield f"{task} has no limits of its own: Superset's decorators say up to 21 600 and 21 660 s"
        elif soft >= hard:
            yield f"{task} has a soft limit of {soft} s and a hard limit of {hard} s"
        if (hard or 21_660) >= visible:
            yield f"{task} may run {hard or 21_660} s, and the visibility timeout is {visible} s: it would run twice"


def _visibility(found: Configuration) -> int:
    """The smallest visibility timeout that any client uses: an hour where a place says nothing."""
    if "sqs" in found.broker_url or "amqp" in found.broker_url:
        return 10**9
    return min(
        found.celery.get("visibility_timeout", 3600),
        *(at(found.celery, place, "visibility_timeout", default=3600) for place in VISIBILITY[:2]),
    )


@RULES.rule(
    "celery-visibility-places",
    readable,
    fix=f"Set the same value in {', '.join(VISIBILITY)}",
    runbook="limits",
)
def visibility_places(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Celery reads the visibility timeout in three places, and the smallest one of any client wins."""
    given = {
        "visibility_timeout": found.celery.get("visibility_timeout"),
        **{place: at(found.celery, place, "visibility_timeout") for place in VISIBILITY[:2]},
    }
    missing = [place for place, value in given.items() if value is None]
    if missing:
        yield f"has no visibility timeout in {', '.join(missing)}"
    elif len(set(given.values())) > 1:
        yield f"has visibility timeouts that differ: {', '.join(f'{place} {value}' for place, value in given.items())}"


@RULES.rule(
    "celery-statement-timeout",
    readable,
    fix="Set a statement timeout on every analytic database, below the soft limit",
    runbook="limits",
)
def statement_timeout(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Only the database itself can end a statement: limits of Celery leave it running."""
    timeouts, soft = found.statement_timeouts, found.soft_limit
    if "*" not in timeouts:
        yield "gives analytic databases no statement timeout"
    for database, seconds in timeouts.items():
        if soft is not None and seconds >= soft:
            yield f"lets statements of database {database!r} run {seconds} s, and the soft limit is {soft} s"


@RULES.rule(
    "celery-grace-period",
    celery_workers,
    fix=f"Set terminationGracePeriodSeconds to the soft limit + {GRACE_MARGIN} or more",
    runbook="shutdown",
    loses_data=True,
)
def grace_period(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """A worker that is killed before its query ends leaves the row running for ever, or runs the query again."""
    if worker.configuration is None:
        graph.require_complete()
    soft = worker.configuration.soft_limit if worker.configuration else None
    least = (21_600 if soft is None else soft) + GRACE_MARGIN
    grace = at(worker.workload.pod, "terminationGracePeriodSeconds", default=30)
    if grace < least:
        yield f"has {grace} s to stop, and its tasks may run {least - GRACE_MARGIN} s"


@RULES.rule(
    "celery-shell-keeps-signal",
    celery_workers,
    fix="Start Celery without a shell, or by exec",
    runbook="shutdown",
    loses_data=True,
)
def shell_keeps_signal(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """A shell that does not exec Celery keeps SIGTERM: the worker is killed in mid-query at every roll-out."""
    if worker.container.in_shell and "exec" not in worker.words:
        yield "starts Celery in a shell without exec"


@RULES.rule(
    "celery-redelivery",
    readable,
    fix="Set task_reject_on_worker_lost with task_acks_late",
    runbook="redelivery",
    loses_data=True,
)
def redelivery(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Late acknowledgement without task_reject_on_worker_lost still loses the task of a killed child."""
    if found.celery.get("task_acks_late") and not found.celery.get("task_reject_on_worker_lost"):
        yield "has task_acks_late without task_reject_on_worker_lost"


@RULES.rule(
    "celery-writes-twice",
    readable,
    fix="Keep the fence around Superset's query tasks (task_annotations, as the topology has it), or set task_acks_late False",
    runbook="redelivery",
    loses_data=True,
)
def writes_twice(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """With late acknowledgement a lost worker's INSERT is executed, and can commit, a second time, unless a fence refuses it."""
    if found.celery.get("task_acks_late"):
        for task in QUERY_TASKS:
            if not found.fences(task):
                yield f"executes {task} again after its worker was lost, whatever it does"


@RULES.rule(
    "celery-results-expire",
    readable,
    fix="Set result_expires to some seconds",
    runbook="results",
)
def results_expire(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Task results that never expire fill the result backend."""
    if found.celery.get("result_backend") and not found.celery.get("result_expires", 0):
        yield "has no result_expires of its own"


@RULES.rule(
    "celery-results-cleaner",
    readable,
    fix="Schedule celery.backend_cleanup and run one beat, or keep results in Redis",
    runbook="results",
)
def results_cleaner(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Rows of a result backend in a database go only when beat sends celery.backend_cleanup."""
    backend = found.celery.get("result_backend") or ""
    if isinstance(backend, str) and backend.startswith("db+") and "celery.backend_cleanup" not in _scheduled(found):
        yield "keeps results in a database and schedules no celery.backend_cleanup"


def _scheduled(found: Configuration) -> set[Any]:
    schedule: dict[str, Any] = found.celery.get("beat_schedule") or {}
    return {at(entry, "task") for entry in schedule.values()}


@RULES.rule(
    "celery-beat-missing",
    readable,
    fix="Run one beat on this configuration",
    runbook="beat",
)
def beat_missing(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Scheduled jobs (clean-up, reports) run only where a beat runs."""
    running = [each for each in graph.derive(beats) if each.configuration is found and most_pods(graph, each.workload) > 0]
    graph.require_complete()
    if found.celery.get("beat_schedule") and not running:
        yield f"schedules {', '.join(sorted(map(str, _scheduled(found))))}, and no beat runs"


@RULES.rule(
    "celery-one-beat",
    beats,
    fix="Run one beat in all: replicas 1, strategy Recreate, no scaler, no --beat on workers",
    runbook="beat",
)
def one_beat(beat: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """Two beats send every job twice, also for the moments of a roll-out."""
    workload = beat.workload
    if scalers_of(graph, workload):
        yield "is scaled"
    elif (workload.replicas or 1) > 1:
        yield f"has {workload.replicas} replicas"
    if workload.kind == "Deployment" and at(workload.resource.inputs, "spec", "strategy", "type") != "Recreate":
        yield "rolls without strategy Recreate"
    others = [each for each in graph.derive(beats) if each is not beat and each.configuration is beat.configuration]
    if others:
        yield f"runs beside {others[0].resource.title}"


@RULES.rule(
    "celery-embedded-beat",
    celery_workers,
    fix="Run beat in a Deployment of its own",
    runbook="beat",
)
def embedded_beat(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """A worker with an embedded beat doubles every job as soon as there are two of it."""
    if {"-B", "--beat"} & set(worker.words):
        yield "runs a beat inside the worker"


@RULES.rule(
    "celery-child-memory",
    celery_workers,
    fix="Set --max-memory-per-child above 233 MB, and times concurrency within the memory limit",
    runbook="children",
)
def child_memory(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """A child limit below Superset's size at rest replaces it after every task; one above the pod's never acts."""
    child, limit = worker.child_memory, worker.container.quantity("limits", "memory")
    if child is None:
        return
    if child <= CHILD_AT_REST:
        yield f"replaces a child at {child // 10**6} MB, which it needs at rest"
    elif limit and child * (worker.concurrency or 1) > limit:
        yield f"lets {worker.concurrency or 1} children have {child // 10**6} MB each in {format_memory(limit)}"


@RULES.rule(
    "celery-concurrency",
    celery_workers,
    severity="advisory",
    fix="Set --concurrency",
    runbook="children",
)
def concurrency(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """A worker without --concurrency starts a child for each of the node's processors, whatever its limits."""
    if worker.concurrency is None:
        yield "has as many children as the node has processors"


@RULES.rule(
    "celery-prefetch",
    celery_workers,
    severity="advisory",
    fix="Set --prefetch-multiplier 1 where queries are long or a scaler counts messages",
    runbook="children",
    options={"most": Option(4, "highest prefetch multiplier of a worker that nothing scales")},
)
def prefetch(worker: CeleryProcess, graph: Graph, options: Options) -> Iterator[str]:
    """Prefetched messages wait behind a long query while other workers idle, and a scaler cannot see them."""
    most = 1 if scalers_of(graph, worker.workload) else options["most"]
    if worker.prefetch > most:
        yield f"prefetches {worker.prefetch} messages a child"


@RULES.rule(
    "celery-connections",
    postgres_servers,
    fix="Raise max_connections, or lower replicas, concurrency or pool sizes",
    runbook="connections",
)
def connections(server: PostgresServer, graph: Graph, options: Options) -> Iterator[str]:
    """When the tiers can open more connections than PostgreSQL takes, queries fail under the load they scaled for."""
    users = [each for each in graph.derive(readable) if reaches(_database_host(each), server.hosts)]
    needed = sum(_connections(found, graph) for found in users)
    if server.max_connections is not None and needed > server.max_connections - server.reserved:
        yield f"takes {server.max_connections} connections, {server.reserved} reserved, and the tiers can open {needed}"


def _database_host(found: Configuration) -> str | None:
    return host_of(found.settings().get("SQLALCHEMY_DATABASE_URI"))


def _connections(found: Configuration, graph: Graph) -> int:
    """The most connections to the metadata database that the readers of a configuration can open together.

    A worker's child has its pool, and one more while it stores a state in a database, as its parent may; a worker's parent and
    the job that migrates have one each, beat no more than its pool; a rolling update adds one web pod.
    """
    in_database = str(found.celery.get("result_backend") or "").startswith("db+")
    total = 1
    for process in graph.derive(celery_processes):
        if process.configuration is found:
            child = _pool(found, "worker") + in_database
            worker = (process.concurrency or 1) * child + 1 + in_database
            each = min(3, _pool(found, "beat")) if process.role == "beat" else worker
            total += most_pods(graph, process.workload) * each
    for web in graph.derive(web_processes):
        if web in found.readers:
            total += (most_pods(graph, web.workload) + 1) * _web_workers(web) * _pool(found, "web")
    return total


def _pool(found: Configuration, role: str) -> int:
    """Connections of one process: SQLAlchemy's own pool has 5 and 10 more."""
    engine: Any = found.settings(role).get("SQLALCHEMY_ENGINE_OPTIONS")
    return at(engine, "pool_size", default=5) + at(engine, "max_overflow", default=10)


def _web_workers(web: Container) -> int:
    for command in web.commands:
        for place, word in enumerate(command):
            if word.startswith("--workers="):
                return int(word.partition("=")[2])
            if word in ("-w", "--workers") and place + 1 < len(command):
                return int(command[place + 1])
    return 1
