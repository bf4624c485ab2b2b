"""The secrets of a process: read from the environment, checked together, never printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from topology.model import RedisRole, Topology

#: Names of variables, not secrets.
SECRET_KEY_ENV = "SUPERSET_SECRET_KEY"  # noqa: S105
JWT_SECRET_ENV = "ASYNC_QUERIES_JWT_SECRET"  # noqa: S105
#: Superset refuses a shorter JWT secret. Of a random one of this length every character may be guessed, and it is not.
KEY_BYTES = 32
#: A random key of 32 hexadecimal digits has fewer different ones about once in 10 000.
DIFFERENT_CHARACTERS = 9
#: Keys that everybody knows, from Superset's own configuration, its images and its documentation, or parts of them.
PLACEHOLDERS = (
    "change_me",
    "changeme",
    "change-me",
    "thisisasecret",
    "this_is_a_secret",
    "test_non_dev_secret",
    "your_secret",
    "your-secret",
    "your_own",
    "yoursecret",
    "secret_key",
    "placeholder",
    "test-secret",
    "example",
)


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


def weak(key: str) -> str | None:
    """Why nobody should sign anything with `key`; None for one that may be random."""
    known = next((each for each in PLACEHOLDERS if each in key.lower()), None)
    if known:
        return f"is a placeholder that everybody knows ({known})"
    if len(key.encode()) < KEY_BYTES:
        return f"has {len(key.encode())} bytes, and must have {KEY_BYTES} or more"
    if len({*key}) < DIFFERENT_CHARACTERS:
        return f"has {len({*key})} different characters, and a random one has {DIFFERENT_CHARACTERS} or more"
    return None


def read(topology: Topology, env: Mapping[str, str]) -> Secrets:
    """The secrets of `topology` in `env`; ConfigurationError names all that are missing or too short, at once."""
    redis_envs: dict[RedisRole, str] = {role: user.password_env for role, user in topology.process_redis_users().items()}
    key_envs = topology.message_key_envs()
    postgres_env = None if topology.postgres.password_secret_arn else topology.postgres.password_env
    always = (SECRET_KEY_ENV, JWT_SECRET_ENV, *redis_envs.values(), *key_envs.values())
    needed = (*always, postgres_env) if postgres_env else always
    problems = [f"{name} is not set" for name in needed if not env.get(name)]
    jwt_secret = env.get(JWT_SECRET_ENV, "")
    for name in (SECRET_KEY_ENV, JWT_SECRET_ENV):
        if (value := env.get(name)) and (weakness := weak(value)):
            problems.append(f"{name} {weakness}. Make one: openssl rand -base64 42")
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
