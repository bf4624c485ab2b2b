"""The repository of the platform's image: scanned when it is pushed, a tag never changes, old images go."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
from pulumi_aws import ecr

from components.aws.common import AwsScope, CustomerKey, CustomerKeyArgs

#: Images that stay, for a way back; untagged ones go after this many days.
KEPT_IMAGES, UNTAGGED_DAYS = 30, 7


@dataclass(frozen=True)
class RegistryArgs:
    """What the repository needs."""

    scope: AwsScope
    repository: str


class Registry(pulumi.ComponentResource):
    """An ECR repository with a key of its own."""

    #: What the image's name begins with.
    url: pulumi.Output[str]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/registry:Registry", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        key = CustomerKey(name, CustomerKeyArgs(args.scope, "Images"), child)
        repository = ecr.Repository(
            name,
            name=args.repository,
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=key.arn)],
            tags={"Name": name},
            opts=child,
        )
        ecr.LifecyclePolicy(name, repository=repository.name, policy=json.dumps({"rules": _rules()}), opts=child)
        self.url = repository.repository_url
        self.register_outputs({"url": self.url})


def _rules() -> list[dict[str, object]]:
    untagged = {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": UNTAGGED_DAYS}
    many = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": KEPT_IMAGES}
    return [
        {"rulePriority": place, "description": text, "selection": selection, "action": {"type": "expire"}}
        for place, (text, selection) in enumerate(
            (("no tag names it any more", untagged), ("older than those for a way back", many)), 1
        )
    ]
