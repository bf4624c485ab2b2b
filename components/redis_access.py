"""What a pod needs to be a client of a Redis instance: passwords as variables, and the authority of the server's certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.authority import authority_mounts, authority_volumes
from components.common import secret_variable
from topology.model import PROCESS_ROLES, RedisInstance, RedisRole, RedisUser

#: Key of a Secret with nothing but an existing server's password.
PASSWORD = "password"  # noqa: S105 a key's name


@dataclass(frozen=True)
class PasswordRef:
    """One password in a Secret."""

    secret: pulumi.Input[str]
    key: str
    #: Changes with the password; empty where someone else keeps the Secret.
    fingerprint: pulumi.Input[str]


@dataclass(frozen=True)
class RedisAccess:
    """An instance, and where the password of each of its users is."""

    instance: RedisInstance
    passwords: Mapping[RedisRole, PasswordRef]
    #: The server's host where that is known only once it is made; None: as the instance has it.
    made_host: pulumi.Output[str] | None = None

    @property
    def host(self) -> pulumi.Input[str]:
        """The server's host, for clients in the stack's namespace."""
        return self.instance.host if self.made_host is None else self.made_host

    def user(self, role: RedisRole) -> RedisUser:
        """The instance's user of `role`."""
        return next(user for user in self.instance.users if user.role == role)

    def variable(self, role: RedisRole) -> core.EnvVarArgs:
        """The environment variable with the password of the user of `role`."""
        password = self.passwords[role]
        return secret_variable(self.user(role).password_env, password.secret, password.key)

    @property
    def volumes(self) -> list[core.VolumeArgs]:
        """The volume with the authority of the server's certificate."""
        return authority_volumes(self.instance.name, self.instance.tls)

    @property
    def mounts(self) -> list[core.VolumeMountArgs]:
        """Where a container has that volume."""
        return authority_mounts(self.instance.name, self.instance.tls)


def given_passwords(accesses: Sequence[RedisAccess]) -> list[core.EnvVarArgs]:
    """The variables with the passwords of existing servers, which are in Secrets of their own."""
    return [
        access.variable(user.role)
        for access in accesses
        if access.instance.existing
        for user in access.instance.users
        if user.role in PROCESS_ROLES
    ]


def given_fingerprints(accesses: Sequence[RedisAccess]) -> list[pulumi.Input[str]]:
    """What changes with those passwords: one a server, all of whose users have the same."""
    found = [next(iter(access.passwords.values())).fingerprint for access in accesses if access.instance.existing]
    return [each for each in found if not isinstance(each, str) or each]
