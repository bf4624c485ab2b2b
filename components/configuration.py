"""The topology as every process reads it, and for each kind of process a digest of what it reads at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.common import SUPERSET, Scope, content_hash, labels, metadata, name_of
from topology import readers
from topology.model import Topology
from topology.readers import Process

FILE = "topology.json"
#: The metadata database among the hosts, and the ARN of the secret with its password.
POSTGRES = "postgres"
POSTGRES_SECRET = "postgres-secret"  # noqa: S105 a name


def located(topology: Topology, hosts: Mapping[str, str]) -> Topology:
    """`topology` with what was known of servers only once they were made.

    By the instance's name, or `POSTGRES`, a host; by `POSTGRES_SECRET` the secret with the metadata database's password.
    """
    redis = tuple(
        instance.model_copy(update={"host": hosts[instance.name]}) if instance.name in hosts else instance
        for instance in topology.redis
    )
    postgres = topology.postgres
    if POSTGRES in hosts:
        postgres = postgres.model_copy(update={"host": hosts[POSTGRES]})
    if POSTGRES_SECRET in hosts:
        postgres = postgres.model_copy(update={"password_secret_arn": hosts[POSTGRES_SECRET]})
    return topology.model_copy(update={"redis": redis, "postgres": postgres})


@dataclass(frozen=True)
class ConfigurationRef:
    """The ConfigMap with the topology, and for each kind of process a digest of what it depends on."""

    name: pulumi.Output[str]
    hashes: Mapping[Process, pulumi.Output[str]]


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
            {
                process: made.apply(lambda topology, it=process: content_hash(readers.at_start(topology, it))[:32])
                for process in readers.PROCESSES
            },
        )
        self.register_outputs({"name": self.ref.name})
