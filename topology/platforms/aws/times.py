"""Windows of maintenance and of snapshots, and days that logs are kept: what AWS's API refuses, from its documentation."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings

#: Days that CloudWatch keeps logs.
RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY, _WEEK = 24 * 60, 7 * 24 * 60


def minutes(window: str) -> tuple[int, int]:
    """Where a window begins, in minutes of the day or of the week, and how long it is."""
    parts = window.split("-")
    begin, end = (_minute(part) for part in parts)
    return begin, (end - begin) % (_WEEK if window[0].isalpha() else _DAY)


def _minute(moment: str) -> int:
    *day, hour, minute = moment.split(":")
    return (_DAYS.index(day[0]) * _DAY if day else 0) + int(hour) * 60 + int(minute)


def overlap(daily: str, weekly: str) -> bool:
    """Whether a part of each day and a part of a week have a minute in common."""
    day_begin, day_length = minutes(daily)
    week_begin, week_length = minutes(weekly)
    return any(
        (day_begin + day * _DAY - week_begin) % _WEEK < week_length
        or (week_begin - day_begin - day * _DAY) % _WEEK < day_length
        for day in range(7)
    )


def windows_fit(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Windows are as long as AWS wants them, and what is saved is not saved while servers are restarted."""
    if settings.aws is None:
        return
    redis, postgres = settings.aws.redis, settings.aws.postgres
    given: list[tuple[str, str, str, str, int]] = []
    if any(not server.existing for server in settings.redis.servers().values()):
        given.append(("aws.redis", "snapshot_window", redis.snapshot_window, redis.maintenance_window, 60))
    if settings.postgres.kind == "rds":
        given.append(("aws.postgres", "backup_window", postgres.backup_window, postgres.maintenance_window, 30))
    for section, name, daily, weekly, least in given:
        for key, window in ((name, daily), ("maintenance_window", weekly)):
            if minutes(window)[1] < least:
                rule = f"must be {least} minutes or more"
                yield Problem(f"{section}.{key}", window, rule, "Let it end later")
        if overlap(daily, weekly):
            yield Problem(
                f"{section}.{name}",
                daily,
                f"must not overlap {section}.maintenance_window ({weekly}): AWS refuses it",
                "Move one of them",
                also=(f"{section}.maintenance_window",),
            )


def logs_are_kept_as_long_as_there_is(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """CloudWatch keeps logs for a number of days out of a list."""
    if settings.aws is None:
        return
    network, cluster = settings.aws.network, settings.aws.cluster
    given: list[tuple[str, int]] = []
    if network.existing is None:
        given.append(("aws.network.flow_log_days", network.flow_log_days))
    if cluster.existing is None:
        given.append(("aws.cluster.log_days", cluster.log_days))
    for key, days in given:
        if days not in RETENTION_DAYS:
            near = min(RETENTION_DAYS, key=lambda known: abs(known - days))
            yield Problem(key, str(days), "is no number of days that CloudWatch keeps logs", f"Take {near}")
