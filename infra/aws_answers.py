"""What AWS would add to a resource when it makes it: ARNs, endpoints, names. Stand-ins, so that a program runs to its end.

A host or name that AWS would choose has `PLACEHOLDER` in it, as a secret's does: nobody takes it for a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: How everything begins that stands for what is not known.
PLACEHOLDER = "replace-me"
_AUTHORITY = "cmVwbGFjZS1tZQ=="

Inputs = Mapping[str, Any]


def of(kind: str, name: str, inputs: Inputs) -> dict[str, Any]:
    """The outputs that AWS adds to the inputs of a resource of type `kind` with the logical name `name`."""
    if not kind.startswith("aws:"):
        return {}
    # The provider makes a name of the logical one, with random letters behind it.
    named = {} if inputs.get("name") else {"name": name}
    arn = f"arn:aws:{kind.split(':')[1].split('/', maxsplit=1)[0]}:{PLACEHOLDER}:000000000000:{inputs.get('name') or name}"
    return {**named, "arn": arn, **_OWN.get(kind, _nothing)(name, inputs)}


def identity(kind: str, name: str) -> str:
    """The id that a resource would get: on AWS another one for each type, elsewhere its logical name."""
    return f"{kind.rpartition(':')[2]}.{name}" if kind.startswith("aws:") else name


def _nothing(name: str, inputs: Inputs) -> dict[str, Any]:
    return {}


def _launch_template(name: str, inputs: Inputs) -> dict[str, Any]:
    return {"latestVersion": 1}


def _cluster(name: str, inputs: Inputs) -> dict[str, Any]:
    return {
        "endpoint": f"https://{PLACEHOLDER}-{name}.eks.amazonaws.com",
        "certificateAuthority": {"data": _AUTHORITY},
        "vpcConfig": {**inputs.get("vpcConfig", {}), "clusterSecurityGroupId": f"sg-{PLACEHOLDER}-{name}"},
    }


def _database(name: str, inputs: Inputs) -> dict[str, Any]:
    secret = {"secretArn": f"arn:aws:secretsmanager:{PLACEHOLDER}:000000000000:secret:rds!{name}", "secretStatus": "active"}
    return {
        # As AWS makes it: the identifier begins it, by which the policies know whose address a URL has.
        "address": f"{inputs.get('identifier') or name}.{PLACEHOLDER}.rds.amazonaws.com",
        **({"masterUserSecrets": [secret]} if inputs.get("manageMasterUserPassword") else {}),
    }


_OWN: dict[str, Callable[[str, Inputs], dict[str, Any]]] = {
    "aws:elasticache/replicationGroup:ReplicationGroup": lambda name, inputs: {
        "primaryEndpointAddress": f"master.{inputs.get('replicationGroupId') or name}.{PLACEHOLDER}.cache.amazonaws.com"
    },
    "aws:rds/instance:Instance": _database,
    "aws:eks/cluster:Cluster": _cluster,
    "aws:kms/key:Key": lambda name, _: {"keyId": f"{PLACEHOLDER}-{name}"},
    "aws:ecr/repository:Repository": lambda _, inputs: {
        "repositoryUrl": f"{PLACEHOLDER}.dkr.ecr.amazonaws.com/{inputs.get('name')}"
    },
    "aws:ec2/launchTemplate:LaunchTemplate": _launch_template,
}
