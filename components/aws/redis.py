"""ElastiCache: a replication group of Valkey for a Redis instance of the topology, with its parameters, users and logs.

There is no append-only file: what a primary took and no replica had is lost with it. `PARAMETERS` says what is done about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_aws import elasticache

from components.aws.common import AwsScope, CustomerKey, CustomerKeyArgs, log_group
from components.aws.firewall import Firewall, FirewallArgs
from components.aws.network import NetworkRef
from topology import redis_acl
from topology.aws.model import ReplicationGroup
from topology.model import RedisInstance, RedisRole

ENGINE = "valkey"
#: ElastiCache's name of a log, and what the log group's path ends with. A path of this kind needs no resource policy.
LOGS = {"slow-log": "slow", "engine-log": "engine"}
LOG_PATH = "/aws/vendedlogs/elasticache/{identifier}/{log}"
LOG_DAYS = 30
#: Seconds that a replica may lag and still count as one that has the primary's data.
REPLICA_LAG_SECONDS = 10


def parameters(group: ReplicationGroup, instance: RedisInstance) -> dict[str, str]:
    """The parameter group's values, by name.

    A broker's primary that has lost every replica refuses writes, as long as one of several may be lost without that: what it
    took alone would be gone with it.
    """
    found = {
        "maxmemory-policy": group.maxmemory_policy,
        "reserved-memory-percent": str(group.reserved_memory_percent),
        "cluster-enabled": "no",
    }
    if instance.carries_broker and group.nodes > 2:
        found |= {"min-replicas-to-write": "1", "min-replicas-max-lag": str(REPLICA_LAG_SECONDS)}
    return found


@dataclass(frozen=True)
class ElastiCacheArgs:
    """What a replication group needs."""

    scope: AwsScope
    group: ReplicationGroup
    instance: RedisInstance
    network: NetworkRef
    #: Security groups that may connect, by what they are of.
    clients: Mapping[str, pulumi.Input[str]]
    #: Password of each of the instance's users.
    passwords: Mapping[RedisRole, pulumi.Input[str]]
    logs_key_arn: pulumi.Input[str]


class ElastiCache(pulumi.ComponentResource):
    """A replication group over several zones: TLS only, encrypted by a key of its own, with the instance's users and no other.

    A broker's is protected, and leaves a last snapshot when it goes.
    """

    #: Where the primary is, whichever node that is; its certificate is of this name.
    host: pulumi.Output[str]
    #: The replication group's id.
    group_id: pulumi.Output[str]

    def __init__(self, name: str, args: ElastiCacheArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/redis:ElastiCache", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        group, instance = args.group, args.instance
        several = group.nodes > 1
        key = CustomerKey(name, CustomerKeyArgs(args.scope, f"Data of {name}"), child)
        firewall = Firewall(name, FirewallArgs(args.network.vpc_id, name, instance.port, groups=args.clients), child)
        subnet_group = elasticache.SubnetGroup(
            name, description=f"Where {name} is", subnet_ids=list(args.network.subnet_ids), opts=child
        )
        parameter_group = elasticache.ParameterGroup(
            name,
            family=group.family,
            description=f"How {name} runs",
            parameters=[
                elasticache.ParameterGroupParameterArgs(name=parameter, value=value)
                for parameter, value in parameters(group, instance).items()
            ],
            opts=child,
        )
        logs = {
            log: log_group(
                f"{name}-{end}",
                LOG_PATH.format(identifier=group.identifier, log=end),
                LOG_DAYS,
                args.logs_key_arn,
                child,
            )
            for log, end in LOGS.items()
        }
        replication_group = elasticache.ReplicationGroup(
            name,
            replication_group_id=group.identifier,
            description=f"{name} of {args.scope.stack}",
            engine=ENGINE,
            engine_version=group.engine_version,
            node_type=group.node_type,
            num_cache_clusters=group.nodes,
            automatic_failover_enabled=several,
            multi_az_enabled=several,
            cluster_mode="disabled",
            port=instance.port,
            parameter_group_name=parameter_group.name,
            subnet_group_name=subnet_group.name,
            security_group_ids=[firewall.group_id],
            user_group_ids=[self._users(name, args, child)],
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            at_rest_encryption_enabled=True,
            kms_key_id=key.arn,
            snapshot_retention_limit=group.snapshot_days,
            snapshot_window=group.snapshot_window if group.snapshot_days else None,
            final_snapshot_identifier=f"{group.identifier}-last" if group.snapshot_days else None,
            maintenance_window=group.maintenance_window,
            auto_minor_version_upgrade=True,
            # A change that restarts nodes waits for the maintenance window.
            apply_immediately=False,
            log_delivery_configurations=[
                elasticache.ReplicationGroupLogDeliveryConfigurationArgs(
                    log_type=log, destination_type="cloudwatch-logs", destination=made.name, log_format="json"
                )
                for log, made in logs.items()
            ],
            tags={"Name": name},
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=instance.carries_broker)),
        )
        self.host = replication_group.primary_endpoint_address
        self.group_id = replication_group.id
        self.register_outputs({"host": self.host})

    def _users(self, name: str, args: ElastiCacheArgs, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
        """The group of the instance's users. Valkey's groups need no user `default`, and without one nobody is let in unnamed."""
        users = [
            elasticache.User(
                f"{name}-{user.role}",
                user_id=f"{args.group.identifier}-{user.role}",
                user_name=user.username,
                engine=ENGINE,
                access_string=redis_acl.access_string(user),
                authentication_mode=elasticache.UserAuthenticationModeArgs(
                    type="password", passwords=[pulumi.Output.secret(args.passwords[user.role])]
                ),
                opts=opts,
            )
            for user in args.instance.users
        ]
        return elasticache.UserGroup(
            name,
            user_group_id=f"{args.group.identifier}-users",
            engine=ENGINE,
            user_ids=[user.user_id for user in users],
            opts=opts,
        ).id
