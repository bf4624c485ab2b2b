"""What is decided about a stack on AWS, as typed, frozen data. Sizes are GiB where the name says so; times are UTC."""

from __future__ import annotations

from typing import Literal

from topology.settings.aws import (
    AwsCluster,
    AwsNetwork,
    ExistingCluster,
    ExistingNetwork,
    InsightsMode,
    LoadBalancer,
    Nat,
)
from topology.settings.section import Section

__all__ = ["Aws", "DatabaseInstance", "ExistingCluster", "ExistingNetwork", "LoadBalancer", "Nat", "ReplicationGroup"]


class ReplicationGroup(Section):
    """One ElastiCache replication group, which stands for the Redis instance of the name `instance`.

    Cluster mode is off: kombu's transactions and blocking pops span keys. `nodes` counts the primary. `snapshot_days` is 0 where
    nothing is kept. `memory_bytes` is what a node has for data.
    """

    instance: str
    identifier: str
    node_type: str
    engine_version: str
    family: str
    nodes: int
    memory_bytes: int
    maxmemory_policy: str
    reserved_memory_percent: int
    snapshot_days: int
    snapshot_window: str
    maintenance_window: str


class DatabaseInstance(Section):
    """The RDS instance of the metadata database. `insights_days` is how long Database Insights keeps what it measured."""

    identifier: str
    instance_class: str
    engine_version: str
    family: str
    storage_gib: int
    max_storage_gib: int
    multi_az: bool
    backup_days: int
    backup_window: str
    maintenance_window: str
    insights_mode: InsightsMode
    insights_days: int
    deletion_protection: bool
    managed_password: bool


class Aws(Section):
    """A stack's AWS account, and what of it is there.

    `network` and `cluster` are as the stack file has them. `redis` and `postgres` leave out servers that exist. `bucket` and
    `result_days` are the name of the bucket of results and the days that its objects live. `controller` makes the load balancer:
    EKS Auto Mode's own, or the AWS Load Balancer Controller of the cluster.
    """

    account: str
    region: str
    network: AwsNetwork
    cluster: AwsCluster
    redis: tuple[ReplicationGroup, ...]
    postgres: DatabaseInstance | None
    bucket: str | None
    result_days: int
    repository: str | None
    load_balancer: LoadBalancer | None
    controller: Literal["auto", "controller"]
    alarm_emails: tuple[str, ...]
    tags: dict[str, str]

    def group(self, instance: str) -> ReplicationGroup:
        """The replication group of a Redis instance; KeyError for an unknown one."""
        for candidate in self.redis:
            if candidate.instance == instance:
                return candidate
        raise KeyError(instance)
