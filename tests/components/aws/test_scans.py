"""Second opinions on what is planned: parliament reads policy documents, checkov the resources; each exception has a reason."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.recording import Resource
from tests.components.aws import terraform_plan
from tests.components.aws.calls import documents
from tests.components.aws.stacks import STACKS, on_aws

pytestmark = [pytest.mark.thorough, pytest.mark.services]

PROJECT = Path(__file__).resolve().parents[3]
#: An environment of its own (`make .venv-scan/.installed`): their versions of boto3 and setuptools are older than the program's.
SCANNERS = PROJECT / ".venv-scan" / "bin"
#: What AWS's identifiers look like where the recording has stand-ins: parliament compares them with each action's resources.
SHAPES = (
    ("arn:aws:kms:replace-me:000000000000:", "arn:aws:kms:eu-central-1:123456789012:key/"),
    ("arn:aws:cloudwatch:replace-me:000000000000:", "arn:aws:logs:eu-central-1:123456789012:log-group:"),
    ("arn:aws:s3:replace-me:000000000000:", "arn:aws:s3:::"),
    ("arn:aws:iam:replace-me:000000000000:", "arn:aws:iam::123456789012:role/"),
    (r"arn:aws:(\w+):replace-me:000000000000:", r"arn:aws:\1:eu-central-1:123456789012:"),
)
#: parliament's findings that are not mistakes, by the type of the resource.
DOCUMENT_EXCEPTIONS = {
    ("Role", "MALFORMED"): "who may assume a role: such a document names no resource",
    ("Key", "RESOURCE_STAR"): "in a key's policy * is the key itself",
    (
        "Key",
        "UNKNOWN_CONDITION_FOR_ACTION",
    ): "as CloudWatch Logs documents it: DescribeKey is harmless where it is not matched",
    ("Key", "MISMATCHED_TYPE"): "as CloudWatch Logs documents it: the log group's ARN is a string to KMS",
}
#: checkov's failed checks that stay so.
RESOURCE_EXCEPTIONS = {
    "CKV2_AWS_62": "nobody waits for events of the bucket",
    "CKV_AWS_144": "a result can be computed again, and may have to stay in its region",
    "CKV_AWS_161": "the password is RDS's own and changes; IAM's tokens last 15 minutes and bound the rate of log-ins",
    "CKV_AWS_18": "who ran a query is in the metadata database; access logs would cost more than the data",
    "CKV_AWS_21": "a result that has ended would stay, readable and paid for",
    "CKV_AWS_338": "the stack says how many days logs are kept",
}


def shaped(document: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(document)
    for stand_in, real in SHAPES:
        text = re.sub(stand_in, real, text)
    return json.loads(text)


def lint(resources: Sequence[Resource]) -> set[tuple[str, str, str]]:
    """parliament's findings: the resource's type and name, and the issue, without the exceptions."""
    owners, given = [], []
    for resource in resources:
        for document in documents(resource):
            owners.append((resource.type.rpartition(":")[2], resource.name))
            given.append(shaped(document))
    assert given
    command = [str(SCANNERS / "python"), str(Path(__file__).with_name("lint_documents.py"))]
    done = subprocess.run(command, input=json.dumps(given), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [(owners[int(number)], issue) for number, issue, *_ in json.loads(done.stdout)]
    return {(*owner, issue) for owner, issue in found if (owner[0], issue) not in DOCUMENT_EXCEPTIONS}


def scan(resources: Sequence[Resource], folder: Path) -> set[tuple[str, str]]:
    """checkov's failed checks: the check and the address of the resource."""
    file = folder / "plan.json"
    file.write_text(json.dumps(terraform_plan.plan(resources)))
    command = [str(SCANNERS / "python"), "-m", "checkov.main", "--framework", "terraform_plan", "--file", str(file)]
    options = ["--output", "json", "--soft-fail", "--skip-download", "--compact", "--quiet"]
    done = subprocess.run([*command, *options], cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["summary"]["resource_count"] >= len(resources), "it has read all of them"
    assert report["summary"]["parsing_errors"] == 0
    return {(each["check_id"], each["resource"]) for each in report["results"]["failed_checks"]}


def test_policy_documents_are_what_iam_takes_and_no_wider_than_they_look() -> None:
    assert lint([each for stack in STACKS for each in on_aws(stack)]) == set()


WRONG_STATEMENTS: dict[str, dict[str, Any]] = {
    "UNKNOWN_ACTION": {"Action": ["s3:GetObjects"]},
    "RESOURCE_MISMATCH": {"Resource": ["arn:aws:s3:::results"]},
    "RESOURCE_STAR": {"Resource": ["*"]},
    "MALFORMED": {"Effect": "Alow"},
    "UNKNOWN_CONDITION_FOR_ACTION": {"Condition": {"StringEquals": {"s3:no-such-key": "x"}}},
}


def test_each_mistake_in_a_document_is_found() -> None:
    policy = next(each for each in on_aws("aws-enterprise") if each.name == "results-access" and "policy" in each.inputs)
    planted: list[Resource] = []
    for issue, wrong in WRONG_STATEMENTS.items():
        statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::results/*"], **wrong}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        planted.append(replace(policy, name=issue, inputs={**policy.inputs, "policy": document}))
    found = lint(planted)
    assert all(("RolePolicy", issue, issue) in found for issue in WRONG_STATEMENTS), found


def test_checkov_finds_nothing_that_has_no_reason(tmp_path: Path) -> None:
    by_address = {terraform_plan.address_of(each): each for stack in STACKS[:2] for each in on_aws(stack)}
    found = scan(list(by_address.values()), tmp_path)
    assert {check for check, _ in found} == set(RESOURCE_EXCEPTIONS), sorted(found)


def test_checkov_finds_what_is_planted(tmp_path: Path) -> None:
    """Some of each kind of resource, so that a translation that hides them is noticed."""
    wrong: dict[str, dict[str, Any]] = {
        "Instance": {"storageEncrypted": False, "publiclyAccessible": True, "multiAz": False, "deletionProtection": False},
        "ReplicationGroup": {"atRestEncryptionEnabled": False, "transitEncryptionEnabled": False},
        "Key": {"enableKeyRotation": False},
        "Repository": {"imageTagMutability": "MUTABLE", "imageScanningConfiguration": {"scanOnPush": False}},
        "Topic": {"kmsMasterKeyId": None},
        "LogGroup": {"kmsKeyId": None},
        "Subnet": {"mapPublicIpOnLaunch": True},
        "BucketPublicAccessBlock": {"blockPublicAcls": False},
    }
    resources = [
        replace(each, inputs={**each.inputs, **wrong.get(each.type.rpartition(":")[2], {})})
        for each in on_aws("aws-enterprise")
    ]
    found = {check for check, _ in scan(resources, tmp_path)} - set(RESOURCE_EXCEPTIONS)
    assert found >= {
        *("CKV_AWS_16", "CKV_AWS_17", "CKV_AWS_157", "CKV_AWS_293"),
        *("CKV_AWS_29", "CKV_AWS_30", "CKV_AWS_7", "CKV_AWS_51", "CKV_AWS_163"),
        *("CKV_AWS_26", "CKV_AWS_158", "CKV_AWS_130", "CKV_AWS_53"),
    }, sorted(found)
