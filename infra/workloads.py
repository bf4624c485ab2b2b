"""What runs Superset's code on a cluster, whoever runs its data stores: the same components on every platform with Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pulumi

from components.autoscaler import Autoscaler, AutoscalerArgs
from components.beat import BeatScheduler, BeatSchedulerArgs
from components.common import SUPERSET, Scope, of_tenant
from components.configuration import Configuration, ConfigurationArgs
from components.exporter import QueueExporter, QueueExporterArgs
from components.initialization import Initialization, InitializationArgs
from components.namespace import Namespace, NamespaceArgs
from components.network import Flow, Group, Outside
from components.own_superset import OwnSuperset, OwnSupersetArgs, OwnSupersetRef
from components.redis_access import RedisAccess
from components.rules import AlertingRules, AlertingRulesArgs
from components.secrets import ADMIN_PASSWORD, Secrets, SecretsArgs
from components.superset import SupersetArgs
from components.tenant import TenantShare, TenantShareArgs
from components.web import WebTier, WebTierArgs
from components.workers import Workers, WorkersArgs
from monitoring import rules
from topology import commands, egress, readers
from topology.model import PodGroup, Topology
from topology.own_module import OwnModule


@dataclass(frozen=True)
class Given:
    """What a stack gives beside its topology: the secrets in its configuration, and the files of the team's own module."""

    #: Whole URIs of analytic databases, by the environment variable of each.
    database_uris: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    #: Of an existing PostgreSQL server, else None.
    postgres_password: pulumi.Input[str] | None = None
    #: Of existing Redis instances, by name, whose passwords are in no Secret of somebody else's.
    redis_passwords: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    #: Of the team's own Superset and its sign-on, by environment variable.
    own: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    #: The team's own module; None where the stack has none, or it is in the image.
    own_module: OwnModule | None = None


#: Names of beat and of the init job, and so of their service accounts.
BEAT, INIT = "beat", "superset-init"


@dataclass(frozen=True)
class Stores:
    """The data stores that the workloads use."""

    #: How each Redis instance is reached, by its name.
    accesses: Mapping[str, RedisAccess]
    #: What must be there before the metadata database is prepared.
    servers: Sequence[pulumi.Resource]
    #: Hosts that are known only once the servers are made; see `components.configuration.located`.
    hosts: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])


@dataclass(frozen=True)
class Workloads:
    """What was made, for those who let traffic in."""

    web: WebTier
    exporter: QueueExporter


def foundation(
    topology: Topology,
    given: Given,
    opts: pulumi.ResourceOptions,
) -> tuple[Namespace, Scope, Secrets]:
    """What everything else on the cluster needs: the namespace, what its resources are made in, and the passwords and keys."""
    namespace = Namespace(
        "namespace", NamespaceArgs(topology.namespace, topology.stack, topology.labels, topology.existing_namespace), opts
    )
    scope = Scope(namespace.namespace, topology.stack, topology.storage_class, topology.labels, topology.images.pull_secrets)
    ours = [instance for instance in topology.redis if not instance.existing]
    secrets = Secrets(
        "superset",
        SecretsArgs(
            scope,
            redis_password_envs={user.role: user.password_env for instance in ours for user in instance.users},
            message_key_envs=[*topology.message_key_envs().values()],
            postgres_password_env=password_variable(topology),
            postgres_password=given.postgres_password,
            database_uris=given.database_uris,
            redis_passwords=given.redis_passwords,
            own=given.own,
        ),
        opts,
    )
    return namespace, scope, secrets


def password_variable(topology: Topology) -> str | None:
    """The variable with the metadata database's password; None where processes read it from AWS."""
    return None if topology.postgres.password_secret_arn else topology.postgres.password_env


def deploy(
    topology: Topology, scope: Scope, secrets: Secrets, stores: Stores, *, given: Given, opts: pulumi.ResourceOptions
) -> Workloads:
    """Make every process of `topology` on the cluster of `opts`; web, workers and beat after the metadata database is ready."""
    configuration = Configuration("superset-topology", ConfigurationArgs(scope, topology, stores.hosts), opts)
    own = (
        OwnSuperset("superset-own", OwnSupersetArgs(scope, topology.superset, given.own_module, secrets.own), opts).ref
        if given.own_module or topology.superset.env or topology.superset.sign_on
        else OwnSupersetRef()
    )
    superset = SupersetArgs(
        scope,
        topology.images,
        configuration.ref,
        secrets.app,
        password_variable(topology),
        list(stores.accesses.values()),
        topology.postgres.tls,
        topology.caching.spill,
        own,
    )
    initialization = Initialization(
        INIT,
        InitializationArgs(superset, secrets.init),
        pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(stores.servers))),
    )
    ready = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[initialization]))
    web = WebTier(topology.web.host, WebTierArgs(superset, topology.web, commands.web(topology)), ready)
    broker_database = topology.database("broker")
    broker = stores.accesses[broker_database.instance]
    exporter = QueueExporter(
        topology.exporter.host,
        QueueExporterArgs(
            scope,
            topology.images,
            topology.exporter,
            commands.exporter(),
            configuration=configuration.ref,
            broker=broker,
            broker_database=broker_database,
            feeds_adapter=any(pool.scaling and pool.scaling.kind == "hpa" for pool in topology.pools),
        ),
        opts,
    )
    if topology.exporter.rules:
        AlertingRules(f"{topology.exporter.host}-rules", AlertingRulesArgs(scope, rules.spec(topology)), opts)
    for pool in topology.pools:
        name = f"worker-{pool.name}"
        own = of_tenant(scope, pool.tenant) if pool.tenant else scope
        share = (
            TenantShare(f"{name}-share", TenantShareArgs(own, pool.tenant, pool.priority, pool.quota), opts)
            if pool.tenant
            else None
        )
        workers = Workers(
            name,
            WorkersArgs(
                replace(superset, scope=own),
                pool,
                readers.of_pool(topology, pool.name),
                share.priority_class if share else None,
                commands.worker(pool),
            ),
            ready,
        )
        if pool.scaling:
            args = AutoscalerArgs(
                own,
                pool,
                pool.scaling,
                deployment=workers.deployment,
                broker=broker,
                broker_database=broker_database,
                exporter=exporter.url if scaled_by_exporter(topology) else None,
            )
            Autoscaler(f"{name}-scaler", args, opts)
    BeatScheduler(BEAT, BeatSchedulerArgs(superset, topology.beat), ready)
    return Workloads(web, exporter)


def scaled_by_exporter(topology: Topology) -> bool:
    """Whether KEDA needs the exporter to know whose the messages in flight are: those of a single pool it counts itself."""
    return len(topology.pools) > 1 and any(pool.scaling and pool.scaling.kind == "keda" for pool in topology.pools)


def superset_pods(topology: Topology) -> Group:
    """Every pod that runs Superset's code."""
    return Group(SUPERSET, {"app.kubernetes.io/name": SUPERSET, "app.kubernetes.io/instance": topology.stack})


def flows(topology: Topology, workloads: Workloads) -> list[Flow]:
    """Who connects to the workloads themselves: the way in, Prometheus, and KEDA where it asks the exporter."""
    route, scraped = topology.web.route, Group("exporter", workloads.exporter.match)
    return [
        *(
            Flow(namespace, Group("web", workloads.web.match), topology.web.port)
            for namespace in (route.from_namespaces if route else ())
        ),
        *(Flow(namespace, scraped, topology.exporter.port) for namespace in topology.exporter.from_namespaces),
        *(
            [Flow(topology.operator_namespaces.keda, scraped, topology.exporter.port)]
            if scaled_by_exporter(topology)
            else []
        ),
    ]


def outside(topology: Topology, workloads: Workloads) -> list[Outside]:
    """What each group of pods reaches outside of the stack."""
    groups: dict[PodGroup, Group] = {
        "superset": superset_pods(topology),
        "web": Group("web", workloads.web.match),
        "exporter": Group("exporter", workloads.exporter.match),
    }
    return [
        Outside(
            groups[pods],
            peer.ports,
            networks={cidr: egress.excluded(cidr) for cidr in peer.cidrs},
            namespace=peer.namespace,
        )
        for peer in topology.egress
        for pods in peer.pods
    ]


def outputs(
    topology: Topology, namespace: Namespace, secrets: Secrets, web: WebTier, url: pulumi.Input[str] | None
) -> dict[str, pulumi.Input[object]]:
    """What a person needs to know of the workloads, by the name of a stack output; `url` is the way in, where there is one."""
    port = topology.web.port
    where = pulumi.Output.all(namespace=namespace.namespace, service=web.service, secret=secrets.init.name)
    return {
        "namespace": namespace.namespace,
        "url": url if url is not None else where.apply(lambda known: _inside(known, port)),
        "port_forward": where.apply(
            lambda known: f"kubectl --namespace {known['namespace']} port-forward service/{known['service']} {port}:{port}"
        ),
        "admin_username": topology.admin_username,
        "admin_secret": secrets.init.name,
        "admin_password_command": where.apply(
            lambda known: (
                f"kubectl --namespace {known['namespace']} get secret {known['secret']} "
                f"--output=jsonpath='{{.data.{ADMIN_PASSWORD}}}' | base64 --decode"
            )
        ),
        "pools": [
            {
                "name": pool.name,
                "queues": list(pool.queues),
                "concurrency": pool.concurrency,
                "workers": f"{pool.min_workers}..{pool.max_workers}" if pool.scaling else str(pool.min_workers),
            }
            for pool in topology.pools
        ],
    }


def _inside(known: Mapping[str, str], port: int) -> str:
    """The web tier's URL for what runs in the cluster."""
    return f"http://{known['service']}.{known['namespace']}.svc:{port}"
