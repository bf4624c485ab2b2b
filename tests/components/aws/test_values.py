"""Names and versions that botocore leaves free, against cfn-lint's schemas, which AWS's own API fills."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import cfnlint
import pytest
from botocore.model import StringShape
from cryptography import x509
from cryptography.x509.oid import NameOID

from components.aws import alarms, cluster, postgres, redis
from components.aws.common import AwsScope
from tests.components.aws.stacks import STACKS, of_kind, on_aws, topology_of
from topology import presets
from topology.aws import catalogue
from topology.platforms.aws import RDS_CA_FILE

pytestmark = pytest.mark.thorough

PROJECT = Path(__file__).resolve().parents[3]
SCHEMAS = Path(cfnlint.__file__).parent / "data" / "schemas" / "extensions"
SCOPE = AwsScope("s", "123456789012", "eu-central-1")


@cache
def schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


def versions(of: Any, engine: str) -> set[str]:
    """The versions that a schema has for an engine."""
    return {
        version
        for each in of["allOf"]
        if each["if"]["properties"]["Engine"].get("const") == engine
        for version in each["then"]["properties"].get("EngineVersion", {}).get("enum", ())
    }


def classes(region: str) -> set[str]:
    """Instance classes of PostgreSQL in a region."""
    return {
        name
        for each in schema("aws_rds_dbinstance/dbinstanceclass_enum.json")[region]["allOf"]
        if each["if"]["properties"]["Engine"].get("const") == "postgres"
        for name in each["then"]["properties"]["DBInstanceClass"]["enum"]
    }


def test_versions_are_aws_own() -> None:
    assert set(catalogue.VALKEY) <= versions(schema("aws_elasticache_cachecluster/engine_version.json"), redis.ENGINE)
    assert set(catalogue.POSTGRESQL) <= versions(schema("aws_rds_dbinstance/engine_version.json"), postgres.ENGINE)
    # A family is the engine and its major version.
    assert all(family == f"valkey{version.partition('.')[0]}" for version, family in catalogue.VALKEY.items())
    assert all(family == f"postgres{version.partition('.')[0]}" for version, family in catalogue.POSTGRESQL.items())


def test_regions_and_their_zones_are_aws_own() -> None:
    session = botocore.session.get_session()
    for service in ("elasticache", "rds", "eks", "s3", "kms", "ecr"):
        assert set(catalogue.REGIONS) <= set(session.get_available_regions(service)), service


def test_node_types_are_there_in_every_region_that_has_their_family() -> None:
    """A typo is in no region; a family that a region lacks is the account's to find."""
    offered = schema("aws_elasticache_cachecluster/cachenodetype_enum.json")
    everywhere = {name for region in catalogue.REGIONS for name in offered[region]["enum"]}
    assert set(catalogue.NODE_MEMORY) <= everywhere
    for stack in STACKS:
        planned = topology_of(stack).on_aws()
        assert {group.node_type for group in planned.redis} <= set(offered[planned.region]["enum"]), stack


def test_instance_classes_are_there() -> None:
    assert set(catalogue.CLASS_MEMORY) <= {name for region in ("eu-central-1", "us-east-1") for name in classes(region)}
    for stack in STACKS:
        planned = topology_of(stack).on_aws()
        assert planned.postgres is not None
        assert planned.postgres.instance_class in classes(planned.region), stack


def enumerated(service: str, shape: str) -> set[str]:
    """The values that botocore knows of an enumeration."""
    found = botocore.session.get_session().get_service_model(service).shape_for(shape)
    assert isinstance(found, StringShape)
    return set(found.enum)


def test_instance_types_of_nodes_and_of_botocore_are_one() -> None:
    known = enumerated("ec2", "InstanceType")
    assert set(catalogue.INSTANCES) <= known
    assert {catalogue.architecture(each) for each in ("m7g.large", "r7g.xlarge")} == {"arm64"}
    assert {catalogue.architecture(each) for each in ("m7i.large", "m7i.2xlarge")} == {"x86_64"}
    assert set(cluster.AMI_TYPES.values()) <= enumerated("eks", "AMITypes")


def test_logs_are_all_that_there_are() -> None:
    assert set(cluster.LOG_TYPES) == enumerated("eks", "LogType")
    assert set(redis.LOGS) == enumerated("elasticache", "LogType")


@pytest.mark.parametrize("stack", STACKS)
def test_endpoints_are_of_services_that_are_there(stack: str) -> None:
    """By botocore's names of endpoints: `api.ecr` there is `ecr.api` as a service of a VPC."""
    known = {name.replace("-", "") for name in botocore.session.get_session().get_available_services()}
    for endpoint in of_kind(stack, "VpcEndpoint"):
        service = endpoint.inputs["serviceName"].removeprefix(f"com.amazonaws.{topology_of(stack).on_aws().region}.")
        service = str({"ecr.api": "ecr", "ecr.dkr": "ecr", "elasticloadbalancing": "elb"}.get(service, service))
        assert service.replace("-", "") in known, service


def test_the_image_has_the_authority_of_every_region() -> None:
    """Of the kind that the server is told to use; each is an authority, signed by itself, and good for decades."""
    file = PROJECT / RDS_CA_FILE.removeprefix("/app/")
    found = x509.load_pem_x509_certificates(file.read_bytes())
    names = {each.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value for each in found}
    assert postgres.AUTHORITY == "rds-ca-rsa2048-g1"
    assert names == {f"Amazon RDS {region} Root CA RSA2048 G1" for region in catalogue.REGIONS}
    for each in found:
        each.verify_directly_issued_by(each)
        assert each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert each.not_valid_after_utc.year >= 2061


def test_presets_are_of_the_catalogue() -> None:
    for topology in presets.NAMES:
        section = presets.settings_of(topology, on_aws=True)["aws"]  # type: ignore[arg-type]
        assert section["redis"]["engine_version"] in catalogue.VALKEY
        assert section["postgres"]["engine_version"] in catalogue.POSTGRESQL
        assert section["cluster"]["version"] in catalogue.KUBERNETES


@pytest.mark.parametrize("stack", STACKS)
def test_names_have_lengths_and_letters_that_aws_takes(stack: str) -> None:
    for kind, key, most in (
        ("ReplicationGroup", "replicationGroupId", 40),
        ("User", "userId", 40),
        ("UserGroup", "userGroupId", 40),
        ("Instance", "identifier", 63),
        ("Bucket", "bucket", 63),
        ("Alias", "name", 256),
        ("MetricAlarm", "name", 255),
    ):
        for resource in of_kind(stack, kind):
            name = resource.inputs[key]
            assert len(name) <= most, name
            assert "--" not in name
    for resource in on_aws(stack):
        # The provider puts 8 letters behind a name that it makes.
        limit = {"Role": 64, "SecurityGroup": 255, "ParameterGroup": 255}.get(resource.type.rpartition(":")[2], 255)
        assert len(resource.name) + 8 <= limit, resource.name


@pytest.mark.parametrize("stack", STACKS)
def test_every_node_and_server_has_its_alarms(stack: str) -> None:
    topology = topology_of(stack)
    planned = topology.on_aws()
    watched = {str(each.inputs["dimensions"]) for each in of_kind(stack, "MetricAlarm")}
    nodes = {f"{group.identifier}-{number:03d}" for group in planned.redis for number in range(1, group.nodes + 1)}
    assert watched == {
        *(str({"CacheClusterId": node}) for node in nodes),
        str({"DBInstanceIdentifier": f"{stack}-metadata"}),
    }
    evictions = {
        each.dimensions["CacheClusterId"] for group in planned.redis for each in alarms.of_redis(group, broker=True)
    }
    assert evictions == nodes
