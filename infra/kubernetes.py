"""The `kubernetes` platform: which components a topology becomes, and in which order they are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pulumi

from components.beat import BeatScheduler, BeatSchedulerArgs
from components.common import PREFIX, SUPERSET, Scope
from components.configuration import Configuration, ConfigurationArgs
from components.initialization import Initialization, InitializationArgs
from components.namespace import Namespace, NamespaceArgs
from components.network import Flow, Group, NetworkPolicies, NetworkPoliciesArgs, OutsideNetworks
from components.postgres import SUPERUSER, PostgresArgs, PostgresServer
from components.redis import Redis, RedisArgs, sentinel_name
from components.secrets import ADMIN_PASSWORD, Secrets, SecretsArgs
from components.sentinel import Sentinel, SentinelArgs
from components.superset import SupersetArgs
from components.web import WebTier, WebTierArgs
from components.workers import Workers, WorkersArgs
from infra.problems import Problem
from runtime import commands
from runtime.config.redis import SENTINEL_PORT
from runtime.model import RedisInstance, Topology

#: Analytic databases may be anywhere; who knows their networks narrows this down.
ANYWHERE = ("0.0.0.0/0", "::/0")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


def check(topology: Topology) -> Iterator[Problem]:
    """What keeps a topology from running on Kubernetes, beyond the invariants that hold everywhere."""
    if topology.platform != "kubernetes":
        yield Problem(
            "platform",
            topology.platform,
            "is not deployed by Pulumi: it runs as processes of this machine",
            f"Start it with make up STACK={topology.stack}, or set platform: kubernetes",
        )
        return
    if topology.postgres.kind == "statefulset" and topology.postgres.user == SUPERUSER:
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
) -> dict[str, pulumi.Input[object]]:
    """Make every resource of `topology`; what a person needs to know of them, by the name of a stack output.

    `database_uris` maps the environment variable of each analytic database to its URI; `postgres_password` is that of an
    existing server, else None. The metadata database is prepared before web, workers and beat start.
    """
    namespace = Namespace("namespace", NamespaceArgs(topology.namespace, topology.stack, topology.labels))
    scope = Scope(namespace.namespace, topology.stack, topology.labels)

    secrets = Secrets(
        "superset",
        SecretsArgs(
            scope,
            redis_password_envs={instance.name: instance.password_env for instance in topology.redis},
            postgres_password_env=topology.postgres.password_env,
            postgres_password=postgres_password,
            database_uris=database_uris,
        ),
    )
    redis = {
        instance.name: Redis(
            instance.name, RedisArgs(scope, instance, topology.images, secrets.redis_passwords[instance.name])
        )
        for instance in topology.redis
    }
    sentinels = {
        instance.name: Sentinel(
            sentinel_name(instance),
            SentinelArgs(scope, instance, topology.images, redis[instance.name].secret, redis[instance.name].fingerprint),
        )
        for instance in topology.redis
        if instance.sentinel
    }
    postgres = PostgresServer(
        topology.postgres.host if topology.postgres.kind == "statefulset" else "postgres",
        PostgresArgs(scope, topology.postgres, topology.images, secrets.postgres_password),
    )
    configuration = Configuration("superset-topology", ConfigurationArgs(scope, topology))
    superset = SupersetArgs(scope, topology.images, configuration.ref, secrets.app)
    initialization = Initialization(
        "superset-init",
        InitializationArgs(superset, secrets.init),
        pulumi.ResourceOptions(depends_on=[postgres, *redis.values(), *sentinels.values()]),
    )
    ready = pulumi.ResourceOptions(depends_on=[initialization])
    web = WebTier(topology.web.host, WebTierArgs(superset, topology.web, commands.web(topology)), ready)
    for pool in topology.pools:
        Workers(f"worker-{pool.name}", WorkersArgs(superset, pool, commands.worker(topology, pool)), ready)
    if topology.beat:
        BeatScheduler("beat", BeatSchedulerArgs(superset, topology.beat), ready)
    group = Group(SUPERSET, {"app.kubernetes.io/name": SUPERSET, "app.kubernetes.io/instance": topology.stack})
    NetworkPolicies(
        "allow",
        NetworkPoliciesArgs(
            scope,
            flows=[
                # An ingress controller's address is not known here, and a login page has to be reached.
                Flow(None, Group("web", web.match), topology.web.port),
                Flow(group, Group("postgres", postgres.match) if postgres.match else None, topology.postgres.port),
                *(
                    flow
                    for instance in topology.redis
                    for flow in _redis_flows(group, instance, redis[instance.name], sentinels.get(instance.name))
                ),
            ],
            outside=[OutsideNetworks(group, ANYWHERE)],
        ),
    )
    return _outputs(topology, namespace, secrets, web)


def _redis_flows(clients: Group, instance: RedisInstance, redis: Redis, sentinel: Sentinel | None) -> list[Flow]:
    servers = Group(instance.name, redis.match)
    flows = [Flow(clients, servers, instance.port)]
    if instance.replicas:
        flows.append(Flow(servers, servers, instance.port))
    if sentinel:
        sentinels = Group(sentinel_name(instance), sentinel.match)
        flows += [
            *(Flow(source, sentinels, SENTINEL_PORT) for source in (clients, servers, sentinels)),
            Flow(sentinels, servers, instance.port),
        ]
    return flows


def _outputs(topology: Topology, namespace: Namespace, secrets: Secrets, web: WebTier) -> dict[str, pulumi.Input[object]]:
    port = topology.web.port
    where = pulumi.Output.all(namespace=namespace.namespace, service=web.service, secret=secrets.init.name)
    return {
        "namespace": namespace.namespace,
        "url": where.apply(lambda known: f"http://{known['service']}.{known['namespace']}.svc:{port}"),
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
