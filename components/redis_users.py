"""The users of a Redis instance in a Secret: each one's password, and the ACL files that servers and Sentinels read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pulumi
import pulumi_random as random
from pulumi_kubernetes.core import v1 as core

from components.common import Scope, fingerprint, metadata, name_of
from components.redis_files import SENTINEL_ACL, SERVER_ACL
from topology import redis_acl
from topology.model import RedisInstance, RedisRole

#: Key of the Secret with the operator's password; `password_key` names those of the other users.
OPERATOR_PASSWORD = "operator-password"  # noqa: S105


def password_key(role: RedisRole) -> str:
    """Key of a user's password in the instance's Secret."""
    return f"{role}-password"


def users_secret(
    name: str,
    scope: Scope,
    object_labels: Mapping[str, str],
    instance: RedisInstance,
    *,
    given: Mapping[RedisRole, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
    """The name of the Secret with all users of `instance`, and a digest that changes with their passwords.

    `given`: the password of each user by role; the operator's is generated here.
    """
    operator = random.RandomPassword(f"{name}-operator", length=32, special=False, opts=opts)
    passwords = {
        OPERATOR_PASSWORD: operator.result,
        **{password_key(role): pulumi.Output.from_input(value) for role, value in given.items()},
    }

    def acl_file(write: Callable[[RedisInstance, Mapping[RedisRole, str], str], str]) -> pulumi.Output[str]:
        return pulumi.Output.all(**passwords).apply(
            lambda known: write(
                instance,
                {user.role: known[password_key(user.role)] for user in instance.users},
                known[OPERATOR_PASSWORD],
            )
        )

    secret = core.Secret(
        f"{name}-auth",
        metadata=metadata(scope, f"{name}-auth", object_labels),
        type="Opaque",
        string_data={
            **passwords,
            SERVER_ACL: acl_file(redis_acl.server_acl),
            **({SENTINEL_ACL: acl_file(redis_acl.sentinel_acl)} if instance.sentinel else {}),
        },
        opts=opts,
    )
    return name_of(secret.metadata, f"{name}-auth"), fingerprint(passwords)
