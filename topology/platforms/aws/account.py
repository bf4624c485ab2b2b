"""The account and what it calls things: known values, lengths of names, the registry, the way in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from topology.aws import catalogue
from topology.model import Topology
from topology.platforms.aws.decisions import settings_of
from topology.problems import Problem, did_you_mean
from topology.settings import Settings
from topology.settings.aws import AwsSettings

#: Names that AWS makes of a stack's: what is put behind it, and how long the whole may be.
NAMES = {
    "replication group": ("-broker", 40),
    "user of a replication group": ("-broker-broker", 40),
    "RDS instance": ("-metadata", 63),
    "bucket": ("-results-123456789012", 63),
}


def values_exist(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Regions, versions, node types and instance classes are ones that AWS has (`topology.aws.catalogue`)."""
    given = settings_of(settings)
    known: list[tuple[str, str, Sequence[str]]] = [("aws.region", given.region, catalogue.REGIONS)]
    ours = {key: redis for key, redis in settings.redis.servers().items() if not redis.existing}
    if ours:
        known.append(("aws.redis.engine_version", given.redis.engine_version, tuple(catalogue.VALKEY)))
    for key in ours:
        wanted = given.redis.broker if key == "redis.broker" else given.redis.cache
        known.append((f"aws.{key}.node_type", wanted.node_type, tuple(catalogue.NODE_MEMORY)))
    if settings.postgres.kind == "rds":
        known += [
            ("aws.postgres.engine_version", given.postgres.engine_version, tuple(catalogue.POSTGRESQL)),
            ("aws.postgres.instance_class", given.postgres.instance_class, tuple(catalogue.CLASS_MEMORY)),
        ]
    if given.cluster.existing is None:
        known.append(("aws.cluster.version", given.cluster.version, catalogue.KUBERNETES))
        known += [("aws.cluster.instance_types", each, tuple(catalogue.INSTANCES)) for each in given.cluster.instance_types]
    for key, value, values in known:
        if value not in values:
            rule = f"is none that this project knows of AWS ({catalogue.AS_OF})"
            yield Problem(key, repr(value), rule, did_you_mean(value, values))


def names_fit(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """What AWS calls by the stack's name takes it: its length, and its letters."""
    for what, (ending, most) in NAMES.items():
        name = f"{topology.stack}{ending}"
        if len(name) > most:
            yield Problem(
                "the stack's name",
                topology.stack,
                f"makes {name!r}, the name of a {what}, longer than {most} letters",
                "Choose a shorter name for the stack",
            )
    if "--" in topology.stack or not topology.stack.replace("-", "").isalnum() or topology.stack.lower() != topology.stack:
        yield Problem(
            "the stack's name",
            topology.stack,
            "must be lower-case letters and digits with single '-' between them: ElastiCache takes no other",
            "Choose another name for the stack",
        )


def account_is_given(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Which account it is, is no matter of the credentials that happen to be at hand."""
    given = settings_of(settings)
    if given.account is None:
        yield Problem(
            "aws.account", "null", "must be the number of the AWS account", "aws sts get-caller-identity prints it"
        )
    elif given.repository and not topology.images.superset.startswith(registry(given) + "/"):
        yield Problem(
            "images.superset",
            topology.images.superset,
            f"is not in the stack's own repository: nodes pull from {registry(given)}/{given.repository}",
            f"Write it as in {registry(given)}/{given.repository}:6.1.0-1, or set aws.repository to null",
            also=("aws.account", "aws.region", "aws.repository"),
        )
    balancer = given.load_balancer
    if balancer and f":acm:{given.region}:" not in balancer.certificate_arn:
        yield Problem(
            "aws.load_balancer.certificate_arn",
            balancer.certificate_arn,
            f"is not in region {given.region}, and a load balancer takes only its own region's",
            "Request the certificate there",
            also=("aws.region",),
        )
    if balancer and not balancer.cidrs:
        yield Problem("aws.load_balancer.cidrs", "[]", "lets nobody connect", "Name the networks of its users")


def registry(given: AwsSettings) -> str:
    """The host of the account's ECR registry."""
    return f"{given.account}.dkr.ecr.{given.region}.amazonaws.com"


def way_in_is_aws_own(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The load balancer is the way in; and the bucket of results is the platform's to name."""
    if settings.web.route is not None:
        yield Problem("web.route", "…", "is not for platform aws", "Set it to null, and use aws.load_balancer")
    if settings.caching.bucket is not None:
        yield Problem(
            "caching.bucket",
            "…",
            "is not for platform aws, which makes one of its own",
            "Set it to null: aws.results decides",
        )
    if settings.caching.spill is not None and settings_of(settings).results == "s3":
        yield Problem(
            "caching.spill",
            "…",
            "would keep only charts' data: SQL Lab's rows are in the bucket, whatever their size",
            "Set it to null, or aws.results to redis",
            also=("aws.results",),
        )
