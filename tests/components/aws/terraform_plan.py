"""The recorded AWS resources as the plan that Terraform prints as JSON, which scanners of plans read.

Pulumi's provider is made from Terraform's, so that a resource has the same properties under other names: snake_case here,
lists of blocks in the singular, and a single block as a list of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from infra import aws_answers
from infra.recording import Resource

#: Where a type's name is not `aws_` and its own in snake_case; by module, what stands before it.
_PREFIXES = {
    "elasticache": "elasticache_",
    "s3": "s3_",
    "kms": "kms_",
    "iam": "iam_",
    "eks": "eks_",
    "ecr": "ecr_",
    "sns": "sns_",
    "cloudwatch": "cloudwatch_",
    "vpc": "vpc_",
    "rds": "db_",
    "ec2": "",
}
#: Blocks that Pulumi has in the plural.
_SINGULAR = {
    "parameters": "parameter",
    "rules": "rule",
    "encryptionConfigurations": "encryption_configuration",
    "logDeliveryConfigurations": "log_delivery_configuration",
    "blockDeviceMappings": "block_device_mappings",
    "tagSpecifications": "tag_specifications",
}
#: Mappings whose keys are data.
_MAPS = frozenset({"tags", "dimensions", "tagsAll", "labels"})


def type_of(token: str) -> str:
    """Terraform's type of a Pulumi token, such as aws_db_instance of aws:rds/instance:Instance."""
    module, kind = token.split(":")[1].split("/", maxsplit=1)[0], token.rpartition(":")[2]
    return f"aws_{_PREFIXES[module]}{snake(kind)}"


def snake(name: str) -> str:
    """`camelCase` as `camel_case`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def plan(resources: Sequence[Resource]) -> dict[str, Any]:
    """The plan in which all of `resources` are created, with the references among them."""
    addresses = _addresses(resources)
    planned, changes, configured = [], [], []
    for resource in resources:
        kind, address = type_of(resource.type), address_of(resource)
        values = _block(resource.inputs)
        base = {"address": address, "mode": "managed", "type": kind, "name": label(resource.name)}
        provider = "registry.terraform.io/hashicorp/aws"
        planned.append({**base, "provider_name": provider, "schema_version": 0, "values": values})
        changes.append(
            {**base, "provider_name": provider, "change": {"actions": ["create"], "before": None, "after": values}}
        )
        references = {
            key: {"references": found}
            for key, value in resource.inputs.items()
            if (found := _references(value, addresses, address))
        }
        configured.append(
            {
                **base,
                "provider_config_key": "aws",
                "expressions": {_SINGULAR.get(key, snake(key)): value for key, value in references.items()},
            }
        )
    return {
        "format_version": "1.2",
        "terraform_version": "1.9.0",
        "planned_values": {"root_module": {"resources": planned}},
        "resource_changes": changes,
        "configuration": {
            "provider_config": {"aws": {"name": "aws", "full_name": "registry.terraform.io/hashicorp/aws"}},
            "root_module": {"resources": configured},
        },
    }


def address_of(resource: Resource) -> str:
    """Where a resource is in the plan."""
    return f"{type_of(resource.type)}.{label(resource.name)}"


def label(name: str) -> str:
    """A resource's name as Terraform takes it."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def _addresses(resources: Sequence[Resource]) -> dict[str, str]:
    """By what stands for a resource in others' inputs (id, ARN, name), where it is."""
    found: dict[str, str] = {}
    for resource in resources:
        outputs = aws_answers.of(resource.type, resource.name, resource.inputs)
        address = address_of(resource)
        found[aws_answers.identity(resource.type, resource.name)] = address
        for key in ("arn", "keyId", "name"):
            if isinstance(outputs.get(key), str):
                found.setdefault(outputs[key], address)
        for key in ("bucket", "name"):
            if isinstance(resource.inputs.get(key), str) and resource.type.rpartition(":")[2] in (
                "Bucket",
                "Cluster",
                "Repository",
            ):
                found[resource.inputs[key]] = address
    return found


def _references(value: Any, addresses: dict[str, str], own: str) -> list[str]:
    if isinstance(value, str):
        address = addresses.get(value)
        return [f"{address}.id", address] if address and address != own else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for item in inner for each in _references(item, addresses, own)]


def _block(inputs: dict[str, Any]) -> dict[str, Any]:
    return {_SINGULAR.get(key, snake(key)): value if key in _MAPS else _value(value) for key, value in inputs.items()}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return [_block(value)]
    if isinstance(value, list):
        return [_block(each) if isinstance(each, dict) else each for each in value]
    return value
