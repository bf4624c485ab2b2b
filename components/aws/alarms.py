"""CloudWatch alarms for what Prometheus cannot see: the servers that AWS runs. What they tell goes to one SNS topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pulumi
from pulumi_aws import cloudwatch, sns

from components.aws.common import AwsScope, CustomerKey, CustomerKeyArgs, alarms_may_use, document
from topology.aws.model import DatabaseInstance, ReplicationGroup
from topology.quantities import GIB, MIB

Statistic = Literal["Average", "Maximum", "Minimum", "Sum"]
ELASTICACHE, RDS = "AWS/ElastiCache", "AWS/RDS"
MINUTE = 60
#: Connections, in percent of what the server takes, at which somebody must look.
CONNECTIONS_PERCENT = 85


@dataclass(frozen=True)
class Alarm:
    """One alarm: `metric` is over or under `threshold` for `minutes` together. `says` is for whoever is paged."""

    name: str
    namespace: str
    metric: str
    dimensions: Mapping[str, str]
    threshold: float
    minutes: int
    says: str
    statistic: Statistic = "Maximum"
    comparison: Literal["GreaterThanThreshold", "LessThanThreshold"] = "GreaterThanThreshold"
    #: What no data means: a server that is gone sends none.
    no_data: Literal["breaching", "notBreaching", "missing"] = "missing"


def of_redis(group: ReplicationGroup, *, broker: bool) -> list[Alarm]:
    """What can go wrong with each node of a replication group."""
    full = (
        "The broker refuses new queries when it is full: look for queues that nobody serves"
        if broker
        else "It evicts more and more, or refuses: take a larger node type, or keep results shorter"
    )
    # Name, metric, threshold, minutes, what to say, statistic.
    each: list[tuple[str, str, float, int, str, Statistic]] = [
        ("cpu", "EngineCPUUtilization", 80, 10, "Its one thread is busy: take a larger node type", "Maximum"),
        ("lag", "ReplicationLag", 10, 5, "A failover now would lose the last seconds: look at the load", "Maximum"),
        ("memory", "DatabaseMemoryUsagePercentage", 85, 5, full, "Maximum"),
        ("connections", "CurrConnections", 50_000, 5, "Near ElastiCache's limit of 65 000: something leaks them", "Maximum"),
    ]
    if broker:
        each.append(("evictions", "Evictions", 0, 1, "A broker lost keys, so queries may be gone: find out which", "Sum"))
    return [
        Alarm(f"{node}-{name}", ELASTICACHE, metric, {"CacheClusterId": node}, threshold, minutes, says, statistic)
        for node in (f"{group.identifier}-{number:03d}" for number in range(1, group.nodes + 1))
        for name, metric, threshold, minutes, says, statistic in each
    ]


def of_postgres(instance: DatabaseInstance, max_connections: int) -> list[Alarm]:
    """What can go wrong with the metadata database's server."""
    dimensions = {"DBInstanceIdentifier": instance.identifier}
    most = max_connections * CONNECTIONS_PERCENT // 100

    def name(what: str) -> str:
        return f"{instance.identifier}-{what}"

    found = [
        Alarm(
            name("storage"),
            RDS,
            "FreeStorageSpace",
            dimensions,
            max(2 * GIB, instance.storage_gib * GIB // 10),
            5,
            "It stops when it is full, and grows by itself only up to the stack's limit",
            "Minimum",
            "LessThanThreshold",
            "breaching",
        ),
        Alarm(name("connections"), RDS, "DatabaseConnections", dimensions, most, 5, "New connections will be refused"),
        Alarm(name("cpu"), RDS, "CPUUtilization", dimensions, 85, 15, "Look at Database Insights for what runs", "Average"),
        Alarm(
            name("memory"),
            RDS,
            "FreeableMemory",
            dimensions,
            256 * MIB,
            10,
            "Near to swapping: take a larger instance class",
            "Minimum",
            "LessThanThreshold",
        ),
        Alarm(
            name("transaction-ids"),
            RDS,
            "MaximumUsedTransactionIDs",
            dimensions,
            1_000_000_000,
            60,
            "Vacuum does not keep up; the server stops taking writes at two thousand million",
        ),
    ]
    if instance.instance_class.startswith("db.t"):
        says = "It runs at its baseline when they are used up"
        found.append(
            Alarm(name("cpu-credits"), RDS, "CPUCreditBalance", dimensions, 50, 10, says, "Minimum", "LessThanThreshold")
        )
    return found


@dataclass(frozen=True)
class AlarmsArgs:
    """Which alarms, and who is told."""

    scope: AwsScope
    alarms: Sequence[Alarm]
    emails: Sequence[str] = field(default_factory=tuple)


class Alarms(pulumi.ComponentResource):
    """The alarms, and an encrypted topic that they are sent to, when they begin and when they end."""

    #: ARN of the topic, for further subscriptions.
    topic_arn: pulumi.Output[str]

    def __init__(self, name: str, args: AlarmsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/alarms:Alarms", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        key = CustomerKey(name, CustomerKeyArgs(args.scope, "Alarms", [alarms_may_use(args.scope)]), child)
        topic = sns.Topic(name, kms_master_key_id=key.arn, tags={"Name": name}, opts=child)
        sns.TopicPolicy(
            name,
            arn=topic.arn,
            policy=document(
                {
                    "Sid": "Alarms",
                    "Effect": "Allow",
                    "Principal": {"Service": "cloudwatch.amazonaws.com"},
                    "Action": ["sns:Publish"],
                    "Resource": [topic.arn],
                    "Condition": {"StringEquals": {"aws:SourceAccount": args.scope.account}},
                }
            ),
            opts=child,
        )
        for number, email in enumerate(args.emails):
            sns.TopicSubscription(f"{name}-email-{number}", topic=topic.arn, protocol="email", endpoint=email, opts=child)
        for alarm in args.alarms:
            cloudwatch.MetricAlarm(
                alarm.name,
                name=f"{args.scope.stack}/{alarm.name}",
                alarm_description=alarm.says,
                namespace=alarm.namespace,
                metric_name=alarm.metric,
                dimensions=dict(alarm.dimensions),
                statistic=alarm.statistic,
                comparison_operator=alarm.comparison,
                threshold=alarm.threshold,
                period=MINUTE,
                evaluation_periods=alarm.minutes,
                datapoints_to_alarm=alarm.minutes,
                treat_missing_data=alarm.no_data,
                alarm_actions=[topic.arn],
                ok_actions=[topic.arn],
                opts=child,
            )
        self.topic_arn = topic.arn
        self.register_outputs({"topic_arn": self.topic_arn})
