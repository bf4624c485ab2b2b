"""The `kubernetes` platform: which components a topology becomes, and in which order they are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pulumi
from pulumi_kubernetes import Provider

from components.backup import MetadataBackup, MetadataBackupArgs
from components.common import PREFIX, Scope
from components.network import Flow, Group, NetworkPolicies, NetworkPoliciesArgs, Outside
from components.postgres import SUPERUSER, PostgresArgs, PostgresServer
from components.postgres import certificate_names as postgres_names
from components.postgres_cluster import PORT as CLUSTER_PORT
from components.postgres_cluster import PostgresCluster, cluster_flows
from components.redis import Redis, RedisArgs, certificate_names, sentinel_name
from components.redis_access import PASSWORD, PasswordRef, RedisAccess
from components.redis_users import password_key
from components.route import WebRoute, WebRouteArgs
from components.secrets import Secrets
from components.sentinel import Sentinel, SentinelArgs
from infra import workloads
from infra.workloads import Given, Stores, Workloads
from topology import egress
from topology.model import SENTINEL_PORT, RedisInstance, Topology
from topology.problems import Problem
from topology.server_tls import is_given

#: Where API servers listen: behind a load balancer, and kubeadm's own.
_API_SERVER_PORTS = (443, 6443)
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


def deploy(topology: Topology, given: Given) -> dict[str, pulumi.Input[object]]:
    """Make every resource of `topology`; what a person needs to know of them, by the name of a stack output.

    The metadata database is prepared before web, workers and beat start.
    """
    here = pulumi.ResourceOptions(providers=[provider()])
    namespace, scope, secrets = workloads.foundation(topology, given, opts=here)
    ours = [instance for instance in topology.redis if not instance.existing]
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
    postgres = _postgres(topology, scope, secrets, here)
    servers = [*redis.values(), *sentinels.values(), *([postgres] if postgres else [])]
    made = workloads.deploy(topology, scope, secrets, Stores(accesses, servers), given=given, opts=here)
    route = (
        WebRoute("web-route", WebRouteArgs(scope, topology.web.route, made.web.service, topology.web), here)
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
    NetworkPolicies(
        "allow",
        _network(topology, scope, made, redis=redis, sentinels=sentinels, postgres=postgres, backup=backup),
        here,
    )
    return {
        **workloads.outputs(topology, namespace, secrets, made.web, route.url if route else None),
        **_certificates(topology),
    }


def provider() -> Provider:
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
    """Where clients of `instance` find their passwords: in its own Secret, or where an existing server's is."""
    if instance.existing:
        return existing_access(instance, secrets)
    ours = redis[instance.name]
    return RedisAccess(
        instance,
        {user.role: PasswordRef(ours.secret, password_key(user.role), ours.fingerprint) for user in instance.users},
    )


def existing_access(instance: RedisInstance, secrets: Secrets) -> RedisAccess:
    """Where clients of an existing server find its password: in the Secret of a given one, or in one that somebody else keeps."""
    kept = instance.existing.password_secret_name if instance.existing else None
    password = PasswordRef(kept, PASSWORD, "") if kept else secrets.existing_redis[instance.name]
    return RedisAccess(instance, {user.role: password for user in instance.users})


def _postgres(
    topology: Topology, scope: Scope, secrets: Secrets, opts: pulumi.ResourceOptions
) -> PostgresServer | PostgresCluster | None:
    if secrets.postgres_password is None:
        raise ValueError("only AWS keeps the metadata database's password outside the stack's secrets")
    args = PostgresArgs(scope, topology.postgres, topology.images, secrets.postgres_password)
    match topology.postgres.kind:
        case "statefulset":
            return PostgresServer(topology.postgres.host, args, opts)
        case "cloudnativepg":
            return PostgresCluster(topology.postgres.host, args, opts)
        case "existing" | "rds":
            return None


def _network(
    topology: Topology,
    scope: Scope,
    made: Workloads,
    *,
    redis: Mapping[str, Redis],
    sentinels: Mapping[str, Sentinel],
    postgres: PostgresServer | PostgresCluster | None,
    backup: MetadataBackup | None,
) -> NetworkPoliciesArgs:
    superset = workloads.superset_pods(topology)
    port, operators = topology.postgres.port, topology.operator_namespaces
    database = Group("postgres", postgres.match) if postgres else None
    scraped = Group("exporter", made.exporter.match)
    flows = workloads.flows(topology, made)
    if database:
        flows.append(Flow(superset, database, port))
    if backup and database:
        flows.append(Flow(Group("postgres-backup", backup.match), database, port))
    if isinstance(postgres, PostgresCluster) and database:
        flows += cluster_flows(database, operators.cloudnativepg)
    for instance in topology.redis:
        if instance.existing:
            continue
        flows += _redis_flows(superset, instance, redis[instance.name], sentinels.get(instance.name))
        if instance.carries_broker:
            flows += _clients(scraped, instance, redis[instance.name], sentinels.get(instance.name))
        if instance.carries_broker and any(pool.scaling and pool.scaling.kind == "keda" for pool in topology.pools):
            flows += _clients(operators.keda, instance, redis[instance.name], sentinels.get(instance.name))
    outside = workloads.outside(topology, made)
    if isinstance(postgres, PostgresCluster) and database:
        # CloudNativePG's servers ask the API server, which is on the nodes or anywhere else.
        networks = {cidr: egress.at_the_node(cidr) for cidr in topology.api_server_cidrs}
        outside.append(Outside(database, _API_SERVER_PORTS, networks))
    return NetworkPoliciesArgs(scope, flows, outside, resolvers=topology.resolvers)


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


def _certificates(topology: Topology) -> dict[str, pulumi.Input[object]]:
    """What the certificates must say that somebody else makes for the stack's servers; empty without one."""
    given = [each for each in topology.redis if is_given(each.tls)]
    redis = [name for instance in given for name in certificate_names(instance, topology.namespace)]
    postgres = postgres_names(topology.postgres, topology.namespace) if is_given(topology.postgres.tls) else []
    return {
        **({"redis_certificate_names": redis} if redis else {}),
        **({"postgres_certificate_names": postgres} if postgres else {}),
    }
