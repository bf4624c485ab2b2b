"""The `aws` platform: what AWS runs of a topology, and then the workloads on its EKS cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pulumi
import pulumi_aws as aws
from pulumi_kubernetes import Provider
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.yaml import v2 as manifests

from components.aws import alarms
from components.aws.alarms import Alarms, AlarmsArgs
from components.aws.cluster import (
    DNS_ADDRESS,
    Cluster,
    ClusterArgs,
    ClusterRef,
)
from components.aws.common import AwsScope, CustomerKey, CustomerKeyArgs, logs_may_use
from components.aws.identity import PodIdentity, PodIdentityArgs
from components.aws.load_balancer import WebLoadBalancer, WebLoadBalancerArgs
from components.aws.network import Network, NetworkArgs, NetworkRef
from components.aws.postgres import Rds, RdsArgs
from components.aws.redis import ElastiCache, ElastiCacheArgs
from components.aws.registry import Registry, RegistryArgs
from components.aws.results_bucket import ResultsBucket, ResultsBucketArgs
from components.common import Scope, labels
from components.configuration import POSTGRES, POSTGRES_SECRET
from components.network import Group, InsideNetworks, NetworkPolicies, NetworkPoliciesArgs
from components.redis_access import PasswordRef, RedisAccess
from components.secrets import Secrets
from components.web import proxy_seconds
from infra import kubernetes, workloads
from infra.workloads import BEAT, INIT, Given, Stores, Workloads
from topology.aws.model import Aws
from topology.model import PROCESS_ROLES, RedisInstance, RedisRole, Topology
from topology.problems import Problem
from topology.settings.network import Resolver

#: Whom the data stores let in, for the descriptions of rules.
CLUSTER = "cluster"
#: Where web pods say that they live, and the seconds that their load balancer waits beyond the web tier's own limit.
HEALTH_PATH = "/health"


def check(topology: Topology) -> Iterator[Problem]:
    """What keeps a topology from running there, beyond the rules of its platform."""
    yield from kubernetes.check(topology)


def deploy(topology: Topology, given: Given) -> dict[str, pulumi.Input[object]]:
    """Make every resource of `topology`, as `infra.platforms.Deployment` has it."""
    planned = topology.on_aws()
    account = AwsScope(topology.stack, planned.account, planned.region)
    there = pulumi.ResourceOptions(providers=[_provider(planned)])
    logs_key = CustomerKey("logs", CustomerKeyArgs(account, "Logs", [logs_may_use(account)]), there)
    network = _network(planned, account, logs_key, there)
    cluster = _cluster(planned, account, network, logs_key, there)

    on_cluster = pulumi.ResourceOptions(providers=[_kubernetes_provider(cluster)])
    namespace, scope, secrets = workloads.foundation(topology, given, opts=on_cluster)
    ours = [instance for instance in topology.redis if not instance.existing]
    clients = {CLUSTER: cluster.security_group_id}
    redis = {
        instance.name: ElastiCache(
            instance.name,
            ElastiCacheArgs(
                account,
                planned.group(instance.name),
                instance,
                network,
                clients,
                {user.role: secrets.redis_passwords[user.role] for user in instance.users},
                logs_key.arn,
            ),
            there,
        )
        for instance in ours
    }
    postgres = (
        Rds(
            "postgres",
            RdsArgs(account, planned.postgres, topology.postgres, network, clients, secrets.postgres_password, logs_key.arn),
            there,
        )
        if planned.postgres
        else None
    )
    bucket = (
        ResultsBucket("results", ResultsBucketArgs(account, planned.bucket, planned.result_days), there)
        if planned.bucket
        else None
    )
    registry = Registry("image", RegistryArgs(account, planned.repository), there) if planned.repository else None
    identities = _identities(topology, account, cluster, (bucket, postgres), there)
    alarm_topic = Alarms("alarms", AlarmsArgs(account, _alarms(topology, planned), planned.alarm_emails), there)

    stores = Stores(
        accesses={instance.name: _access(instance, redis, secrets) for instance in topology.redis},
        servers=[*redis.values(), *([postgres] if postgres else []), *identities],
        hosts={
            **{name: server.host for name, server in redis.items()},
            **({POSTGRES: postgres.host} if postgres else {}),
            **({POSTGRES_SECRET: postgres.secret_arn} if postgres and postgres.secret_arn else {}),
        },
    )
    prepared = pulumi.ResourceOptions.merge(
        on_cluster, pulumi.ResourceOptions(depends_on=_prepare_cluster(planned, scope, on_cluster))
    )
    made = workloads.deploy(topology, scope, secrets, stores, given=given, opts=prepared)
    way_in = (
        WebLoadBalancer(
            "web-route",
            WebLoadBalancerArgs(
                scope,
                planned.load_balancer,
                planned.controller,
                made.web.service,
                topology.web.port,
                HEALTH_PATH,
                proxy_seconds(topology.web),
            ),
            on_cluster,
        )
        if planned.load_balancer
        else None
    )
    NetworkPolicies("allow", _policies(topology, planned, scope, made), on_cluster)
    return {
        **workloads.outputs(topology, namespace, secrets, made.web, way_in.url if way_in else None),
        "cluster": cluster.name,
        "alarm_topic": alarm_topic.topic_arn,
        **({"repository": registry.url} if registry else {}),
        **({"results_bucket": bucket.bucket} if bucket else {}),
    }


def _provider(planned: Aws) -> aws.Provider:
    """AWS itself: one region, and no account but the stack's, whatever credentials are at hand."""
    return aws.Provider(
        "aws",
        region=planned.region,  # type: ignore[arg-type] the SDK's enumeration lags behind the regions
        allowed_account_ids=[planned.account],
        default_tags=aws.ProviderDefaultTagsArgs(tags=planned.tags),
    )


def _network(planned: Aws, account: AwsScope, logs_key: CustomerKey, there: pulumi.ResourceOptions) -> NetworkRef:
    existing = planned.network.existing
    if existing:
        return NetworkRef(existing.vpc_id, planned.network.cidr, existing.subnet_ids)
    return Network(account.stack, NetworkArgs(account, planned.network, logs_key.arn), there).ref


def _cluster(
    planned: Aws, account: AwsScope, network: NetworkRef, logs_key: CustomerKey, there: pulumi.ResourceOptions
) -> ClusterRef:
    existing = planned.cluster.existing
    if existing:
        return ClusterRef(existing.name, existing.security_group_id, None)
    return Cluster(account.stack, ClusterArgs(account, planned.cluster, network, logs_key.arn), there).ref


def _kubernetes_provider(cluster: ClusterRef) -> Provider:
    """The API server of the stack's own cluster; of one that exists, what the `kubernetes:` keys or the environment say."""
    if cluster.kubeconfig is None:
        return kubernetes.provider()
    return Provider("cluster", kubeconfig=cluster.kubeconfig, enable_config_map_mutable=True, enable_secret_mutable=True)


def _prepare_cluster(planned: Aws, scope: Scope, on_cluster: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """What a cluster of the stack's own needs before workloads come: enforced network policies, and KEDA."""
    if planned.cluster.existing:
        return []
    found: list[pulumi.Resource] = []
    if planned.cluster.compute == "auto":
        # Without this Auto Mode stores NetworkPolicies and does not enforce them.
        found.append(
            core.ConfigMap(
                "enforce-network-policies",
                metadata=meta.ObjectMetaArgs(
                    name="amazon-vpc-cni",
                    namespace="kube-system",
                    labels=labels(scope, "amazon-vpc-cni", "network-policies"),
                ),
                data={"enable-network-policy-controller": "true"},
                opts=on_cluster,
            )
        )
    if planned.cluster.keda_manifest:
        found.append(manifests.ConfigFile("keda", file=planned.cluster.keda_manifest, opts=on_cluster))
    return found


def _identities(
    topology: Topology,
    account: AwsScope,
    cluster: ClusterRef,
    stores: tuple[ResultsBucket | None, Rds | None],
    there: pulumi.ResourceOptions,
) -> list[PodIdentity]:
    """The roles of pods, one a service account, since EKS takes no second one.

    Web and workers read and write results, and who connects to the metadata database reads its password where RDS keeps it.
    """
    bucket, postgres = stores
    password = postgres.statements if postgres else ()
    runners = [topology.web.host, *(f"worker-{pool.name}" for pool in topology.pools)]
    wanted = (
        ("results-access", runners, "Web and workers read and write query results", bucket.statements if bucket else ()),
        ("metadata-access", [BEAT, INIT], "Beat and the init job use the metadata database", ()),
    )
    return [
        PodIdentity(
            name,
            PodIdentityArgs(account, cluster.name, topology.namespace, pods, description, [*own, *password]),
            there,
        )
        for name, pods, description, own in wanted
        if own or password
    ]


def _alarms(topology: Topology, planned: Aws) -> list[alarms.Alarm]:
    of_redis = [
        alarm
        for group in planned.redis
        for alarm in alarms.of_redis(group, broker=topology.instance(group.instance).carries_broker)
    ]
    of_postgres = alarms.of_postgres(planned.postgres, topology.postgres.max_connections) if planned.postgres else []
    return [*of_redis, *of_postgres]


def _access(instance: RedisInstance, redis: Mapping[str, ElastiCache], secrets: Secrets) -> RedisAccess:
    """Where clients of `instance` find it and their passwords: all of ours are in the Secret of all processes."""
    if instance.existing:
        return kubernetes.existing_access(instance, secrets)
    held = {
        user.role: secrets.app if user.role in PROCESS_ROLES else secrets.readers or secrets.app for user in instance.users
    }
    passwords: dict[RedisRole, PasswordRef] = {
        user.role: PasswordRef(held[user.role].name, user.password_env, held[user.role].fingerprint)
        for user in instance.users
    }
    return RedisAccess(instance, passwords, redis[instance.name].host)


def _policies(topology: Topology, planned: Aws, scope: Scope, made: Workloads) -> NetworkPoliciesArgs:
    """Who may talk to whom; the data stores are in the VPC, whose firewalls open a port each to the cluster."""
    vpc = [planned.network.cidr]
    return NetworkPoliciesArgs(
        scope,
        workloads.flows(topology, made),
        workloads.outside(topology, made),
        # A load balancer's addresses are in the VPC.
        inside=[InsideNetworks(vpc, Group("web", made.web.match), topology.web.port)] if planned.load_balancer else [],
        resolvers=[
            *topology.resolvers,
            *([Resolver(cidrs=(DNS_ADDRESS,))] if planned.cluster.existing is None else []),
        ],
    )
