"""A load: who asks, how often, for how long, and how long they may wait; from a file, or from what a platform has executed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sizing.constants import MEASURED
from sizing.queueing import Service, Stream
from topology.problems import MendableError
from topology.settings.values import Name

HOUR = 3600
#: Bounds in seconds of the classes into which executions are put.
CLASSES: tuple[tuple[str, float], ...] = (("short", 1.0), ("medium", 30.0), ("long", math.inf))


class LoadError(MendableError, ValueError):
    """A load that cannot be read; names the file, the key, the value and the rule."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class QueryClass(_Part):
    """Queries of one kind. `per_hour`: in the busiest hour. `seconds`: mean in the database. `variation`: standard deviation
    of that, divided by the mean. `tenant`: whose pool they go to; None: the default one."""

    name: str
    kind: Literal["sql", "chart"] = "sql"
    per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    seconds: Seconds
    variation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    result_bytes: Annotated[int, Field(gt=0)] | None = None
    tenant: Name | None = None

    @property
    def stored_bytes(self) -> int:
        """Of one result, as the cache keeps it; a thousand rows of ten columns where nothing is said."""
        usual = MEASURED.sql_result_bytes if self.kind == "sql" else MEASURED.chart_result_bytes
        return self.result_bytes or usual

    @property
    def slot(self) -> Service:
        """How long a query has a worker's slot: its own time, and the task's around it."""
        around = MEASURED.worker_cpu_seconds
        mean = self.seconds + around
        return Service(mean, self.variation * self.seconds / mean)

    @property
    def stream(self) -> Stream:
        """Its arrivals in the busiest hour."""
        return Stream(self.per_hour / HOUR, self.slot)


class Load(_Part):
    """All classes. `wait_p95`: seconds that 95 of 100 queries may wait in the queue in the busiest hour. `busy_hours`: how
    many hours of a day are like the busiest one; in the others a tenth of it is assumed. `tenants`: how each is recognised,
    as in a stack file."""

    users: Annotated[int, Field(ge=1)]
    classes: Annotated[tuple[QueryClass, ...], Field(min_length=1, strict=False)]
    wait_p95: Seconds = 2.0
    busy_hours: Annotated[float, Field(gt=0, le=24)] = 8.0
    tenants: dict[Name, dict[str, Any]] = {}

    def times(self, factor: float) -> Load:
        """The same users' habits, with `factor` times as many of them."""
        classes = tuple(it.model_copy(update={"per_hour": it.per_hour * factor}) for it in self.classes)
        return self.model_copy(update={"users": math.ceil(self.users * factor), "classes": classes})


def read(content: object, where: str) -> Load:
    """The load in `content` (a file's mapping); LoadError with every problem."""
    try:
        load = Load.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, it['loc']))} = {it['input']!r}: {it['msg']}" for it in error.errors()]
        raise LoadError(f"{where} is no load:\n" + "\n".join(lines)) from None
    named = {it.tenant for it in load.classes if it.tenant}
    if missing := sorted(named - load.tenants.keys()):
        raise LoadError(
            f"{where}: tenants = {sorted(load.tenants)}: {', '.join(missing)} of the classes are not among them. Say by what "
            "each is recognised, as in a stack file: tenants: {" + missing[0] + ": {roles: [Finance]}}"
        )
    return load


@dataclass(frozen=True)
class Executed:
    """One execution that has ended, of the platform's table: times are seconds since the epoch."""

    kind: Literal["sql", "chart"]
    tenant: str
    username: str
    submitted: float
    started: float
    ended: float


def observed(rows: Iterable[Executed], wait_p95: float, tenants: Mapping[str, dict[str, Any]]) -> Load:
    """The load that `rows` were: the busiest hour's rates, in classes by duration; LoadError where there is nothing to learn
    from."""
    found = sorted(rows, key=lambda row: row.submitted)
    if not found:
        raise LoadError(
            "no execution has ended in that time: there is nothing to learn a load from. Give a load file instead"
        )
    hours = Counter(int(row.submitted // HOUR) for row in found)
    busiest = max(hours, key=lambda hour: (hours[hour], hour))
    by_day: dict[int, Counter[int]] = {}
    for hour, count in hours.items():
        by_day.setdefault(hour // 24, Counter())[hour % 24] = count
    like_it = [sum(count > hours[busiest] / 2 for count in day.values()) for day in by_day.values()]
    groups: dict[tuple[str, str, str], list[Executed]] = {}
    for row in found:
        name = next(name for name, most in CLASSES if row.ended - row.started <= most)
        groups.setdefault((row.tenant, row.kind, name), []).append(row)
    classes: list[QueryClass] = []
    for (tenant, kind, name), members in sorted(groups.items()):
        in_hour = sum(int(row.submitted // HOUR) == busiest for row in members)
        took = [max(0.001, row.ended - row.started) for row in members]
        mean = statistics.fmean(took)
        classes.append(
            QueryClass(
                name="-".join(part for part in (tenant, kind, name) if part),
                kind="sql" if kind == "sql" else "chart",
                # A class that the busiest hour did not have is still there: at its own mean rate over the hours seen.
                per_hour=in_hour or len(members) / len(hours),
                seconds=mean,
                variation=statistics.pstdev(took) / mean,
                tenant=tenant if tenant in tenants else None,
            )
        )
    return Load(
        users=len({row.username for row in found}),
        classes=tuple(classes),
        wait_p95=wait_p95,
        busy_hours=max(1, *like_it),
        tenants=dict(tenants),
    )
