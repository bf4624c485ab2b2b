"""Generated secrets, and the Secrets that Superset's processes take them from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pulumi
import pulumi_random as random
from pulumi_kubernetes.core import v1 as core

from components.common import SUPERSET, Scope, SecretRef, fingerprint, labels, metadata, name_of
from components.redis_access import PASSWORD, PasswordRef
from topology.model import PROCESS_ROLES, RedisRole

SECRET_KEY = "SUPERSET_SECRET_KEY"  # noqa: S105 a variable's name
JWT_SECRET = "ASYNC_QUERIES_JWT_SECRET"  # noqa: S105 a variable's name
ADMIN_PASSWORD = "ADMIN_PASSWORD"  # noqa: S105 a variable's name
#: Generated values that the metadata database is encrypted with or knows by heart, by purpose: data is lost with them.
KEPT = frozenset({"secret-key", "postgres", "admin"})


@dataclass(frozen=True)
class SecretsArgs:
    """Which secrets a stack has. Every `…_env` is the name of the environment variable that holds one."""

    scope: Scope
    #: Password variable of each user of the Redis servers that this project runs.
    redis_password_envs: Mapping[RedisRole, str]
    #: Variable of each key of the broker's messages.
    message_key_envs: Sequence[str]
    #: Password variable of the metadata database; None where no process takes its password from a variable.
    postgres_password_env: str | None
    #: The password of an existing PostgreSQL server; None: one is generated.
    postgres_password: pulumi.Input[str] | None
    #: Whole URIs of analytic databases, by the variable that holds each.
    database_uris: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    #: Passwords on existing Redis servers, by the instance's name.
    redis_passwords: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    #: The secrets of the team's own Superset, by the variable that holds each.
    own: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])


class Secrets(pulumi.ComponentResource):
    """Passwords and keys, generated once and kept in the stack's state; and three Secrets, with one more an existing Redis, and
    one for the team's own Superset.

    `app` is for every Superset process, `readers` for the exporter, KEDA and people with Celery's tools, `init` for the one job
    that creates the administrator and registers databases. Redis and PostgreSQL get their passwords as inputs and keep them in
    Secrets of their own.
    """

    #: Secret key, JWT secret, keys of messages, and the passwords of PostgreSQL and Redis.
    app: SecretRef
    #: Passwords of those who only read the broker, or ask workers; None where the broker is somebody else's.
    readers: SecretRef | None
    #: The administrator's password and the URIs of analytic databases.
    init: SecretRef
    #: Password of the metadata database's role; None where there is none here.
    postgres_password: pulumi.Output[str] | None
    #: Password of each user of the Redis servers that this project runs.
    redis_passwords: dict[RedisRole, pulumi.Output[str]]
    #: Where the given password of an existing Redis server is, by the instance's name.
    existing_redis: dict[str, PasswordRef]
    #: The secrets of the team's own Superset; None where the stack keeps none.
    own: SecretRef | None

    def __init__(self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:secrets:Secrets", name, None, opts)
        self._name = name
        self._args = args
        self.postgres_password = self._postgres_password()
        self.redis_passwords = {role: self._generate(f"redis-{role}", 32) for role in args.redis_password_envs}
        secret_key = self._generate("secret-key", 64)
        self.app = self._secret(
            "app",
            {
                SECRET_KEY: secret_key,
                # Superset refuses to start with fewer than 32 bytes.
                JWT_SECRET: self._generate("jwt", 64),
                # Each lives as long as it is named here: a next number keeps the keys that both have.
                **{env: self._generate(env.lower().replace("_", "-"), 64) for env in args.message_key_envs},
                **(
                    {args.postgres_password_env: self.postgres_password}
                    if args.postgres_password_env and self.postgres_password
                    else {}
                ),
                **{
                    env: self.redis_passwords[role]
                    for role, env in args.redis_password_envs.items()
                    if role in PROCESS_ROLES
                },
            },
        )
        readers: dict[str, pulumi.Input[str]] = {
            env: self.redis_passwords[role] for role, env in args.redis_password_envs.items() if role not in PROCESS_ROLES
        }
        self.readers = self._secret("readers", readers) if readers else None
        self.init = self._secret("init", {ADMIN_PASSWORD: self._generate("admin", 32), **args.database_uris})
        self.existing_redis = {
            instance: PasswordRef(
                self._secret(instance, {PASSWORD: password}).name,
                PASSWORD,
                # A person chose it: only together with something random does its digest tell nothing.
                fingerprint({PASSWORD: password, SECRET_KEY: secret_key}),
            )
            for instance, password in args.redis_passwords.items()
        }
        self.own = None
        if args.own:
            own = self._secret("own", dict(args.own))
            # As above: a person chose them.
            self.own = replace(own, fingerprint=fingerprint({**args.own, SECRET_KEY: secret_key}))
        self.register_outputs({"app": self.app.name, "init": self.init.name})

    def _postgres_password(self) -> pulumi.Output[str] | None:
        if self._args.postgres_password_env is None:
            return None
        given = self._args.postgres_password
        return self._generate("postgres", 32) if given is None else pulumi.Output.secret(given)

    def _generate(self, purpose: str, length: int) -> pulumi.Output[str]:
        password = random.RandomPassword(
            f"{self._name}-{purpose}",
            length=length,
            # Letters and digits stand unquoted in URLs, ACL files and SQL alike; 32 of them are 190 bits.
            special=False,
            opts=pulumi.ResourceOptions(parent=self, protect=purpose in KEPT),
        )
        return password.result

    def _secret(self, purpose: str, values: dict[str, pulumi.Input[str]]) -> SecretRef:
        name = f"{self._name}-{purpose}"
        secret = core.Secret(
            name,
            metadata=metadata(self._args.scope, name, labels(self._args.scope, SUPERSET, "secrets")),
            type="Opaque",
            string_data=values,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return SecretRef(name_of(secret.metadata, name), tuple(values), fingerprint(values))
