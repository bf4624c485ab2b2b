"""The Pulumi program: a stack's configuration in, checked as a whole; resources out, or every mistake and no resource."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_origin

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from infra import platforms, previous
from infra.aws_answers import PLACEHOLDER
from infra.own_secrets import SIGN_ON_SECRET, SUPERSET_ENV, own_secret_problems
from infra.workloads import Given
from topology import changes, drivers, own_module, plan, settings
from topology.commands import SIGN_ON_SECRET_ENV
from topology.model import RedisInstance, RedisRole, Topology
from topology.problems import Problem, StackError, did_you_mean
from topology.settings import Settings
from topology.settings.section import fields_by_key
from topology.settings.values import is_uri
from topology.stack_file import PROJECT_NAME, misspelt_prefixes

#: Keys whose values are secrets: never part of a topology.
DATABASE_URIS = "database_uris"
POSTGRES_PASSWORD = "postgres_password"  # noqa: S105 a key's name
REDIS_PASSWORDS = "redis_passwords"
SECRET_KEYS = (DATABASE_URIS, POSTGRES_PASSWORD, REDIS_PASSWORDS, SUPERSET_ENV, SIGN_ON_SECRET)
HIDDEN = "(hidden)"
#: Keys whose whole value is text, whatever it looks like: a password of digits is no number.
_TEXT_KEYS = {POSTGRES_PASSWORD, SIGN_ON_SECRET} | {
    key
    for key, (_, setting) in fields_by_key(Settings).items()
    if setting.annotation is str or get_origin(setting.annotation) is Literal
}
#: How the path goes on below a key that holds several secrets.
_EACH = {DATABASE_URIS: ".<name>", REDIS_PASSWORDS: ".<broker or cache>", SUPERSET_ENV: ".<NAME>"}


@dataclass(frozen=True)
class GivenSecrets:
    """The secrets that a stack file holds, encrypted by the engine: the rest are generated."""

    #: Whole SQLAlchemy URIs of analytic databases, by the database's name.
    database_uris: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: Password of an existing PostgreSQL server.
    postgres_password: str | None = field(default=None, repr=False)
    #: Passwords on existing Redis servers, by the section of the stack file that names the server.
    redis_passwords: Mapping[RedisRole, str] = field(default_factory=dict[RedisRole, str], repr=False)
    #: Variables of superset.env without a Secret, by name.
    superset_env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: Of superset.sign_on.
    sign_on_secret: str | None = field(default=None, repr=False)


def main() -> None:
    """Build the stack that the engine runs; RunError, without a traceback, where its configuration has mistakes."""
    try:
        planned, given = read(pulumi.get_stack(), CONFIG.get(), is_config_secret)
        live(planned)
    except StackError as error:
        raise pulumi.RunError(str(error)) from None
    variables = {database.name: database.uri_env for database in planned.databases if database.uri_env}
    own = dict(given.superset_env) | ({SIGN_ON_SECRET_ENV: given.sign_on_secret} if given.sign_on_secret else {})
    outputs = platforms.deployment_of(planned).deploy(
        planned,
        Given(
            database_uris={variables[name]: pulumi.Output.secret(uri) for name, uri in given.database_uris.items()},
            postgres_password=None if given.postgres_password is None else pulumi.Output.secret(given.postgres_password),
            redis_passwords={
                instance.name: pulumi.Output.secret(given.redis_passwords[section])
                for section, instance in _with_given_password(planned).items()
            },
            own={name: pulumi.Output.secret(value) for name, value in own.items()},
            own_module=own_module.read(planned)[0],
        ),
    )
    for name, value in outputs.items():
        pulumi.export(name, value)


def live(planned: Topology) -> None:
    """Say what `planned` does to the stack that lives, where there is one; StackError where that needs steps first."""
    before = previous.plan_of_last_up()
    if before is None:
        return
    accepted = os.environ.get(changes.ACCEPT_ENV, "").split(",")
    if problems := changes.problems(before, planned, accepted):
        raise StackError(planned.stack, problems)
    for sentence in changes.told(before, planned):
        pulumi.log.warn(sentence)


def read(stack: str, config: Mapping[str, str], is_secret: Callable[[str], bool]) -> tuple[Topology, GivenSecrets]:
    """The topology and the given secrets of a stack, from the engine's configuration (`superset-async:key` to text).

    `is_secret` says of such a key whether its value is encrypted in the stack file. StackError with every problem at once.
    """
    prefix = f"{PROJECT_NAME}:"
    ours = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    keys = {key: parse(key, value) for key, value in ours.items()}
    secrets = {key: keys.pop(key) for key in SECRET_KEYS if key in keys}
    problems = [
        Problem(
            key,
            HIDDEN,
            "stands unencrypted in the stack file",
            f"Store it with pulumi config set --secret --path {prefix}{key}{_EACH.get(key, '')}",
        )
        for key in secrets
        if not is_secret(prefix + key)
    ]
    problems.extend(
        Problem(
            key,
            HIDDEN,
            "is encrypted in the stack file, and would stand in a ConfigMap in clear",
            f"Store it in clear; secrets are {', '.join(SECRET_KEYS)}",
        )
        for key in keys
        if is_secret(prefix + key)
    )
    problems.extend(misspelt_prefixes(config))
    reading = settings.read(keys)
    planned = plan.build(stack, reading.settings)
    try:
        planned = plan.plan(stack, keys)
    except StackError as error:
        problems.extend(error.problems)
    # What a mistake elsewhere already explains is not said twice.
    problems.extend(
        problem
        for check in (
            _uri_problems(planned, secrets),
            _password_problems(planned, secrets),
            _redis_password_problems(planned, secrets),
            own_secret_problems(planned, secrets),
            own_module.read(planned)[1],
            platforms.check(planned),
        )
        for problem in check
        if reading.repaired.isdisjoint({problem.key, *problem.also})
    )
    if problems:
        raise StackError(stack, problems)
    return planned, GivenSecrets(
        cast("dict[str, str]", secrets.get(DATABASE_URIS, {})),
        cast("str | None", secrets.get(POSTGRES_PASSWORD)),
        cast("dict[RedisRole, str]", secrets.get(REDIS_PASSWORDS, {})),
        cast("dict[str, str]", secrets.get(SUPERSET_ENV, {})),
        cast("str | None", secrets.get(SIGN_ON_SECRET)),
    )


def parse(key: str, value: str) -> object:
    """The value of `key` in the form of the stack file. The engine hands every value over as text: a structure, number, boolean
    or null as JSON, and a string as itself, so that only the key says whether `8472910384` is a number.
    """
    if key in _TEXT_KEYS:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _uri_problems(planned: Topology, secrets: Mapping[str, object]) -> Iterator[Problem]:
    given = secrets.get(DATABASE_URIS, {})
    if not isinstance(given, dict):
        yield Problem(DATABASE_URIS, HIDDEN, "must map the names of databases to URIs", "Set it with --path, name by name")
        return
    uris = cast("dict[str, Any]", given)
    wanted = {database.name: database for database in planned.databases if database.uri_env and not database.sample}
    for name in wanted:
        if name not in uris:
            yield Problem(
                f"{DATABASE_URIS}.{name}",
                "missing",
                f"must hold the URI of databases.{name}, which has no uri of its own",
                f"pulumi config set --secret --path {PROJECT_NAME}:{DATABASE_URIS}.{name} <URI>",
                also=(f"databases.{name}", f"databases.{name}.uri", "databases"),
            )
    for name, uri in uris.items():
        if name not in wanted:
            yield Problem(
                f"{DATABASE_URIS}.{name}",
                HIDDEN,
                "names no database of this stack that takes its URI from a secret",
                did_you_mean(name, tuple(wanted)) if wanted else f"Declare databases.{name} without a uri, or remove it",
                also=(f"databases.{name}", "databases"),
            )
        # A placeholder stands for what only the engine can read.
        elif not isinstance(uri, str) or not (is_uri(uri) or uri.startswith(PLACEHOLDER)):
            yield Problem(
                f"{DATABASE_URIS}.{name}",
                HIDDEN,
                "is no SQLAlchemy URI",
                "Write it as dialect://user:password@host/database",
            )
        elif not uri.startswith(PLACEHOLDER) and (found := drivers.problem(uri, planned.images.drivers)):
            yield Problem(f"{DATABASE_URIS}.{name}", HIDDEN, *found, also=("images.drivers",))


def _password_problems(planned: Topology, secrets: Mapping[str, object]) -> Iterator[Problem]:
    password = secrets.get(POSTGRES_PASSWORD)
    if planned.postgres.kind != "existing":
        if POSTGRES_PASSWORD in secrets:
            yield Problem(
                POSTGRES_PASSWORD,
                HIDDEN,
                f"is not for postgres.kind {planned.postgres.kind}, whose password is generated",
                "Remove it",
                also=("postgres.kind",),
            )
    elif password is None or password == "":
        yield Problem(
            POSTGRES_PASSWORD,
            "missing",
            f"must hold the password of role {planned.postgres.user!r} on the existing server",
            f"pulumi config set --secret {PROJECT_NAME}:{POSTGRES_PASSWORD} <password>",
            also=("postgres.kind",),
        )


def _with_given_password(planned: Topology) -> dict[RedisRole, RedisInstance]:
    """Existing Redis servers whose password the stack's configuration has, by the section of the file that names each."""
    return {
        "broker" if instance.carries_broker else "cache": instance
        for instance in planned.redis
        if instance.existing and not instance.existing.password_secret_name
    }


def _redis_password_problems(planned: Topology, secrets: Mapping[str, object]) -> Iterator[Problem]:
    given = secrets.get(REDIS_PASSWORDS, {})
    if not isinstance(given, dict):
        yield Problem(REDIS_PASSWORDS, HIDDEN, "must map broker and cache to passwords", "Set it with --path, one by one")
        return
    passwords, wanted = cast("dict[str, Any]", given), _with_given_password(planned)
    for section, instance in wanted.items():
        password = passwords.get(section)
        if not isinstance(password, str) or not password:
            yield Problem(
                f"{REDIS_PASSWORDS}.{section}",
                "missing" if password in (None, "") else HIDDEN,
                f"must hold, as text, the password of user {instance.users[0].username!r} on {instance.host}",
                f"pulumi config set --secret --path {PROJECT_NAME}:{REDIS_PASSWORDS}.{section} <password>, "
                f"or name a Secret in redis.{section}.existing.password_secret",
                also=(f"redis.{section}", f"redis.{section}.existing", "redis"),
            )
    for section in passwords:
        if section not in wanted:
            yield Problem(
                f"{REDIS_PASSWORDS}.{section}",
                HIDDEN,
                f"is for no server: redis.{section} is not an existing one whose password stands in the configuration",
                "Remove it",
                also=(f"redis.{section}", f"redis.{section}.existing", "redis"),
            )
