"""The same habits with more users: what each step needs, which part is the tightest, and what a team changes then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sizing.constants import MEASURED
from sizing.load import Load
from sizing.recommendation import Recommendation, recommend
from topology.model import TopologyName

#: Cores of one PostgreSQL server beyond which its metadata should not share a server with anything else.
OWN_SERVER_CORES = 2.0
#: Cores of one PostgreSQL server that a team can still buy as one machine.
LARGEST_SERVER_CORES = 32.0
#: Connections above which their processes alone hold memory that a pooler saves.
POOLER_CONNECTIONS = 500


@dataclass(frozen=True)
class Step:
    """A load `factor` times the first one. `broker_share`: of one core, which is all that a broker can use."""

    factor: float
    users: int
    topology: str
    workers: int
    web_replicas: int
    postgres_cores: float
    connections: int
    broker_share: float
    monthly_cost: float
    currency: str
    first: str
    changes: tuple[str, ...]


def steps(
    load: Load, factors: Sequence[float], topology: TopologyName | None = None, base: Mapping[str, Any] | None = None
) -> list[Step]:
    """What `load` needs times each of `factors`."""
    return [_step(factor, recommend(load.times(factor), topology, base)) for factor in factors]


def _step(factor: float, found: Recommendation) -> Step:
    rate = sum(pool.rate for pool in found.pools)
    tightest = found.limits[0]
    return Step(
        factor=factor,
        users=found.load.users,
        topology=found.topology,
        workers=sum(pool.max_workers for pool in found.pools),
        web_replicas=found.web_replicas,
        postgres_cores=found.postgres_cores,
        connections=found.connections,
        broker_share=rate * MEASURED.redis_cpu_seconds,
        monthly_cost=found.monthly_cost,
        currency=found.currency,
        first=f"{tightest.part} ({tightest.times:.1f} ×)",
        changes=tuple(changes(found, rate)),
    )


def changes(found: Recommendation, rate: float) -> list[str]:
    """What a team changes at `rate` queries a second, beside the sizes; nothing where sizes are enough."""
    wanted: list[str] = []
    if found.postgres_cores > LARGEST_SERVER_CORES:
        wanted.append(
            f"the metadata needs {found.postgres_cores:.0f} cores, more than one server has: a stack for each group of teams, "
            "or cheaper status requests first (read replicas do not help: submissions and states are writes)"
        )
    elif found.postgres_cores > OWN_SERVER_CORES:
        wanted.append(f"a server of its own for the metadata, {found.postgres_cores:.0f} cores (postgres.kind: existing)")
    if found.connections > POOLER_CONNECTIONS:
        memory = found.connections * MEASURED.connection_bytes / 2**30
        wanted.append(
            f"PgBouncer in session mode before PostgreSQL: {found.connections} connections hold {memory:.1f} GiB of it"
        )
    share = rate * MEASURED.redis_cpu_seconds
    if share > MEASURED.utilization:
        wanted.append(f"the broker needs {share:.1f} cores and can use one: a stack for each group of tenants")
    return wanted
