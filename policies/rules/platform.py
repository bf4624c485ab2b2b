"""Rules about the stack as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from policies.configurations import Configuration, readable
from policies.graph import Graph
from policies.rule import Option, Options, Plain, Rules, types

RULES = Rules("policy-platform")


@RULES.rule(
    "platform-prod-minimal",
    readable,
    fix="Set topology: enterprise (or high-throughput, multi-tenant), or environment: dev",
    runbook="topologies",
)
def prod_minimal(found: Configuration, graph: Graph, options: Options) -> Iterator[str]:
    """Topology minimal has one of everything: a node that goes takes the platform with it."""
    if found.topology and found.topology.environment == "prod" and found.topology.name == "minimal":
        yield "runs topology minimal in environment prod"


@RULES.rule(
    "platform-unseen-objects",
    types("kubernetes:helm.sh/v3:Release", "kubernetes:helm.sh/v2:Release"),
    severity="advisory",
    fix="Use native resources, or a Chart (helm.sh/v4), whose objects are registered one by one",
    runbook="unseen",
    alone=True,
    options={"allowed": Option([], "names of releases that are meant")},
)
def unseen_objects(release: Plain, graph: Graph, options: Options) -> Iterator[str]:
    """A Helm release makes objects in the cluster that no rule sees."""
    if release.resource.name not in options["allowed"]:
        yield f"installs chart {release.get('chart', default='?')} unseen"
