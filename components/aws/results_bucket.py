"""The bucket of query results: private, encrypted, over TLS alone, and empty again when nobody can ask for them any more."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_aws import s3

from components.aws.common import AwsScope, CustomerKey, CustomerKeyArgs, Statement, allow, document

#: What a process does with its results. That it may list them it needs only to be told that one is gone: else S3 answers 403.
OBJECT_ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")


@dataclass(frozen=True)
class ResultsBucketArgs:
    """What the bucket needs."""

    scope: AwsScope
    bucket: str
    #: Days after which every object goes: the longest lifetime of a result, rounded up. Its envelope ends it to the second.
    expire_days: int


class ResultsBucket(pulumi.ComponentResource):
    """A bucket for SQL Lab's rows.

    It has no versions: a result that was deleted or has ended would stay, readable and paid for, and each can be computed again.
    """

    #: Name of the bucket.
    bucket: pulumi.Output[str]
    #: What a role that reads and writes results must be allowed.
    statements: tuple[Statement, ...]

    def __init__(self, name: str, args: ResultsBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/results_bucket:ResultsBucket", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        key = CustomerKey(name, CustomerKeyArgs(args.scope, "Query results"), child)
        bucket = s3.Bucket(name, bucket=args.bucket, force_destroy=False, tags={"Name": name}, opts=child)
        block = s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        s3.BucketOwnershipControls(
            name,
            bucket=bucket.bucket,
            # No access lists: policies alone say who may what.
            rule=s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=child,
        )
        s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=(
                        s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                            sse_algorithm="aws:kms", kms_master_key_id=key.arn
                        )
                    ),
                    # One call of KMS for many objects instead of one each.
                    bucket_key_enabled=True,
                )
            ],
            opts=child,
        )
        s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                s3.BucketLifecycleConfigurationRuleArgs(
                    id="results-end",
                    status="Enabled",
                    filter=s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    expiration=s3.BucketLifecycleConfigurationRuleExpirationArgs(days=args.expire_days),
                    abort_incomplete_multipart_upload=(
                        s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(days_after_initiation=1)
                    ),
                )
            ],
            opts=child,
        )
        s3.BucketPolicy(
            name,
            bucket=bucket.bucket,
            policy=document(
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                },
            ),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[block])),
        )
        self.bucket = bucket.bucket
        self.statements = (
            {"Sid": "Gone", **allow(["s3:ListBucket"], [bucket.arn])},
            {"Sid": "Results", **allow(OBJECT_ACTIONS, [pulumi.Output.concat(bucket.arn, "/*")])},
            {
                "Sid": "ResultsKey",
                **allow(
                    ["kms:Decrypt", "kms:GenerateDataKey"],
                    [key.arn],
                    Condition={"StringEquals": {"kms:ViaService": f"s3.{args.scope.region}.amazonaws.com"}},
                ),
            },
        )
        self.register_outputs({"bucket": self.bucket})
