"""What is decided about a stack on AWS, as typed, frozen data. Sizes are bytes unless the name says GiB; times are UTC."""

from __future__ import annotations

from typing import Literal

from topology.frozen import Frozen

Nat = Literal["none", "one", "zone"]
Compute = Literal["auto", "managed"]
InsightsMode = Literal["standard", "advanced"]
Scheme = Literal["internal", "internet-facing"]
#: AWS services that pods and nodes call, each by an interface endpoint in the VPC where the stack says so.
Endpoint = Literal[
    "ecr.api", "ecr.dkr", "sts", "logs", "secretsmanager", "eks-auth", "ec2", "eks", "elasticloadbalancing", "kms"
]


class ExistingNetwork(Frozen):
    """A VPC that somebody else keeps: its id, its addresses, and the private subnets that nodes and data stores go to."""

    vpc_id: str
    cidr: str
    private_subnet_ids: tuple[str, ...]


class NewNetwork(Frozen):
    """A VPC of the stack's own: `cidr` divided over `zones` (`topology.aws.subnets`).

    `nat`: no way out to the Internet, one NAT gateway for all zones, or one in each. `endpoints` have an address in every zone.
    """

    cidr: str
    zones: tuple[str, ...]
    nat: Nat
    endpoints: tuple[Endpoint, ...]
    flow_log_days: int


class ExistingCluster(Frozen):
    """An EKS cluster that somebody else keeps; the `kubernetes:` keys of the stack say how to reach its API server.

    `security_group_id` is the group of its nodes, which the data stores let in.
    """

    name: str
    security_group_id: str


class NewCluster(Frozen):
    """An EKS cluster of the stack's own.

    `compute`: nodes that EKS itself starts and replaces (Auto Mode), or one managed group of `instance_types` with
    `min_nodes..max_nodes`. `public_cidrs` are the networks outside the VPC that reach its API server; none: only the VPC does.
    `administrators` are ARNs of IAM roles and users. `keda_manifest` is the file or address of KEDA's manifests, None where the
    stack has no use for it.
    """

    version: str
    compute: Compute
    instance_types: tuple[str, ...]
    min_nodes: int
    max_nodes: int
    public_cidrs: tuple[str, ...]
    administrators: tuple[str, ...]
    log_days: int
    keda_manifest: str | None


class ReplicationGroup(Frozen):
    """One ElastiCache replication group, which stands for the Redis instance of the name `instance`.

    Cluster mode is off: kombu's transactions and blocking pops span keys. `nodes` counts the primary. `snapshot_days` is 0 where
    nothing is kept.
    """

    instance: str
    identifier: str
    node_type: str
    engine_version: str
    family: str
    nodes: int
    maxmemory_policy: str
    reserved_memory_percent: int
    snapshot_days: int
    snapshot_window: str
    maintenance_window: str


class DatabaseInstance(Frozen):
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


class LoadBalancer(Frozen):
    """The way in: an application load balancer with `certificate_arn`, whose host name in DNS is the team's to point here.

    `cidrs` are the networks that may connect to it. `controller` is the ingress controller that makes it: EKS Auto Mode's own,
    or the AWS Load Balancer Controller of the cluster.
    """

    host: str
    certificate_arn: str
    scheme: Scheme
    cidrs: tuple[str, ...]
    controller: Literal["auto", "controller"]


class Aws(Frozen):
    """A stack's AWS account, and everything in it."""

    account: str
    region: str
    network: ExistingNetwork | NewNetwork
    cluster: ExistingCluster | NewCluster
    redis: tuple[ReplicationGroup, ...]
    postgres: DatabaseInstance
    #: None: the image's registry is somebody else's.
    repository: str | None
    load_balancer: LoadBalancer | None
    #: Addresses that alarms are sent to.
    alarm_emails: tuple[str, ...]
    #: Days after which objects of the bucket of results go.
    result_days: int
    bucket: str | None
    tags: dict[str, str]

    def group(self, instance: str) -> ReplicationGroup:
        """The replication group of a Redis instance; KeyError for an unknown one."""
        for candidate in self.redis:
            if candidate.instance == instance:
                return candidate
        raise KeyError(instance)
