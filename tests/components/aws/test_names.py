"""Names that AWS's API takes as any text: against a real Valkey and PostgreSQL, or else the dated table `paper`, both ways."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from components.aws import postgres
from infra.recording import Resource
from local import binaries
from tests.components.aws import paper
from tests.components.aws.calls import documents
from tests.components.aws.stacks import STACKS, of_kind, on_aws, recorded, topology_of
from topology.aws import catalogue
from topology.aws.model import Aws

pytestmark = pytest.mark.thorough

PREFIX = "alb.ingress.kubernetes.io/"


def all_of(kind: str) -> list[Resource]:
    """The resources of a kind in every stack."""
    return [each for stack in STACKS for each in of_kind(stack, kind)]


def parameters(service: str) -> dict[str, str]:
    """All parameters of a service's parameter groups, by name."""
    return {
        each["name"]: each["value"]
        for group in all_of("ParameterGroup")
        if group.type.startswith(f"aws:{service}/")
        for each in group.inputs["parameters"]
    }


def principals() -> set[str]:
    """The services that are named in trust policies and in policies of keys, without their ending."""
    named = {
        statement["Principal"]["Service"]
        for stack in STACKS
        for resource in on_aws(stack)
        for document in documents(resource)
        for statement in document["Statement"]
        if isinstance(statement.get("Principal"), dict) and "Service" in statement["Principal"]
    }
    short = {each.removesuffix(".amazonaws.com") for each in named}
    return {"logs.REGION" if each.startswith("logs.") else each for each in short}


def in_cluster(kind: str) -> list[Mapping[str, Any]]:
    """Kubernetes objects of a kind in every stack."""
    return [each.inputs for stack in STACKS for each in recorded(stack).resources if each.type.endswith(f":{kind}")]


def of_auto_mode() -> Iterable[str]:
    for each in in_cluster("ConfigMap"):
        metadata = each["metadata"]
        if metadata.get("namespace") == "kube-system":
            yield from (f"kube-system/{metadata['name']}: {key}" for key in each["data"])


def used() -> dict[str, set[str]]:
    """The names of each kind that the stacks use."""
    planned: list[Aws] = [topology_of(stack).on_aws() for stack in STACKS]
    clusters = [each.inputs for each in all_of("Cluster")]
    annotations = [each["metadata"].get("annotations", {}) for each in in_cluster("Ingress")]
    services = {
        each.inputs["serviceName"].removeprefix(f"com.amazonaws.{region}.")
        for stack, region in zip(STACKS, (each.region for each in planned), strict=True)
        for each in of_kind(stack, "VpcEndpoint")
    }
    attributes = [each[f"{PREFIX}load-balancer-attributes"] for each in annotations]
    return {
        "parameter of ElastiCache": set(parameters("elasticache")) - set(VALKEY_DIRECTIVES),
        "parameter of RDS": {name for name in parameters("rds") if name.startswith("rds.")},
        # Whatever of the catalogue a stack names.
        "family of parameters": {*catalogue.VALKEY.values(), *catalogue.POSTGRESQL.values()},
        "add-on of EKS": {each.inputs["addonName"] for each in all_of("Addon")},
        "setting of the VPC CNI": {
            key for each in all_of("Addon") for key in json.loads(each.inputs.get("configurationValues") or "{}")
        },
        "ConfigMap of Auto Mode": set(of_auto_mode()),
        "node pool of Auto Mode": {
            pool for each in clusters for pool in (each.get("computeConfig") or {}).get("nodePools", ())
        },
        "access policy of EKS": {each.inputs["policyArn"].rpartition("/")[2] for each in all_of("AccessPolicyAssociation")},
        "version of Kubernetes": set(catalogue.KUBERNETES),
        "endpoint of a VPC": services,
        "service that assumes a role or uses a key": principals(),
        "metric": {
            " ".join((each.inputs["namespace"], each.inputs["metricName"], *each.inputs["dimensions"]))
            for each in all_of("MetricAlarm")
        },
        "path of a log group that a service writes to": {
            each.inputs["name"].replace(stack, "STACK")
            for stack in STACKS
            for each in of_kind(stack, "LogGroup")
            # The others are named to the service that writes to them.
            if each.inputs["name"].startswith(("/aws/eks/", "/aws/rds/"))
        },
        "annotation of an Ingress": {key for each in annotations for key in each if key.startswith(PREFIX)},
        "attribute of a load balancer": {part.partition("=")[0] for text in attributes for part in text.split(",")},
        "policy of TLS": {each[f"{PREFIX}ssl-policy"] for each in annotations},
        "controller of an IngressClass": {
            f"{owner['spec']['controller']}, {params['kind']} of {params['apiVersion']}"
            for owner in in_cluster("IngressClass")
            for params in in_cluster("IngressClassParams")
            if owner["spec"]["parameters"]["name"] == params["metadata"]["name"]
        },
        "tag of a subnet": {tag for each in all_of("Subnet") for tag in each.inputs["tags"] if tag != "Name"},
        "storage of RDS": {each.inputs["storageType"] for each in all_of("Instance")},
        "authority of RDS's certificates": {each.inputs["caCertIdentifier"] for each in all_of("Instance")},
    }


#: Parameters of ElastiCache that are the server's own directives: a real one is asked.
VALKEY_DIRECTIVES = ("maxmemory-policy", "cluster-enabled", "min-replicas-to-write", "min-replicas-max-lag")


@pytest.mark.parametrize("kind", sorted(paper.NAMES))
def test_what_is_paper_is_what_the_table_says(kind: str) -> None:
    """A typo is not in it; and what nothing names any more goes from it."""
    assert used()[kind] == set(paper.NAMES[kind])


def test_every_kind_is_compared() -> None:
    assert set(used()) == set(paper.NAMES)


def valkey_refuses(directives: Mapping[str, str]) -> str:
    """What a real server says of these directives; empty where it takes them all.

    It reads them in order, and ends at a last one that none knows.
    """
    text = "".join(f"{name} {value}\n" for name, value in directives.items())
    done = subprocess.run(
        [str(binaries.valkey_server()), "-"],
        input=f"{text}no-such-directive yes\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert "FATAL CONFIG FILE ERROR" in said
    return "" if "no-such-directive" in said else said


@pytest.mark.services
def test_elasticaches_parameters_are_directives_that_a_real_server_takes() -> None:
    tried = 0
    for group in all_of("ParameterGroup"):
        if group.type.startswith("aws:elasticache/"):
            given = {each["name"]: each["value"] for each in group.inputs["parameters"]}
            ours = {name: value for name, value in given.items() if name in VALKEY_DIRECTIVES}
            assert valkey_refuses(ours) == ""
            tried += len(ours)
    assert tried > len(STACKS)
    for name, value in (("maxmemory-policy", "no-eviction"), ("min-replicas-to-writ", "1"), ("min-replicas-max-lag", "x")):
        assert valkey_refuses({name: value}) != "", name


@pytest.mark.services
def test_rds_s_parameters_are_settings_that_a_real_server_has() -> None:
    """Their names, ranges, and which of them take effect only by a restart: from PostgreSQL's own list."""
    done = subprocess.run(
        [str(binaries.postgres_program("postgres")), "--describe-config"], capture_output=True, text=True, check=True
    )
    # Name, context, group, type, default, least, most.
    known = {line.split("\t")[0]: line.split("\t") for line in done.stdout.splitlines()}
    ours = {name: value for name, value in parameters("rds").items() if not name.startswith("rds.")}
    assert ours
    for name, value in ours.items():
        _, context, _, kind, default, least, most, *_ = known[name]
        assert (context == "postmaster") == (name in postgres.STATIC_PARAMETERS), name
        if kind == "INTEGER":
            assert int(least) <= int(value) <= int(most), name
        else:
            # Of an enumeration the list has the default alone, which is ours.
            assert (kind, value) == ("ENUM", default), name


@pytest.mark.parametrize("stack", STACKS)
def test_access_strings_name_nothing_that_elasticache_does_not_take(stack: str) -> None:
    """By its documentation: no password and no command that is not there. A real Valkey takes the same lists in the cluster."""
    for user in of_kind(stack, "User"):
        words = str(user.inputs["accessString"]).split()
        assert words[0] == "on"
        commands = {word.lstrip("+-").partition("|")[0] for word in words if word[0] in "+-"}
        assert commands.isdisjoint(paper.RESTRICTED_COMMANDS)
        assert set(words).isdisjoint(paper.RESTRICTED_WORDS)
        assert not any(word.startswith((">", "<", "#", "!", "(")) for word in words)


def test_the_stacks_say_every_kind_of_cluster() -> None:
    """So that no name is left out of the comparison: both kinds of compute, and a controller of the cluster's own."""
    planned = [topology_of(stack).on_aws() for stack in STACKS]
    assert {each.cluster.compute for each in planned} == {"auto", "managed"}
    assert {each.controller for each in planned if each.load_balancer} == {"auto", "controller"}
