"""`python -m tests.components.aws.document`: docs/aws-resources.md, from what the program registers for the stacks on AWS."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.recording import Recording, Resource
from ops import estimate
from tests.components.aws import paper
from tests.components.aws.stacks import SHIPPED, on_aws, recorded, topology_of

TARGET = Path(__file__).resolve().parents[3] / "docs/aws-resources.md"

_HEADER = """# What the stacks on AWS are made of

Written by `make docs` from what the program registers for the shipped stacks; a test fails when it is not up to date. Why it is
so says [aws.md](aws.md).
"""
#: Groups of services, by the beginning of a type, in the order of the table.
SERVICES = (
    ("network: VPC, subnets, routes, endpoints, firewalls", ("aws:ec2/", "aws:vpc/")),
    ("EKS", ("aws:eks/",)),
    ("ElastiCache", ("aws:elasticache/",)),
    ("RDS", ("aws:rds/",)),
    ("S3", ("aws:s3/",)),
    ("ECR", ("aws:ecr/",)),
    ("IAM", ("aws:iam/",)),
    ("KMS", ("aws:kms/",)),
    ("logs", ("aws:cloudwatch/logGroup:",)),
    ("alarms, and whom they tell", ("aws:cloudwatch/metricAlarm:", "aws:sns/")),
)


def document() -> str:
    """The page."""
    return "\n".join((_HEADER, *_counts(), *_costs(), *(part for stack in SHIPPED for part in _picture(stack)), *_paper()))


def _counts() -> Iterator[str]:
    yield "## How many\n"
    yield f"| | {' | '.join(SHIPPED)} |\n|---{'|---' * len(SHIPPED)}|"
    counted = {stack: Counter(_service(each) for each in on_aws(stack)) for stack in SHIPPED}
    for service, _ in SERVICES:
        yield f"| {service} | {' | '.join(str(counted[stack][service]) for stack in SHIPPED)} |"
    yield f"| AWS resources | {' | '.join(str(counted[stack].total()) for stack in SHIPPED)} |"
    every = {stack: len(recorded(stack).resources) for stack in SHIPPED}
    yield f"| all registrations: components and Kubernetes' objects too | {' | '.join(map(str, every.values()))} |\n"


def _service(resource: Resource) -> str:
    """The group of a resource; StopIteration for one that has none, so that the table grows with the program."""
    return next(service for service, beginnings in SERVICES if resource.type.startswith(beginnings))


def _costs() -> Iterator[str]:
    yield "## What a month costs\n\nBy list prices on paper (`superset-async estimate`), in USD:\n"
    yield f"| | {' | '.join(SHIPPED)} |\n|---{'|---' * len(SHIPPED)}|"
    sums = {
        stack: (sum(line.at_rest for line in lines), sum(line.under_load for line in lines))
        for stack in SHIPPED
        for lines in [estimate.lines_of(topology_of(stack))]
    }
    for place, name in enumerate(("at rest", "under full load")):
        yield f"| {name} | {' | '.join(f'{sums[stack][place]:.0f}' for stack in SHIPPED)} |"
    yield ""


def _picture(stack: str) -> Iterator[str]:
    """The components of a stack, and what each waits for."""
    known = recorded(stack)
    waits = reduced(_waits(known))
    names = {urn: _label(known, urn) for urn in waits}
    yield f"## What waits for what: {stack}\n\nAn arrow leads from what is made first. Of two ways the longer one is shown.\n"
    yield "```mermaid\nflowchart LR"
    numbers = {urn: f"n{number}" for number, urn in enumerate(names)}
    yield from (f'  {numbers[urn]}["{name}"]' for urn, name in names.items())
    for urn, needed in waits.items():
        yield from (f"  {numbers[each]} --> {numbers[urn]}" for each in names if each in needed)
    yield "```\n"


def _waits(known: Recording) -> dict[str, set[str]]:
    """By the URN of each top-level component, those that it waits for."""
    by_urn = {each.urn: each for each in known.resources}

    def top(resource: Resource) -> str:
        while resource.parent in by_urn:
            resource = by_urn[resource.parent]
        return resource.urn

    waits: dict[str, set[str]] = defaultdict(set)
    for each in known.resources:
        own = top(each)
        others = {top(by_urn[urn]) for urn in (*each.dependencies, each.provider) if urn in by_urn}
        waits[own] |= others - {own}
    return {urn: waits[urn] for urn in waits if not by_urn[urn].type.startswith("pulumi:providers:aws")}


def reduced(waits: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same without what is waited for anyway, by way of another."""

    def far(urn: str) -> set[str]:
        return {each for near in waits.get(urn, ()) for each in (near, *far(near))}

    return {
        urn: {each for each in needed if not any(each in far(other) for other in needed - {each})}
        for urn, needed in waits.items()
    }


def _label(known: Recording, urn: str) -> str:
    resource = next(each for each in known.resources if each.urn == urn)
    kind = resource.type.rpartition(":")[2]
    return f"{kind} {resource.name}" if kind != resource.type else resource.name


def _paper() -> Iterator[str]:
    yield (
        "## Names that are paper\n\nNo model, schema or server at hand knows these. They were read on "
        f"{paper.AS_OF}, and a test compares them with what\nthe stacks name.\n"
    )
    yield "| kind | name | read in |\n|---|---|---|"
    for kind, names in paper.NAMES.items():
        by_source: dict[str, list[str]] = defaultdict(list)
        for name, source in names.items():
            by_source[source].append(f"`{name}`")
        yield from (f"| {kind} | {', '.join(found)} | {source} |" for source, found in by_source.items())
    yield ""


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
