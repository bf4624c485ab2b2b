"""The few settings that must be objects of Celery, cachelib and Superset: described as data, made real in its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from runtime.environment import redis_databases


@dataclass(frozen=True)
class Crontab:
    """A schedule of Celery beat; each field as in a crontab, times in UTC."""

    minute: str
    hour: str
    day_of_month: str
    month_of_year: str
    day_of_week: str


@dataclass(frozen=True)
class Function:
    """A function of this project, as `module:name`, which Celery wants itself."""

    name: str


@dataclass(frozen=True)
class ResultStore:
    """The store of SQL Lab's rows: Superset wants an object of cachelib, and fails every query on a string or a dict."""

    database: redis_databases.Database


@dataclass(frozen=True)
class EventLog:
    """Superset's action log, as `runtime.superset.event_log` writes it."""


@dataclass(frozen=True)
class StatsLog:
    """Superset's metrics, as `runtime.superset.stats` counts them."""


def realise(settings: Mapping[str, object]) -> dict[str, object]:
    """`settings` with each description, at any depth of mappings, replaced by the object that it describes."""
    return {key: _realise(value) for key, value in settings.items()}


def _realise(value: object) -> object:
    if isinstance(value, Crontab):
        from celery.schedules import crontab

        return crontab(
            minute=value.minute,
            hour=value.hour,
            day_of_month=value.day_of_month,
            month_of_year=value.month_of_year,
            day_of_week=value.day_of_week,
        )
    if isinstance(value, Function):
        module, _, name = value.name.partition(":")
        return cast(object, getattr(import_module(module), name))
    if isinstance(value, ResultStore):
        from runtime.superset.caches import results

        return results(value.database)
    if isinstance(value, EventLog | StatsLog):
        return _logger(value)
    if isinstance(value, dict):
        return realise(cast(dict[str, Any], value))
    return value


def _logger(value: EventLog | StatsLog) -> object:
    if isinstance(value, EventLog):
        from runtime.superset.event_log import EventLogger

        return EventLogger()
    from runtime.superset.stats import StatsLogger

    return StatsLogger()
