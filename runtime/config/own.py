"""A team's own settings laid over the platform's: data from the stack file, then what the team's own module says.

What the platform must control is refused by name. What both have a part in is put together, never silently replaced: the
platform's limits hold whatever the team's function returns, and what the team adds stands beside what the platform adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from runtime.environment.secrets import ConfigurationError
from topology.model import Topology
from topology.settings.superset import FROM_ENV
from topology.superset_ownership import OWNED_FLAGS, refusal

Settings = dict[str, object]


def with_data(topology: Topology, settings: Settings, env: Mapping[str, str]) -> Settings:
    """`settings` of the platform with the feature flags and plain settings of the stack file; ConfigurationError for secrets
    that the environment lacks."""
    own = topology.superset
    missing = [name for name in own.env if name not in env]
    if missing:
        raise ConfigurationError(
            f"stack {topology.stack!r}: {', '.join(missing)} (superset.env) is not in the environment of this process"
        )
    flags = {**cast("dict[str, bool]", settings["FEATURE_FLAGS"]), **own.feature_flags}
    data = {name: _resolved(value, env) for name, value in {**own.settings, **own.own_settings}.items()}
    return {**settings, **data, "FEATURE_FLAGS": flags}


def _resolved(value: Any, env: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        if set(inner) == {FROM_ENV}:
            return env[inner[FROM_ENV]]
        return {key: _resolved(each, env) for key, each in inner.items()}
    if isinstance(value, list):
        return [_resolved(each, env) for each in cast("list[Any]", value)]
    return cast(object, value)


def with_module(topology: Topology, settings: Settings, module: Mapping[str, object], path: str) -> Settings:
    """`settings` with what the team's module at `path` sets; ConfigurationError names everything in it that it may not set."""
    own = topology.superset
    problems: list[str] = []
    merged = dict(settings)
    for name, value in module.items():
        instead = refusal(name, signs_on=own.sign_on is not None, embeds=own.embedding is not None)
        if instead:
            problems.append(f"{name} is decided by the platform. {instead}")
        elif name in own.settings or name in own.own_settings:
            section = "settings" if name in own.settings else "own_settings"
            problems.append(f"{name} is set by superset.{section}.{name} too. Keep one of them")
        elif name in CHAINS:
            try:
                merged[name] = CHAINS[name](settings.get(name), value)
            except ConfigurationError as error:
                problems.append(f"{name}: {error}")
        else:
            merged[name] = value
    if problems:
        listed = "".join(f"\n  {number}. {problem}" for number, problem in enumerate(sorted(problems), 1))
        raise ConfigurationError(f"stack {topology.stack!r}: {path} cannot be loaded:{listed}")
    return merged


def _app_mutators(ours: Any, theirs: Any) -> object:
    """Both see the application, the platform's first."""

    def mutate(app: Any) -> None:
        ours(app)
        theirs(app)

    return mutate if ours and theirs else ours or theirs


def _connection_mutators(ours: Any, theirs: Any) -> object:
    """The team's first: what limits a statement has the last word."""

    def mutate(uri: Any, params: dict[str, Any], *context: Any) -> tuple[Any, dict[str, Any]]:
        return ours(*theirs(uri, params, *context), *context)

    return mutate if ours and theirs else ours or theirs


def _query_mutators(ours: Any, theirs: Any) -> object:
    """The team's first: what guards a statement sees what is executed."""

    def mutate(sql: str, **context: Any) -> str:
        return ours(theirs(sql, **context), **context)

    return mutate if ours and theirs else ours or theirs


def _mappings(ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> object:
    both = set(ours or ()) & set(theirs or ())
    if both:
        raise ConfigurationError(f"{', '.join(sorted(both))} is the platform's already. Choose another name")
    return {**(ours or {}), **(theirs or {})}


def _lists(ours: Any, theirs: Any) -> object:
    return [*(ours or ()), *(theirs or ())]


def _flags(given: dict[str, bool] | None, said: dict[str, bool] | None) -> object:
    ours, theirs = given or {}, said or {}
    refused = sorted(name for name in theirs if name in OWNED_FLAGS)
    if refused:
        raise ConfigurationError(f"{', '.join(refused)} is decided by the platform. {OWNED_FLAGS[refused[0]]}")
    differs = sorted(name for name, value in theirs.items() if name in ours and ours[name] != value)
    if differs:
        raise ConfigurationError(f"{', '.join(differs)} is set otherwise by superset.feature_flags. Keep one of them")
    return {**ours, **theirs}


def _event_loggers(ours: Any, theirs: Any) -> object:
    """Both write each event: the platform's own kind of logger, whose `log` calls the team's too.

    A logger of the team's that is made of the same one as the platform's writes the same rows, and so is alone.
    """
    if not ours or not theirs:
        return ours or theirs
    kind: Any = cast(Any, type(ours))  # pyright: ignore[reportUnknownArgumentType]
    made_of: type = kind.__mro__[1]
    if made_of is not object and isinstance(theirs, made_of):
        return theirs

    def log(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.log(self, *args, **kwargs)
        theirs.log(*args, **kwargs)

    both: Any = object.__new__(type("EventLogger", (kind,), {"log": log}))
    vars(both).update(vars(ours))
    return both


def _stats_loggers(ours: Any, theirs: Any) -> object:
    """Both are told everything: the team's own kind of logger, which tells the platform's first."""
    if not ours or not theirs:
        return ours or theirs
    kind: Any = cast(Any, type(theirs))  # pyright: ignore[reportUnknownArgumentType]

    def telling(name: str) -> Callable[..., None]:
        def tell(self: Any, *args: Any, **kwargs: Any) -> None:
            getattr(ours, name)(*args, **kwargs)
            getattr(kind, name)(self, *args, **kwargs)

        return tell

    both: Any = object.__new__(type("StatsLogger", (kind,), {name: telling(name) for name in STATS}))
    vars(both).update(vars(theirs))
    return both


#: What Superset calls of a stats logger.
STATS = ("incr", "decr", "timing", "gauge")
#: How a setting that both have a part in is put together, from the platform's and the team's.
CHAINS: dict[str, Callable[[Any, Any], object]] = {
    "FLASK_APP_MUTATOR": _app_mutators,
    "DB_CONNECTION_MUTATOR": _connection_mutators,
    "SQL_QUERY_MUTATOR": _query_mutators,
    "EVENT_LOGGER": _event_loggers,
    "STATS_LOGGER": _stats_loggers,
    "JINJA_CONTEXT_ADDONS": _mappings,
    "CUSTOM_TEMPLATE_PROCESSORS": _mappings,
    "BLUEPRINTS": _lists,
    "ADDITIONAL_MIDDLEWARE": _lists,
    "FEATURE_FLAGS": _flags,
}
