"""What AWS offers, as far as this project uses it: a table by hand, of the day that `AS_OF` says.

Nothing here was asked of AWS. Versions, node types and instance classes are compared with cfn-lint's schemas, which AWS's own
API fills, and names of enumerated values with botocore's models (`tests/components/aws`); memory, parameters and prices are
paper: AWS's documentation and price pages of that day.
"""

from __future__ import annotations

from typing import Final

from topology.quantities import GIB

AS_OF: Final = "2025-11-30"
#: Regions of AWS's commercial partition for which the image has RDS's authority (`runtime/environment/rds-ca-rsa2048-g1.pem`).
REGIONS: Final = (
    "af-south-1",
    "ap-east-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ca-central-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "me-central-1",
    "me-south-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
)
#: Versions of Valkey in ElastiCache, and the family of parameters of each.
VALKEY: Final = {"8.0": "valkey8", "8.1": "valkey8", "8.2": "valkey8"}
#: Versions of PostgreSQL in RDS, and the family of parameters of each.
POSTGRESQL: Final = {
    **{f"17.{minor}": "postgres17" for minor in (6, 7, 8, 9)},
    **{f"18.{minor}": "postgres18" for minor in (1, 2, 3, 4)},
}
#: Versions of Kubernetes in EKS whose standard support lasts: EKS makes no cluster of another for a stack, which asks for no
#: extended support. That of 1.34 ends on 2026-12-02, of 1.35 on 2027-03-27.
KUBERNETES: Final = ("1.35", "1.36")
#: Memory of ElastiCache's nodes for data and what is reserved of it (`maxmemory` of their parameter groups).
NODE_MEMORY: Final = {
    name: int(gib * GIB)
    for name, gib in {
        "cache.t4g.micro": 0.5,
        "cache.t4g.small": 1.37,
        "cache.t4g.medium": 3.09,
        "cache.m6g.large": 6.38,
        "cache.m6g.xlarge": 12.93,
        "cache.m6g.2xlarge": 26.04,
        "cache.r6g.large": 13.07,
        "cache.r6g.xlarge": 26.32,
        "cache.m7g.large": 6.38,
        "cache.m7g.xlarge": 12.93,
        "cache.m7g.2xlarge": 26.04,
        "cache.r7g.large": 13.07,
        "cache.r7g.xlarge": 26.32,
        "cache.r7g.2xlarge": 52.82,
    }.items()
}
#: Memory of RDS's instance classes.
CLASS_MEMORY: Final = {
    name: gib * GIB
    for name, gib in {
        "db.t4g.medium": 4,
        "db.t4g.large": 8,
        "db.m6g.large": 8,
        "db.m6g.xlarge": 16,
        "db.r6g.large": 16,
        "db.m7g.large": 8,
        "db.m7g.xlarge": 16,
        "db.m7g.2xlarge": 32,
        "db.r7g.large": 16,
        "db.r7g.xlarge": 32,
    }.items()
}
#: Virtual CPUs of RDS's instance classes.
CLASS_CPUS: Final = {name: 8 if name.endswith("2xlarge") else 4 if name.endswith(".xlarge") else 2 for name in CLASS_MEMORY}
#: Memory that RDS counts for each connection where it chooses `max_connections` itself, and the most that it then chooses.
BYTES_PER_CONNECTION, MOST_CONNECTIONS = 9_531_392, 5000
#: Least and most GiB of RDS storage of type gp3.
STORAGE_GIB = (20, 65_536)
#: EC2 instance types for nodes: CPUs, and GiB of memory.
INSTANCES: Final = {
    "m7g.large": (2, 8),
    "m7g.xlarge": (4, 16),
    "m7g.2xlarge": (8, 32),
    "m7i.large": (2, 8),
    "m7i.xlarge": (4, 16),
    "m7i.2xlarge": (8, 32),
    "r7g.large": (2, 16),
    "r7g.xlarge": (4, 32),
}
#: Days that Database Insights can keep what it measured, by its mode.
INSIGHTS_DAYS: Final = {"standard": (7, *(31 * month for month in range(1, 24)), 731), "advanced": (465,)}


def architecture(instance_type: str) -> str:
    """What an EC2 instance type runs: `arm64` for Graviton, whose family has a g behind its generation, else `x86_64`."""
    return "arm64" if instance_type.partition(".")[0][2:3] == "g" else "x86_64"


def connections(instance_class: str) -> int:
    """The connections that RDS itself would allow on an instance of this class; KeyError for an unknown one."""
    return min(CLASS_MEMORY[instance_class] // BYTES_PER_CONNECTION, MOST_CONNECTIONS)
