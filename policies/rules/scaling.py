"""Rules about scalers: one a target, on a signal that exists, within what Kubernetes and KEDA take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from policies.configurations import Configuration
from policies.graph import Graph, at
from policies.processes import (
    REDIS_TRIGGERS,
    Scaler,
    celery_workers,
    scaled,
    scalers,
    scalers_of,
    trigger_metadata,
    web_processes,
)
from policies.rule import Option, Options, Rules
from policies.servers import reaches, redis_servers
from policies.workloads import Workload, lasting

RULES = Rules("policy-scaling")
#: KEDA makes an HPA named keda-hpa-<name>, and labels with it, of at most 63 characters.
LONGEST_NAME = 54
#: Suffix of the lists that hold a queue's higher priorities.
PRIORITY = "\x06\x16"
#: Labels by which metrics name a queue.
_QUEUE_LABELS = ("queue", "queue_name")


def _keda(graph: Graph) -> list[Scaler]:
    return [each for each in graph.derive(scalers) if each.keda]


def _of_workers(graph: Graph) -> list[Scaler]:
    """Scalers of Celery workers."""
    targets = {(each.resource.namespace, each.workload.kind, each.workload.name) for each in graph.derive(celery_workers)}
    return [each for each in graph.derive(scalers) if each.target in targets]


@RULES.rule(
    "scaling-one-scaler",
    scalers,
    fix="Keep one, with all its metrics or triggers",
    runbook="targets",
)
def one_scaler(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """Two scalers on one target undo each other's decisions, and KEDA's admission refuses the second."""
    others = [each for each in graph.derive(scaled).get(scaler.target, []) if each is not scaler]
    if others:
        yield f"scales {scaler.target[1]}/{scaler.target[2]}, and so does {others[0].resource.title}"


@RULES.rule(
    "scaling-no-target",
    scalers,
    fix="Name an existing Deployment or StatefulSet in scaleTargetRef",
    runbook="targets",
)
def no_target(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """A scaler whose target does not exist does nothing, and its pool stays at one size."""
    graph.require_complete()
    if scaler.workload(graph) is None and scaler.target[1] in ("Deployment", "StatefulSet") and scaler.target[2]:
        yield f"scales {scaler.target[1]}/{scaler.target[2]}, which this stack does not have"


@RULES.rule(
    "scaling-replicas-beside-scaler",
    lasting,
    fix="Leave spec.replicas out where a scaler decides",
    runbook="targets",
)
def replicas_beside_scaler(workload: Workload, graph: Graph, options: Options) -> Iterator[str]:
    """Every deployment would reset what the scaler decided, and stop workers in mid-query."""
    found = scalers_of(graph, workload)
    if found and workload.replicas is not None:
        yield f"sets replicas {workload.replicas}, and {found[0].resource.title} scales it"


@RULES.rule(
    "scaling-request-missing",
    scalers,
    fix="Set the container's request of what the scaler watches",
    runbook="signals",
)
def request_missing(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """Utilization is a share of the request: without one the scaler never acts, and KEDA refuses it."""
    workload = scaler.workload(graph)
    for container in workload.containers if workload else []:
        for what in sorted(scaler.watched):
            if not container.prepares and not container.quantity("requests", what):
                yield f"watches {what}, which container {container.name} of its pods does not request"


@RULES.rule(
    "scaling-bounds",
    scalers,
    fix="Set 1 ≤ minimum ≤ maximum; a minimum of 0 needs KEDA and a trigger that sees the queue",
    runbook="targets",
)
def bounds(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """A scaler whose bounds are wrong is refused, or can never scale."""
    if scaler.smallest > scaler.largest:
        yield f"has a minimum of {scaler.smallest} and a maximum of {scaler.largest}"
    if scaler.largest < 1:
        yield f"has a maximum of {scaler.largest}"
    if scaler.smallest < 1 and not scaler.keda:
        yield "has a minimum of 0, which an HPA does not take"


@RULES.rule(
    "scaling-keda-admission",
    _keda,
    fix="Follow KEDA: a name of at most 54 characters, triggers, unique trigger names, CPU never alone with minimum 0",
    runbook="keda",
)
def keda_admission(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """KEDA's admission refuses it, so the pool is not scaled at all."""
    name = scaler.resource.object_name
    if len(name) > LONGEST_NAME:
        yield f"has a name of {len(name)} characters"
    kinds = [at(each, "type") for each in scaler.triggers]
    if not kinds:
        yield "has no triggers"
    elif scaler.smallest == 0 and set(kinds) <= {"cpu", "memory"}:
        yield f"scales from 0 on {' and '.join(sorted(set(kinds)))} alone"
    names = Counter(at(each, "name") for each in scaler.triggers if at(each, "name"))
    for twice in (each for each, count in names.items() if count > 1):
        yield f"has two triggers named {twice!r}"
    formula = scaler.resource.get("spec", "advanced", "scalingModifiers", "formula")
    if formula is not None and len(names) < len([each for each in kinds if each not in ("cpu", "memory")]):
        yield "has a formula, and triggers without a name"
    for trigger in scaler.triggers:
        if (
            at(trigger, "type") in REDIS_TRIGGERS
            and not at(trigger, "metadata", "address")
            and not any(key.startswith(("address", "host")) for key in trigger_metadata(trigger))
            and not at(trigger, "authenticationRef")
        ):
            yield f"has a {at(trigger, 'type')} trigger without an address"


@RULES.rule(
    "scaling-watches-broker",
    _of_workers,
    fix="Give each trigger the address, databaseIndex and listName of the broker's URL and of the queues its workers hear",
    runbook="signals",
)
def watches_broker(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """A scaler that reads another database or list than the broker's sees an empty queue, and never scales out."""
    target = scaler.workload(graph)
    workers = [each for each in graph.derive(celery_workers) if target and each.workload is target and each.configuration]
    if not workers or not workers[0].configuration:
        return
    found = workers[0].configuration
    heard = {queue for each in workers for queue in each.queues}
    broker = urlsplit(found.broker_url)
    database = int(broker.path.strip("/") or 0) if broker.path.strip("/").isdigit() or not broker.path.strip("/") else None
    watched: set[str] = set()
    for trigger in (each for each in scaler.triggers if at(each, "type") in REDIS_TRIGGERS):
        metadata = trigger_metadata(trigger)
        index = int(metadata.get("databaseIndex", 0))
        if database is not None and index != database:
            yield f"reads database {index}, and the broker's is {database}"
        name = metadata.get("listName")
        if name is not None and not name.startswith("unacked"):
            watched.add(name.partition(PRIORITY)[0])
        yield from _address(metadata, found, graph)
    for metric in (each for each in scaler.metrics if at(each, "type") in ("External", "Object")):
        selector = at(metric, at(metric, "type").lower(), "metric", "selector", default={})
        watched |= {value for key, value in at(selector, "matchLabels", default={}).items() if key in _QUEUE_LABELS}
        for expression in at(selector, "matchExpressions", default=[]):
            if at(expression, "key") in _QUEUE_LABELS and at(expression, "operator") == "In":
                watched |= set(at(expression, "values", default=[]))
    for queue in sorted(watched - heard):
        yield f"reads queue {queue!r}, and its workers listen to {', '.join(sorted(heard))}"
    if watched:
        for queue in sorted(heard - watched):
            yield f"does not read queue {queue!r}, which its workers listen to"


def _address(metadata: dict[str, Any], found: Configuration, graph: Graph) -> Iterator[str]:
    """What is wrong with the server that a trigger names: it is not the one in the broker's URL."""
    wanted = urlsplit(found.broker_url).hostname or ""
    for address in str(metadata.get("address") or metadata.get("addresses") or metadata.get("host") or "").split(","):
        host = address.partition(":")[0]
        same = [each for each in graph.derive(redis_servers) if reaches(host, each.hosts) and reaches(wanted, each.hosts)]
        # Of one service a cluster knows longer and shorter names.
        longer = f"{host}.".startswith(f"{wanted}.") or f"{wanted}.".startswith(f"{host}.")
        if host and wanted and not longer and not same:
            yield f"reads {host}, and the broker is at {wanted}"
    options: Any = found.celery.get("broker_transport_options")
    service, watched = at(options, "master_name"), metadata.get("sentinelMaster")
    if service != watched:
        yield f"reads {watched or 'no'} service of Sentinel, and the broker's is {service or 'none'}"


@RULES.rule(
    "scaling-blind-to-queue",
    _of_workers,
    severity="advisory",
    fix="Scale on the length of the queue (a KEDA redis trigger, or an external or object metric)",
    runbook="signals",
)
def blind_to_queue(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """Workers that wait for a database use no CPU: scaled on that alone they never follow the queue."""
    kinds = {at(each, "type") for each in (*scaler.triggers, *scaler.metrics)}
    if kinds <= {"cpu", "memory", "Resource", "ContainerResource", "Pods"}:
        yield "sees no queue: " + (
            "a Pods metric is one that each pod reports itself" if "Pods" in kinds else "only CPU or memory"
        )


@RULES.rule(
    "scaling-keda-tls-twice",
    _keda,
    fix="Set TLS in one of the two",
    runbook="keda",
)
def keda_tls_twice(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """KEDA refuses TLS settings in both a trigger and its TriggerAuthentication."""
    authentications = {each.object_name: each for each in graph.of_kind("TriggerAuthentication")}
    for trigger in scaler.triggers:
        name = at(trigger, "authenticationRef", "name")
        authentication = authentications.get(name) if isinstance(name, str) else None
        if authentication and str(trigger_metadata(trigger).get("enableTLS", "")).lower() == "true":
            given = {at(each, "parameter") for each in authentication.get("spec", "secretTargetRef", default=[])}
            if "tls" in given:
                yield f"sets TLS, and so does {authentication.title}"


@RULES.rule(
    "scaling-no-data",
    _keda,
    fix='Set ignoreNullValues: "false" on prometheus triggers',
    runbook="keda",
)
def no_data(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """KEDA takes a query without a result for zero: a broken exporter scales every worker away."""
    for trigger in scaler.triggers:
        if at(trigger, "type") == "prometheus" and str(at(trigger, "metadata", "ignoreNullValues")).lower() != "false":
            yield "has a prometheus trigger that takes no data for zero"


@RULES.rule(
    "scaling-scale-in",
    _of_workers,
    fix="Set scaleDown.stabilizationWindowSeconds to 300 or more (the default), with a policy of a pod at a time",
    runbook="signals",
    options={"window": Option(300, "shortest stabilization window of a worker pool, in seconds")},
)
def scale_in(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """A pool that shrinks at once is stopped and started again with every wave of queries."""
    window = at(scaler.behavior, "scaleDown", "stabilizationWindowSeconds", default=300)
    if window < options["window"]:
        yield f"takes workers away after {window} s of lower load"


def _of_web(graph: Graph) -> list[Scaler]:
    targets = {
        (each.resource.namespace, each.workload.kind, each.workload.name): each for each in graph.derive(web_processes)
    }
    return [each for each in graph.derive(scalers) if each.target in targets]


@RULES.rule(
    "scaling-web-on-memory",
    _of_web,
    fix="Scale the web tier on CPU",
    runbook="signals",
)
def web_on_memory(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """Superset's processes do not give memory back: a tier scaled on memory never scales in."""
    if "memory" in scaler.watched:
        yield "scales the web tier on memory"


@RULES.rule(
    "scaling-two-metric-servers",
    _keda,
    fix="Scale on external metrics by KEDA, or by HPAs with an adapter, not both",
    runbook="keda",
)
def two_metric_servers(scaler: Scaler, graph: Graph, options: Options) -> Iterator[str]:
    """One server a cluster may serve external metrics: with KEDA there, an HPA's external metric never arrives."""
    for other in graph.derive(scalers):
        if not other.keda and any(at(each, "type") == "External" for each in other.metrics):
            yield f"needs KEDA's metrics server, and {other.resource.title} an adapter's"
    for service in graph.of_kind("APIService"):
        name = service.get("spec", "service", "name", default="")
        if "external.metrics.k8s.io" in service.title and not name.startswith("keda"):
            yield f"needs KEDA's metrics server, and {service.title} registers {name}"


@RULES.rule(
    "scaling-worker-fixed",
    celery_workers,
    severity="advisory",
    fix="Give it a scaler, or say in an exception that its size is meant",
    runbook="signals",
    options={"from_replicas": Option(3, "workers of a pool from which on a scaler is expected")},
)
def worker_fixed(worker: Any, graph: Graph, options: Options) -> Iterator[str]:
    """A pool without a scaler has its size for the worst hour, or too small a one."""
    replicas = worker.workload.replicas or 1
    if replicas >= options["from_replicas"] and not scalers_of(graph, worker.workload):
        yield f"has {replicas} workers that nothing scales"
