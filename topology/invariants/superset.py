"""Rules about a team's own Superset: each name exists, is the team's to decide, and stands where its value may stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from topology import superset_names
from topology.model import Topology
from topology.problems import Problem, did_you_mean, nearest
from topology.settings import Settings
from topology.settings.superset import FROM_ENV
from topology.superset_ownership import OBJECTS, OWNED_FLAGS, SECRETS, refusal

_SETTINGS = tuple(sorted(superset_names.SETTINGS))
_FLAGS = tuple(sorted(superset_names.FEATURE_FLAGS))
#: Beginnings of variables that the platform or Python itself reads.
_RESERVED = ("SUPERSET_", "PYTHON", "CELERY_", "KUBERNETES_", "LD_", "GUNICORN_")
_RESERVED_NAMES = frozenset({"HOME", "PATH", "LANG", "ASYNC_QUERIES_JWT_SECRET", "ADMIN_PASSWORD", "SIGN_ON_SECRET"})


def flags_are_known(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A feature flag is one that Superset has, and not the platform's own."""
    for name, value in settings.superset.feature_flags.items():
        key = f"superset.feature_flags.{name}"
        if name in OWNED_FLAGS:
            yield Problem(key, str(value).lower(), "is decided by the platform", OWNED_FLAGS[name])
        elif name not in superset_names.FEATURE_FLAGS:
            near = nearest(name, _FLAGS)
            fix = f"Did you mean {near!r}?" if near else "Superset 6.1 reads no such flag: remove it"
            yield Problem(key, str(value).lower(), "is no feature flag of Superset 6.1", fix)
    if settings.superset.feature_flags.get("EMBEDDED_SUPERSET") is False and topology.embedding:
        needs = "superset.embedding" if settings.superset.embedding else "tenants.<name>.guests"
        yield Problem(
            "superset.feature_flags.EMBEDDED_SUPERSET",
            "false",
            f"contradicts {needs}: without it Superset takes no guest tokens, by which those are known",
            "Remove one of them",
            also=("tenants", "superset.embedding"),
        )


def settings_are_the_teams(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A setting is one that something reads, is plain data of its kind, no secret, and not the platform's."""
    given = settings.superset
    for name, value in given.settings.items():
        key = f"superset.settings.{name}"
        instead = refusal(name, signs_on=given.sign_on is not None, embeds=given.embedding is not None)
        if instead:
            also = ("superset.sign_on", "superset.embedding")
            yield Problem(key, _shown(name, value), "is decided by the platform", instead, also=also)
        elif name == "FEATURE_FLAGS":
            yield Problem(key, "…", "has a key of its own", "Set superset.feature_flags")
        elif name in OBJECTS:
            fix = "Set it in the module that superset.config_module names"
            yield Problem(key, _shown(name, value), "is a function or an object, which no stack file can say", fix)
        elif name not in superset_names.SETTINGS:
            near = nearest(name, _SETTINGS)
            also = "; a name of your own goes into superset.own_settings" if near else ""
            fix = f"Did you mean {near!r}?{also}" if near else "A name of your own goes into superset.own_settings"
            yield Problem(key, _shown(name, value), "is read by nothing in Superset 6.1", fix)
        elif name in SECRETS and not _is_from_env(value) and value not in (None, ""):
            fix = f"Write {{{FROM_ENV}: {name}}}, and superset.env.{name}: {{}} or the Secret that has it"
            yield Problem(key, "(hidden)", "is a secret, and would stand in a ConfigMap in clear", fix)
        elif wrong := _wrong_kind(name, value):
            yield Problem(key, _shown(name, value), f"must be {wrong}", "Write it so, without quotes where it is no text")


def own_settings_are_not_supersets(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A name of the team's own is none that Superset reads: there it would be checked by nobody."""
    for name in settings.superset.own_settings:
        if name in superset_names.SETTINGS:
            yield Problem(
                f"superset.own_settings.{name}", "…", "is a setting of Superset's", f"Write it as superset.settings.{name}"
            )


def variables_are_the_teams(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A variable is none that the platform gives its processes, and what a setting takes from one is declared."""
    given = settings.superset
    taken = {topology.postgres.password_env, *(user.password_env for user in topology.redis_users().values())}
    taken |= {database.uri_env for database in topology.databases if database.uri_env}
    for name in given.env:
        if name in taken | _RESERVED_NAMES or name.startswith(_RESERVED):
            fix = "Choose another name, such as one that begins with your team's"
            yield Problem(f"superset.env.{name}", "…", "is a variable that the platform or its programs read", fix)
    for section, values in (("settings", given.settings), ("own_settings", given.own_settings)):
        for name, value in values.items():
            for variable in from_env(value):
                if variable not in given.env:
                    yield Problem(
                        f"superset.{section}.{name}",
                        json.dumps({FROM_ENV: variable}),
                        "names a variable that the stack does not give",
                        did_you_mean(variable, tuple(given.env))
                        if given.env
                        else f"Add superset.env.{variable}: {{}}, or the Secret that has it",
                        also=("superset.env", f"superset.env.{variable}"),
                    )


def from_env(value: object) -> Iterator[str]:
    """The variables that a setting's value takes, at any depth."""
    if _is_from_env(value):
        yield str(cast("dict[str, Any]", value)[FROM_ENV])
    elif isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            yield from from_env(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from from_env(each)


def _is_from_env(value: object) -> bool:
    return isinstance(value, dict) and set(cast("Mapping[str, Any]", value)) == {FROM_ENV}


def _wrong_kind(name: str, value: object) -> str | None:
    if value is None or isinstance(value, dict):
        return None
    if name in superset_names.BOOLS and not isinstance(value, bool):
        return "true or false"
    if name in superset_names.NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        return "a number"
    if name in superset_names.TEXTS and isinstance(value, bool | int | float):
        return "a text"
    return None


def _shown(name: str, value: object) -> str:
    if name in SECRETS or any(word in name for word in ("SECRET", "PASSWORD", "TOKEN")):
        return "(hidden)"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
