"""A stack on AWS: its account and region, the network, the cluster, and what stands for each data store.

Which values there are (node types, versions, zones) is checked where the stack is planned: `topology.platforms.aws`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from topology.settings.section import Section
from topology.settings.values import Cidr, HostName, NotNegative, Positive, matching

Nat = Literal["none", "one", "zone"]
Compute = Literal["auto", "managed"]
InsightsMode = Literal["standard", "advanced"]
Scheme = Literal["internal", "internet-facing"]
#: AWS services that pods and nodes call, each by an interface endpoint in the VPC where the stack says so.
Endpoint = Literal[
    "ecr.api", "ecr.dkr", "sts", "logs", "secretsmanager", "eks-auth", "ec2", "eks", "elasticloadbalancing", "kms"
]
_DAY = "(mon|tue|wed|thu|fri|sat|sun)"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]"
#: A part of a day, in UTC.
DailyWindow = Annotated[str, matching(f"{_TIME}-{_TIME}", "must be two times of a day, in UTC|Write it as in 01:00-02:00")]
#: A part of a week, in UTC.
WeeklyWindow = Annotated[
    str,
    matching(f"{_DAY}:{_TIME}-{_DAY}:{_TIME}", "must be two times of a week, in UTC|Write it as in sun:03:00-sun:04:00"),
]
Account = Annotated[str, matching(r"[0-9]{12}", "must be an account's number of 12 digits, quoted|Quote it")]
Email = Annotated[str, matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "must be an e-mail address|Write it as in ops@example.com")]
Principal = Annotated[
    str,
    matching(
        r"arn:aws:iam::[0-9]{12}:(role|user)/[\w+=,.@/-]+",
        "must be the ARN of an IAM role or user|Write it as in arn:aws:iam::123456789012:role/platform",
    ),
]
Certificate = Annotated[
    str,
    matching(
        r"arn:aws:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+",
        "must be the ARN of a certificate of ACM|Copy it from the certificate's page",
    ),
]
Repository = Annotated[
    str,
    matching(r"[a-z0-9]+([._/-][a-z0-9]+)*", "must be the name of an ECR repository|Write it as in platform/superset-async"),
]
VpcId = Annotated[str, matching(r"vpc-([0-9a-f]{8}|[0-9a-f]{17})", "must be the id of a VPC|It begins with vpc-")]
SubnetId = Annotated[
    str, matching(r"subnet-([0-9a-f]{8}|[0-9a-f]{17})", "must be the id of a subnet|It begins with subnet-")
]
SecurityGroupId = Annotated[
    str, matching(r"sg-([0-9a-f]{8}|[0-9a-f]{17})", "must be the id of a security group|It begins with sg-")
]


class ExistingNetwork(Section):
    """A VPC that somebody else keeps."""

    vpc_id: VpcId = Field(description="the VPC")
    subnet_ids: tuple[SubnetId, ...] = Field(strict=False, description="its private subnets, each in another zone")


class AwsNetwork(Section):
    """The VPC: the stack's own, divided over its zones, or one that exists."""

    existing: ExistingNetwork | None = Field(description="null: the stack makes a VPC; else only this and cidr count")
    cidr: Cidr = Field(description="the VPC's addresses")
    zones: tuple[str, ...] = Field(strict=False, description="availability zones, such as eu-central-1a")
    nat: Nat = Field(description="ways out to the Internet: one for each zone, one for all (cheaper, in one zone), or none")
    endpoints: tuple[Endpoint, ...] = Field(
        strict=False, description="AWS services that are reached inside the VPC, at a price each; S3 always is, at none"
    )
    flow_log_days: Positive = Field(description="days that flow logs are kept")


class ExistingCluster(Section):
    """An EKS cluster that somebody else keeps; the `kubernetes:` keys say how to reach its API server."""

    name: Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", "must be the name of an EKS cluster|Choose it")] = (
        Field(description="name of the cluster")
    )
    security_group_id: SecurityGroupId = Field(description="security group of its nodes: the data stores let it in")


class AwsCluster(Section):
    """The EKS cluster: the stack's own, or one that exists."""

    existing: ExistingCluster | None = Field(description="null: the stack makes a cluster; else only this counts")
    version: Annotated[str, matching(r"1\.[0-9]{2}", "must be a version of Kubernetes, quoted|Quote it")] = Field(
        description="version of Kubernetes"
    )
    compute: Compute = Field(description="auto: EKS starts and replaces nodes (Auto Mode); managed: one group of nodes")
    instance_types: tuple[str, ...] = Field(strict=False, description="managed: types of its nodes, of one architecture")
    min_nodes: Positive = Field(description="managed: nodes at rest")
    max_nodes: Positive = Field(description="managed: nodes under load")
    public_cidrs: tuple[Cidr, ...] = Field(
        strict=False, description="networks outside the VPC that reach the API server; none: it is private"
    )
    administrators: tuple[Principal, ...] = Field(strict=False, description="ARNs of roles and users that administer it")
    log_days: Positive = Field(description="days that the control plane's logs are kept")
    keda_manifest: str | None = Field(
        description="file or URL of KEDA's manifests, applied where the stack makes the cluster; null: none"
    )


class ElastiCacheSettings(Section):
    """The ElastiCache replication group that stands for one Redis server."""

    node_type: str = Field(description="type of its nodes, such as cache.m7g.large")
    snapshot_days: Annotated[int, Field(ge=0, le=35)] = Field(description="days that daily snapshots are kept; 0: none")


class AwsRedis(Section):
    """ElastiCache: Valkey, TLS, one primary and `redis.<server>.replicas` replicas in other zones."""

    engine_version: str = Field(description="version of Valkey")
    reserved_memory_percent: Annotated[int, Field(ge=10, le=50)] = Field(
        description="percent of a node's memory that snapshots and synchronization may use"
    )
    snapshot_window: DailyWindow = Field(description="when snapshots are taken, in UTC")
    maintenance_window: WeeklyWindow = Field(description="when AWS may restart nodes, in UTC")
    broker: ElastiCacheSettings
    cache: ElastiCacheSettings = Field(description="not used where redis.cache is null")


class AwsPostgres(Section):
    """RDS for PostgreSQL: the metadata database where `postgres.kind` is rds. Its storage begins with postgres.volume_size."""

    engine_version: str = Field(description="version of PostgreSQL")
    instance_class: str = Field(description="class of the instance, such as db.m7g.large")
    max_storage_gib: Positive = Field(description="GiB up to which storage grows by itself")
    multi_az: bool = Field(description="a standby in another zone takes over")
    backup_days: Annotated[int, Field(ge=0, le=35)] = Field(
        description="days to any second of which the database can be restored; 0: none"
    )
    backup_window: DailyWindow = Field(description="when backups are taken, in UTC")
    maintenance_window: WeeklyWindow = Field(description="when AWS may restart the server, in UTC")
    insights_mode: InsightsMode = Field(description="of Database Insights: standard, or advanced (at a price)")
    insights_days: NotNegative = Field(description="days that Database Insights keeps: 7, 31 a month, or 465 where advanced")
    deletion_protection: bool = Field(description="AWS refuses to delete it")
    managed_password: bool = Field(
        description="RDS makes the role's password, keeps it in Secrets Manager and changes it each week; processes read it "
        "there. false: one that the stack makes and keeps in its state"
    )


class LoadBalancer(Section):
    """The way in: an application load balancer, made by the cluster's controller. DNS is the team's."""

    host: HostName = Field(description="host name in the URL")
    certificate_arn: Certificate = Field(description="its certificate in ACM")
    scheme: Scheme = Field(description="internal: from the VPC and what is connected to it; or internet-facing")
    cidrs: tuple[Cidr, ...] = Field(strict=False, description="networks that may connect to it")


class AwsSettings(Section):
    """A stack on AWS."""

    account: Account | None = Field(description="number of the account; no other is ever changed")
    region: str = Field(description="region, such as eu-central-1")
    network: AwsNetwork
    cluster: AwsCluster
    redis: AwsRedis
    postgres: AwsPostgres
    results: Literal["redis", "s3"] = Field(description="where SQL Lab's rows are: a bucket of the stack's own, or Redis")
    repository: Repository | None = Field(description="ECR repository that the stack makes for the image; null: none")
    load_balancer: LoadBalancer | None = Field(description="way in from outside the cluster; null: by port-forward only")
    alarm_emails: tuple[Email, ...] = Field(strict=False, description="who is told of CloudWatch's alarms")
