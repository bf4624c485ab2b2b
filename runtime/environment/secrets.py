"""The secrets of a process: read from the environment, checked together, never printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from topology.model import RedisRole, Topology

#: Names of variables, not secrets.
SECRET_KEY_ENV = "SUPERSET_SECRET_KEY"  # noqa: S105
JWT_SECRET_ENV = "ASYNC_QUERIES_JWT_SECRET"  # noqa: S105
#: Superset refuses a shorter one.
JWT_SECRET_BYTES = 32


class ConfigurationError(ValueError):
    """A topology and an environment that no Superset process can run with; the message names every mistake."""


@dataclass(frozen=True)
class Secrets:
    """Every secret that a Superset process needs. `redis` has the password of each user.

    `postgres_password` is None where AWS keeps it: `runtime.environment.metadata_password`.
    """

    secret_key: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    postgres_password: str | None = field(repr=False)
    redis: Mapping[RedisRole, str] = field(repr=False)
    #: With which messages are signed, by number.
    message_keys: Mapping[int, bytes] = field(repr=False)


def read(topology: Topology, env: Mapping[str, str]) -> Secrets:
    """The secrets of `topology` in `env`; ConfigurationError names all that are missing or too short, at once."""
    redis_envs: dict[RedisRole, str] = {role: user.password_env for role, user in topology.process_redis_users().items()}
    key_envs = topology.message_key_envs()
    postgres_env = None if topology.postgres.password_secret else topology.postgres.password_env
    always = (SECRET_KEY_ENV, JWT_SECRET_ENV, *redis_envs.values(), *key_envs.values())
    needed = (*always, postgres_env) if postgres_env else always
    problems = [f"{name} is not set" for name in needed if not env.get(name)]
    jwt_secret = env.get(JWT_SECRET_ENV, "")
    if jwt_secret and len(jwt_secret.encode()) < JWT_SECRET_BYTES:
        problems.append(f"{JWT_SECRET_ENV} has {len(jwt_secret.encode())} bytes, and must have {JWT_SECRET_BYTES} or more")
    if problems:
        raise ConfigurationError(
            f"stack {topology.stack!r}: {'; '.join(problems)}. Give every Superset process the stack's secrets as "
            "environment variables"
        )
    return Secrets(
        secret_key=env[SECRET_KEY_ENV],
        jwt_secret=jwt_secret,
        postgres_password=env[postgres_env] if postgres_env else None,
        redis={role: env[variable] for role, variable in redis_envs.items()},
        message_keys={number: env[variable].encode() for number, variable in key_envs.items()},
    )
