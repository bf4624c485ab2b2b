"""Which part of a topology each kind of process reads at its start: everything, but for what a table excludes.

A process restarts when that part changes. So a new field restarts everything that runs, until a line of `EXCLUDED` says why some
process need not: it follows the file (`live`), its pod's template has the value and rolls by itself (`template`), it concerns the
data stores alone (`server`), or others read it (`others`). Tests run each kind of process, record what it reads, and refuse a
line that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from topology.model import Topology

Process = Literal["web", "worker", "beat", "init", "exporter"]
PROCESSES: tuple[Process, ...] = get_args(Process)
Why = Literal["live", "template", "server", "others"]

_ALL: frozenset[Process] = frozenset(PROCESSES)


def _but(*processes: Process) -> frozenset[Process]:
    return _ALL - {*processes}


@dataclass(frozen=True)
class Excluded:
    """Fields that processes `of` these kinds do not take from the topology of their start.

    A path has dots, `*` for each item of a list, and ends anywhere: all that is below it is excluded too.
    """

    paths: tuple[str, ...]
    of: frozenset[Process]
    why: Why


EXCLUDED: tuple[Excluded, ...] = (
    # `runtime.environment.process_topology.current`. Beat and the init job see to what waits in queues that are gone, and so
    # begin anew when queues change.
    Excluded(("tenants", "urgent"), _but("init"), "live"),
    Excluded(("rates",), frozenset({"web"}), "live"),
    Excluded(("celery.queues",), frozenset({"web", "worker", "exporter"}), "live"),
    Excluded(("resilience",), frozenset({"web", "worker", "exporter"}), "live"),
    Excluded(("celery.time_limit_seconds", "celery.default_queue"), frozenset({"exporter"}), "live"),
    # The shares in a pool are counted in `of_pool`.
    Excluded(
        tuple(
            f"pools.*.{field}"
            for field in (
                "queues",
                "concurrency",
                "prefetch_multiplier",
                "max_tasks_per_child",
                "max_memory_per_child_bytes",
                "grace_period_seconds",
                "priority",
                "resources",
            )
        ),
        frozenset({"worker"}),
        "template",
    ),
    Excluded(("web.processes", "web.threads", "web.resources"), frozenset({"web"}), "template"),
    Excluded(("beat.resources",), frozenset({"beat"}), "template"),
    Excluded(("exporter.resources",), frozenset({"exporter"}), "template"),
    Excluded(("images.superset", "images.pull_policy", "labels"), _ALL, "template"),
    Excluded(("images.drivers",), _ALL, "others"),
    Excluded(("images",), _ALL, "server"),
    Excluded(("pools", "web.min_replicas", "web.max_replicas", "web.cpu_target_percent", "web.route"), _ALL, "others"),
    Excluded(("web.processes", "web.threads", "web.resources", "beat.resources"), _ALL, "others"),
    Excluded(tuple(f"exporter.{field}" for field in ("host", "service_monitor", "resources")), _ALL, "others"),
    Excluded(
        (
            *(
                f"redis.*.{field}"
                for field in (
                    "maxmemory_bytes",
                    "maxmemory_policy",
                    "persistence",
                    "replicas",
                    "volume_bytes",
                    "resources",
                    "existing.password_secret_name",
                )
            ),
            *(
                f"postgres.{field}"
                for field in (
                    "kind",
                    "max_connections",
                    "reserved_connections",
                    "instances",
                    "backup",
                    "volume_bytes",
                    "resources",
                )
            ),
        ),
        _ALL,
        "server",
    ),
    Excluded(tuple(f"redis.*.users.*.{field}" for field in ("keys", "reads", "channels", "subscriptions")), _ALL, "server"),
    Excluded(
        ("name", "environment", "namespace", "existing_namespace", "aws", "monitoring", "operator_namespaces"),
        _ALL,
        "others",
    ),
    Excluded(("egress", "api_server_cidrs", "resolvers"), _ALL, "others"),
    Excluded(("tracing.cidrs",), _ALL, "others"),
    # Spans are of web processes and workers.
    Excluded(("tracing",), _but("web", "worker"), "others"),
    Excluded(("storage_class",), _ALL, "server"),
    Excluded(tuple(f"exporter.{field}" for field in ("from_namespaces", "rules", "runbooks", "objectives")), _ALL, "others"),
    Excluded(("exporter",), _but("exporter"), "others"),
    Excluded(("tenants", "urgent"), frozenset({"init"}), "others"),
    Excluded(("rates",), _ALL, "others"),
    Excluded(("admin_username",), _but("init"), "others"),
    Excluded(("databases",), _but("init", "beat"), "others"),
    # It runs no Superset.
    Excluded(("superset",), frozenset({"exporter"}), "others"),
    Excluded(("beat",), _but("beat"), "others"),
    Excluded(("web.connections",), _but("web"), "others"),
    # The reaper gives a request this long to send its query.
    Excluded(("web.request_timeout_seconds",), frozenset({"worker", "init"}), "others"),
    Excluded(("redis.*.existing",), _but("init"), "others"),
    Excluded(("resilience",), frozenset({"init"}), "others"),
    Excluded(
        (
            *("postgres", "web", "celery", "caching", "embedding", "statement_timeout_seconds", "row_limit"),
            "redis_databases.*.default_ttl_seconds",
        ),
        frozenset({"exporter"}),
        "others",
    ),
)


def at_start(topology: Topology, process: Process) -> dict[str, Any]:
    """The part of `topology` that a process of this kind reads at its start: while it is equal, nothing needs to restart."""
    whole = topology.model_dump(mode="json")
    for line in EXCLUDED:
        if process in line.of:
            for path in line.paths:
                _remove(whole, path.split("."))
    return whole


def of_pool(topology: Topology, pool: str) -> list[Any]:
    """What the workers of the pool of this name read beside that: whose queries they run, and each tenant's share.

    Tenants are followed live; but who runs a tenant's queries alone has pods of that tenant's, which roll with it.
    """
    found = topology.pool(pool)
    tenants = [tenant.model_dump(mode="json") for tenant in topology.tenants if tenant.queue in found.queues]
    return [*tenants, *(share.model_dump(mode="json") for share in found.shares)]


def why_not(path: str, process: Process) -> Why | None:
    """Why a process of this kind does not take the field at `path` (items of lists as `*`) at its start; None where it does."""
    parts = path.split(".")
    for line in EXCLUDED:
        if process in line.of and any(parts[: len(each)] == each for each in (path.split(".") for path in line.paths)):
            return line.why
    return None


def leaves(value: object, path: str = "") -> Iterable[tuple[str, object]]:
    """Each value of a dumped topology with its path, items of lists as `*`; an empty list or mapping is a value."""
    if isinstance(value, Mapping) and value:
        for key, inner in cast("Mapping[str, object]", value).items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for inner in cast("list[object]", value):
            yield from leaves(inner, f"{path}.*")
    else:
        yield path, value


def _remove(node: Any, path: list[str]) -> None:
    first, *rest = path
    if first == "*":
        for inner in node or ():
            _remove(inner, rest)
    elif isinstance(node, dict) and first in node:
        if rest:
            _remove(cast("dict[str, Any]", node)[first], rest)
        else:
            del node[first]
