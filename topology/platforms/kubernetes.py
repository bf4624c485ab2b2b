"""The `kubernetes` platform: servers are Services of the stack's namespace, and workers and web pods come and go."""

from __future__ import annotations

import re
from collections.abc import Iterator

from topology import egress
from topology.model import Topology
from topology.platforms.elsewhere import not_on_aws
from topology.platforms.platform import Address, Platform
from topology.problems import Problem
from topology.settings import Settings

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
#: A ConfigMap's limit of 1 MiB, less its metadata and hosts that are longer than planned.
CONFIG_MAP_BYTES = 2**20 - 16 * 2**10
REDIS_PORT = 6379
WEB_PORT = 8088
EXPORTER_PORT = 9808


def no_sample_database(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The sample database is one that `make up` fills; a cluster has none."""
    for name, database in settings.databases.items():
        if database.sample:
            yield Problem(f"databases.{name}.sample", "true", "is for platform local only", "Remove it", also=("platform",))


def stack_is_a_label(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Every object and every selector has the stack's name as the value of a label."""
    if not _LABEL_VALUE.fullmatch(topology.stack):
        yield Problem(
            "stack",
            topology.stack,
            "is no value of a label: at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends",
            "Rename the stack (pulumi stack rename), and its file",
            also=("platform",),
        )


def namespace_is_the_stacks_own(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The stack denies by default in its namespace, and deletes it when it goes: nobody else may live there."""
    operators = topology.operator_namespaces
    taken = {
        "default": "that every cluster has",
        operators.keda: "of network.operator_namespaces.keda",
        operators.cloudnativepg: "of network.operator_namespaces.cloudnativepg",
    }
    whose = "of Kubernetes itself" if topology.namespace.startswith("kube-") else taken.get(topology.namespace)
    if whose:
        yield Problem(
            "namespace",
            topology.namespace,
            f"is the namespace {whose}: all traffic there but the stack's own would be denied",
            "Choose one for this stack alone",
            also=("network.operator_namespaces", "platform"),
        )


def user_of_the_image_is_known(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """PostgreSQL runs only as a user that its image knows, and images on Alpine have another than those on Debian."""
    images = settings.images
    tag = images.postgres.rpartition("/")[2].partition("@")[0].partition(":")[2]
    ours = settings.postgres.kind in ("statefulset", "cloudnativepg")
    if ours and images.postgres_user is None and any(word.startswith("alpine") for word in tag.split("-")):
        yield Problem(
            "images.postgres",
            images.postgres,
            "is on Alpine by its tag, where the user postgres is not 999",
            "Say images.postgres_user: 70 (id -u postgres in the image)",
            also=("images.postgres_user", "platform"),
        )


def names_are_resolved(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Pods that may ask no resolver find neither Redis nor PostgreSQL."""
    if not topology.resolvers:
        yield Problem(
            "network.dns",
            "[]",
            "lets no pod resolve a name",
            "Name the cluster's resolvers, or their networks in network.dns_cidrs",
            also=("network.dns_cidrs",),
        )


def configuration_fits(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The topology is a ConfigMap, which holds 1 MiB; its hosts may still grow by what is known only once they are made."""
    size = len(topology.model_dump_json(indent=2))
    if size > CONFIG_MAP_BYTES:
        yield Problem(
            "tenants",
            f"{len(topology.tenants)} tenants",
            f"make a configuration of {size // 2**10} KiB; a ConfigMap holds {CONFIG_MAP_BYTES // 2**10} KiB",
            "Give fewer tenants a pool of their own, or split the stack",
            also=("pools", "databases"),
        )


def spilled_results_have_a_volume(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Pods share no folder but a volume."""
    spill = settings.caching.spill
    if spill is not None and spill.claim is None:
        yield Problem(
            "caching.spill.claim",
            "null",
            "must name a volume claim on Kubernetes: a pod's own folder is not seen by the others",
            "Name an existing claim with ReadWriteMany, or set caching.spill to null",
            also=("caching.spill", "platform"),
        )


def no_bucket(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Pods have no credentials for one; on AWS the platform gives them both."""
    if settings.caching.bucket is not None:
        yield Problem(
            "caching.bucket",
            settings.caching.bucket.name,
            "is not for platform kubernetes: pods have no credentials for it",
            "Set it to null; caching.spill keeps large results on a volume",
            also=("platform",),
        )


def _redis_address(settings: Settings, name: str, index: int) -> Address:
    return Address(name, REDIS_PORT)


def _postgres_address(settings: Settings) -> Address:
    return Address(settings.postgres.host or "postgres", settings.postgres.port)


def _web_address(settings: Settings) -> Address:
    return Address("web", WEB_PORT)


def _exporter_address(settings: Settings) -> Address:
    return Address("exporter", EXPORTER_PORT)


KUBERNETES = Platform(
    # A pod's own addresses, of both families where it has them, behind network policies.
    bind="::",
    behind_proxy=True,
    elastic_workers=False,
    redis_address=_redis_address,
    postgres_address=_postgres_address,
    web_address=_web_address,
    exporter_address=_exporter_address,
    rules=(
        no_sample_database,
        spilled_results_have_a_volume,
        no_bucket,
        not_on_aws,
        stack_is_a_label,
        user_of_the_image_is_known,
        names_are_resolved,
        configuration_fits,
        namespace_is_the_stacks_own,
        egress.peers_are_known,
        egress.nodes_stay_closed,
    ),
)
