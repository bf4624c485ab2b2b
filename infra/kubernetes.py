"""The `kubernetes` platform: which components a topology becomes, and in which order they are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pulumi
from pulumi_kubernetes import Provider

from components.autoscaler import Autoscaler, AutoscalerArgs
from components.backup import MetadataBackup, MetadataBackupArgs
from components.beat import BeatScheduler, BeatSchedulerArgs
from components.common import PREFIX, SUPERSET, Scope, of_tenant
from components.configuration import Configuration, ConfigurationArgs, relevant_to
from components.exporter import QueueExporter, QueueExporterArgs
from components.initialization import Initialization, InitializationArgs
from components.namespace import Namespace, NamespaceArgs
from components.network import Flow, Group, NetworkPolicies, NetworkPoliciesArgs, OutsideNetworks
from components.postgres import SUPERUSER, PostgresArgs, PostgresServer
from components.postgres_cluster import PORT as CLUSTER_PORT
from components.postgres_cluster import PostgresCluster, cluster_flows
from components.redis import Redis, RedisArgs, certificate_names, sentinel_name
from components.redis_access import PASSWORD, PasswordRef, RedisAccess
from components.redis_users import password_key
from components.route import WebRoute, WebRouteArgs
from components.rules import AlertingRules, AlertingRulesArgs
from components.secrets import ADMIN_PASSWORD, Secrets, SecretsArgs
from components.sentinel import Sentinel, SentinelArgs
from components.superset import SupersetArgs
from components.tenant import TenantShare, TenantShareArgs
from components.web import WebTier, WebTierArgs
from components.workers import Workers, WorkersArgs
from monitoring import rules
from topology import commands
from topology.model import SENTINEL_PORT, RedisInstance, Topology
from topology.problems import Problem

_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


def check(topology: Topology) -> Iterator[Problem]:
    """What keeps a topology from running on Kubernetes, beyond the invariants that hold everywhere."""
    if topology.postgres.kind == "cloudnativepg" and topology.postgres.port != CLUSTER_PORT:
        yield Problem(
            "postgres.port",
            str(topology.postgres.port),
            f"is not the port of a CloudNativePG server, {CLUSTER_PORT}",
            "Leave it out",
            also=("postgres.kind",),
        )
    if topology.postgres.kind != "existing" and topology.postgres.user == SUPERUSER:
        yield Problem(
            "postgres.user",
            SUPERUSER,
            "is the server's superuser; Superset's role owns its database and no more",
            "Choose another name, such as superset",
        )
    for key, value in topology.labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield Problem(
                f"labels.{key}",
                repr(value),
                "is no label that Kubernetes takes: at most 63 letters, digits, '-', '_' and '.', "
                "with a letter or digit at both ends",
                "Shorten it or replace the other characters",
                also=("labels",),
            )
        elif key.startswith(("app.kubernetes.io/", f"{PREFIX}/", "pod-security.kubernetes.io/")):
            yield Problem(f"labels.{key}", repr(value), "is a label that this project sets itself", "Choose another key")


def deploy(
    topology: Topology,
    *,
    database_uris: Mapping[str, pulumi.Input[str]],
    postgres_password: pulumi.Input[str] | None,
    redis_passwords: Mapping[str, pulumi.Input[str]],
) -> dict[str, pulumi.Input[object]]:
    """Make every resource of `topology`; what a person needs to know of them, by the name of a stack output.

    `database_uris` maps the environment variable of each analytic database to its URI; `postgres_password` is that of an
    existing server, else None; `redis_passwords` are those of the existing Redis instances, by name, that are in no Secret
    of somebody else's. The metadata database is prepared before web, workers and beat start.
    """
    here = pulumi.ResourceOptions(providers=[_cluster()])
    namespace = Namespace("namespace", NamespaceArgs(topology.namespace, topology.stack, topology.labels), here)
    scope = Scope(namespace.namespace, topology.stack, topology.labels)

    ours = [instance for instance in topology.redis if not instance.existing]
    secrets = Secrets(
        "superset",
        SecretsArgs(
            scope,
            redis_password_envs={user.role: user.password_env for instance in ours for user in instance.users},
            postgres_password_env=topology.postgres.password_env,
            postgres_password=postgres_password,
            database_uris=database_uris,
            redis_passwords=redis_passwords,
        ),
        here,
    )
    redis = {
        instance.name: Redis(
            instance.name,
            RedisArgs(
                scope,
                instance,
                topology.images,
                {user.role: secrets.redis_passwords[user.role] for user in instance.users},
            ),
            here,
        )
        for instance in ours
    }
    accesses = {instance.name: _access(instance, redis, secrets) for instance in topology.redis}
    sentinels = {
        instance.name: Sentinel(
            sentinel_name(instance),
            SentinelArgs(scope, instance, topology.images, redis[instance.name].secret, redis[instance.name].fingerprint),
            here,
        )
        for instance in ours
        if instance.sentinel
    }
    postgres = _postgres(topology, PostgresArgs(scope, topology.postgres, topology.images, secrets.postgres_password), here)
    servers = [*redis.values(), *sentinels.values(), *([postgres] if postgres else [])]
    configuration = Configuration("superset-topology", ConfigurationArgs(scope, topology), here)
    superset = SupersetArgs(
        scope,
        topology.images,
        configuration.ref,
        secrets.app,
        topology.postgres.password_env,
        list(accesses.values()),
        topology.caching.spill,
    )
    initialization = Initialization(
        "superset-init",
        InitializationArgs(superset, secrets.init),
        pulumi.ResourceOptions.merge(here, pulumi.ResourceOptions(depends_on=servers)),
    )
    ready = pulumi.ResourceOptions.merge(here, pulumi.ResourceOptions(depends_on=[initialization]))
    web = WebTier(topology.web.host, WebTierArgs(superset, topology.web, commands.web(topology)), ready)
    broker_database = topology.database("broker")
    broker = accesses[broker_database.instance]
    exporter = QueueExporter(
        topology.exporter.host,
        QueueExporterArgs(
            scope,
            topology.images,
            topology.exporter,
            commands.exporter(),
            configuration=configuration.ref.name,
            broker=broker,
            broker_database=broker_database,
            feeds_adapter=any(pool.scaling and pool.scaling.kind == "hpa" for pool in topology.pools),
        ),
        here,
    )
    for pool in topology.pools:
        name = f"worker-{pool.name}"
        own = of_tenant(scope, pool.tenant) if pool.tenant else scope
        share = (
            TenantShare(f"{name}-share", TenantShareArgs(own, pool.tenant, pool.priority, pool.quota), here)
            if pool.tenant
            else None
        )
        workers = Workers(
            name,
            WorkersArgs(
                replace(superset, scope=own),
                pool,
                relevant_to(topology, pool),
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
                exporter=exporter.url if _scaled_by_exporter(topology) else None,
            )
            Autoscaler(f"{name}-scaler", args, here)
    BeatScheduler("beat", BeatSchedulerArgs(superset, topology.beat), ready)
    route = (
        WebRoute("web-route", WebRouteArgs(scope, topology.web.route, web.service, topology.web.port), here)
        if topology.web.route
        else None
    )
    backup = (
        MetadataBackup(
            "postgres-backup",
            MetadataBackupArgs(scope, topology.postgres, topology.postgres.backup, topology.images, postgres.secret),
            here,
        )
        if topology.postgres.backup and postgres
        else None
    )
    if topology.exporter.rules:
        AlertingRules(f"{topology.exporter.host}-rules", AlertingRulesArgs(scope, rules.spec(topology)), here)
    NetworkPolicies(
        "allow",
        _network(
            topology, scope, web=web, exporter=exporter, redis=redis, sentinels=sentinels, postgres=postgres, backup=backup
        ),
        here,
    )
    return _outputs(topology, namespace, secrets, web, route)


def _scaled_by_exporter(topology: Topology) -> bool:
    """Whether KEDA needs the exporter to know whose the messages in flight are: those of a single pool it counts itself."""
    return len(topology.pools) > 1 and any(pool.scaling and pool.scaling.kind == "keda" for pool in topology.pools)


def _cluster() -> Provider:
    """The cluster that the stack's `kubernetes:` keys or the environment name.

    A changed ConfigMap or Secret is updated in place; the provider would otherwise delete it, and with it every workload that
    mounts it, to make them anew. (Pods are rolled by the digests in their templates.)
    """
    config = pulumi.Config("kubernetes")
    return Provider(
        "cluster",
        kubeconfig=config.get_secret("kubeconfig"),
        context=config.get("context"),
        cluster=config.get("cluster"),
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
    )


def _access(instance: RedisInstance, redis: Mapping[str, Redis], secrets: Secrets) -> RedisAccess:
    """Where clients of `instance` find their passwords: in its own Secret, in the one of a given password, or in one that
    somebody else keeps.
    """
    if instance.existing is None:
        ours = redis[instance.name]
        return RedisAccess(
            instance,
            {user.role: PasswordRef(ours.secret, password_key(user.role), ours.fingerprint) for user in instance.users},
        )
    kept = instance.existing.password_secret_name
    password = PasswordRef(kept, PASSWORD, "") if kept else secrets.existing_redis[instance.name]
    return RedisAccess(instance, {user.role: password for user in instance.users})


def _postgres(
    topology: Topology, args: PostgresArgs, opts: pulumi.ResourceOptions
) -> PostgresServer | PostgresCluster | None:
    match topology.postgres.kind:
        case "statefulset":
            return PostgresServer(topology.postgres.host, args, opts)
        case "cloudnativepg":
            return PostgresCluster(topology.postgres.host, args, opts)
        case "existing":
            return None


def _network(
    topology: Topology,
    scope: Scope,
    *,
    web: WebTier,
    exporter: QueueExporter,
    redis: Mapping[str, Redis],
    sentinels: Mapping[str, Sentinel],
    postgres: PostgresServer | PostgresCluster | None,
    backup: MetadataBackup | None,
) -> NetworkPoliciesArgs:
    superset = Group(SUPERSET, {"app.kubernetes.io/name": SUPERSET, "app.kubernetes.io/instance": topology.stack})
    route, port, operators = topology.web.route, topology.postgres.port, topology.operator_namespaces
    database = Group("postgres", postgres.match) if postgres else None
    scraped = Group("exporter", exporter.match)
    flows = [
        *(
            Flow(namespace, Group("web", web.match), topology.web.port)
            for namespace in (route.from_namespaces if route else ())
        ),
        Flow(superset, database, port),
        *(Flow(namespace, scraped, topology.exporter.port) for namespace in topology.exporter.from_namespaces),
    ]
    if _scaled_by_exporter(topology):
        flows.append(Flow(operators.keda, scraped, topology.exporter.port))
    if backup:
        flows.append(Flow(Group("postgres-backup", backup.match), database, port))
    if isinstance(postgres, PostgresCluster) and database:
        flows += cluster_flows(database, operators.cloudnativepg)
    outside = [OutsideNetworks(superset, topology.database_cidrs)]
    for instance in topology.redis:
        if instance.existing:
            for source in (superset, *([scraped] if instance.carries_broker else [])):
                if instance.existing.cidrs is None:
                    flows.append(Flow(source, None, instance.port))
                else:
                    outside.append(OutsideNetworks(source, instance.existing.cidrs, instance.port))
            continue
        flows += _redis_flows(superset, instance, redis[instance.name], sentinels.get(instance.name))
        if instance.carries_broker:
            flows += _clients(scraped, instance, redis[instance.name], sentinels.get(instance.name))
        if instance.carries_broker and any(pool.scaling and pool.scaling.kind == "keda" for pool in topology.pools):
            flows += _clients(operators.keda, instance, redis[instance.name], sentinels.get(instance.name))
    return NetworkPoliciesArgs(scope, flows, outside)


def _redis_flows(superset: Group, instance: RedisInstance, redis: Redis, sentinel: Sentinel | None) -> list[Flow]:
    flows = _clients(superset, instance, redis, sentinel)
    servers = Group(instance.name, redis.match)
    if instance.replicas:
        flows.append(Flow(servers, servers, instance.port))
    if sentinel:
        sentinels = Group(sentinel_name(instance), sentinel.match)
        flows += [
            Flow(servers, sentinels, SENTINEL_PORT),
            Flow(sentinels, sentinels, SENTINEL_PORT),
            Flow(sentinels, servers, instance.port),
        ]
    return flows


def _clients(source: Group | str, instance: RedisInstance, redis: Redis, sentinel: Sentinel | None) -> list[Flow]:
    flows = [Flow(source, Group(instance.name, redis.match), instance.port)]
    if sentinel:
        flows.append(Flow(source, Group(sentinel_name(instance), sentinel.match), SENTINEL_PORT))
    return flows


def _outputs(
    topology: Topology, namespace: Namespace, secrets: Secrets, web: WebTier, route: WebRoute | None
) -> dict[str, pulumi.Input[object]]:
    port = topology.web.port
    where = pulumi.Output.all(namespace=namespace.namespace, service=web.service, secret=secrets.init.name)
    return {
        "namespace": namespace.namespace,
        "url": route.url if route else where.apply(lambda known: _inside(known, port)),
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
        **_certificates(topology),
    }


def _certificates(topology: Topology) -> dict[str, pulumi.Input[object]]:
    """What the certificate must say that the stack's Redis servers show; empty without one."""
    ours = [instance for instance in topology.redis if instance.tls and not instance.existing]
    names = [name for instance in ours for name in certificate_names(instance, topology.namespace)]
    return {"redis_certificate_names": names} if names else {}


def _inside(known: Mapping[str, str], port: int) -> str:
    """The web tier's URL for what runs in the cluster."""
    return f"http://{known['service']}.{known['namespace']}.svc:{port}"
