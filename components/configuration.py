"""The topology as every Superset process reads it, and which part of it each kind of process depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.common import SUPERSET, Scope, content_hash, labels, metadata, name_of
from topology.model import Pool, Topology

Role = Literal["web", "worker", "beat", "init"]
ROLES: tuple[Role, ...] = ("web", "worker", "beat", "init")
FILE = "topology.json"
#: The metadata database among the hosts.
POSTGRES = "postgres"


def relevant(topology: Topology, role: Role) -> dict[str, Any]:
    """The part of a topology that a process of `role` reads: when it is unchanged, nothing needs to restart.

    Left out is what is in the pod's own template (commands, resources, images), concerns other servers (sizes, replicas), or
    is read anew from the file when it changes (`process_topology.current`: tenants, queues): a new tenant restarts nobody else.
    Beat and the init job alone follow changed queues by starting again: they see to what waits in those that are gone.
    """
    whole = topology.model_dump(mode="json")
    kept = {
        key: whole[key]
        for key in (
            "stack",
            "platform",
            "environment",
            "redis_databases",
            "celery",
            "caching",
            "statement_timeout_seconds",
            "row_limit",
        )
    }
    if role not in ("init", "beat"):
        del kept["celery"]["queues"]
    kept["redis"] = [
        {
            **{key: instance[key] for key in ("name", "host", "port", "sentinel", "tls")},
            "users": [{key: user[key] for key in ("role", "username", "password_env")} for user in instance["users"]],
        }
        for instance in whole["redis"]
    ]
    kept["postgres"] = {
        key: whole["postgres"][key] for key in ("host", "port", "database", "user", "password_env", "ca_file")
    }
    kept["web"] = {key: whole["web"][key] for key in ("host", "port", "secure_cookies")}
    kept["beat"] = whole["beat"]["jobs"]
    if role == "web":
        kept["web"]["connections"] = whole["web"]["connections"]
    if role == "init":
        kept |= {"databases": whole["databases"], "admin_username": whole["admin_username"]}
        kept["checked_redis"] = [instance["name"] for instance in whole["redis"] if instance["existing"]]
    return kept


def relevant_to(topology: Topology, pool: Pool) -> list[Any]:
    """What the workers of `pool` read beside that: whose queries they run, and each tenant's share. Empty for no tenants."""
    tenants = [tenant.model_dump(mode="json") for tenant in topology.tenants if tenant.queue in pool.queues]
    return [*tenants, *(share.model_dump(mode="json") for share in pool.shares)]


def located(topology: Topology, hosts: Mapping[str, str]) -> Topology:
    """`topology` with the hosts of servers that were known only once they were made: by the instance's name, or `POSTGRES`."""
    redis = tuple(
        instance.model_copy(update={"host": hosts[instance.name]}) if instance.name in hosts else instance
        for instance in topology.redis
    )
    postgres = topology.postgres
    if POSTGRES in hosts:
        postgres = postgres.model_copy(update={"host": hosts[POSTGRES]})
    return topology.model_copy(update={"redis": redis, "postgres": postgres})


@dataclass(frozen=True)
class ConfigurationRef:
    """The ConfigMap with the topology, and for each kind of process a digest of what it depends on."""

    name: pulumi.Output[str]
    hashes: Mapping[Role, pulumi.Output[str]]


@dataclass(frozen=True)
class ConfigurationArgs:
    """What the configuration needs."""

    scope: Scope
    #: The one component that takes all of it: its ConfigMap is the topology.
    topology: Topology
    #: Hosts of servers that are known only once they are made, as `located` has them.
    hosts: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])


class Configuration(pulumi.ComponentResource):
    """A ConfigMap with the topology's JSON; it holds no secret, since a topology has none."""

    ref: ConfigurationRef

    def __init__(self, name: str, args: ConfigurationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:configuration:Configuration", name, None, opts)
        made = pulumi.Output.all(**args.hosts).apply(lambda hosts: located(args.topology, hosts))
        config = core.ConfigMap(
            name,
            metadata=metadata(args.scope, name, labels(args.scope, SUPERSET, "configuration")),
            data={FILE: made.apply(lambda topology: topology.model_dump_json(indent=2) + "\n")},
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.ref = ConfigurationRef(
            name_of(config.metadata, name),
            {role: made.apply(lambda topology, role=role: content_hash(relevant(topology, role))[:32]) for role in ROLES},
        )
        self.register_outputs({"name": self.ref.name})
