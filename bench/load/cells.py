"""What is measured, by name: pure. A cell is one workload under one load; its name says all of it, so any can be asked for.

small-50u              50 closed-loop users (one query at a time each, 1 s of thought between), asking every 0.2 s
small-1u-api0.05       one user who asks every 0.05 s
small-50u-browser      50 users who ask as Superset's own pages do: every 2 s (SQL Lab), every 0.5 s (charts)
small-6ps              6 queries a second arrive, whatever becomes of the ones before (an open loop)
small-10u-2ms          each packet to and from Redis and PostgreSQL takes 2 ms
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from topology.problems import MendableError, did_you_mean

Workload = Literal[
    "small",
    "medium",
    "large",
    "mixed",
    "chart-cold",
    "chart-cached",
    "dashboard",
    "storm",
    "fanout",
    "tenants",
]
Polling = Literal["api", "browser"]

#: Seconds between two questions of a client of the API.
API_POLL_SECONDS = 0.2
#: Superset's pages: QUERY_UPDATE_FREQ of SQL Lab, GLOBAL_ASYNC_QUERIES_POLLING_DELAY of charts.
BROWSER_SQL_SECONDS, BROWSER_CHART_SECONDS = 2.0, 0.5
#: Mean of a closed-loop user's pause between two queries (exponential), in seconds.
THINK_SECONDS = 1.0

WORKLOADS: Mapping[Workload, str] = {
    "small": "SELECT n: nothing but the platform's own work",
    "medium": "the article's 5-30 s, divided by 20: 0.25-1.5 s in the database (which sleeps), 1 000 rows",
    "large": "the article's 60-95 s, divided by 20: 3-4.75 s in the database (which sleeps), 10 000 rows",
    "mixed": "80 small, 15 medium and 5 large of a hundred",
    "chart-cold": "a chart of 1 000 rows × 10 columns that nobody asked for before",
    "chart-cached": "the same chart, from the cache",
    "dashboard": "10 cold charts at once; ends when the last one is there",
    "storm": "6 charts at once, the same for all users, which expire together every 5 s",
    "fanout": "one dashboard of 10 cached charts, opened by all users",
    "tenants": "small queries of one user, beside 20 clients of another one whose queries take 2 s",
}


class CellError(MendableError, ValueError):
    """A name that is no cell's; says what a name may be."""


@dataclass(frozen=True)
class Cell:
    """One workload under one load: `users` closed-loop users, or `per_second` arrivals (then `users` is 0).

    `delay_ms`: how long each packet between Superset's processes and their data stores takes, one way.
    """

    workload: Workload
    users: int
    per_second: float
    polling: Polling
    poll_seconds: float
    delay_ms: float

    @property
    def name(self) -> str:
        """The name that `parse` reads back."""
        load = f"{self.users}u" if self.users else f"{self.per_second:g}ps"
        default = self.polling == "api" and self.poll_seconds == API_POLL_SECONDS
        polling = "" if default else "browser" if self.polling == "browser" else f"api{self.poll_seconds:g}"
        delay = f"{self.delay_ms:g}ms" if self.delay_ms else ""
        return "-".join(part for part in (self.workload, load, polling, delay) if part)

    @property
    def charts(self) -> bool:
        """Whether it asks for charts, and not for SQL."""
        return self.workload in ("chart-cold", "chart-cached", "dashboard", "storm", "fanout")


_NAME = re.compile(
    rf"(?P<workload>{'|'.join(get_args(Workload))})-(?:(?P<users>\d+)u|(?P<rate>\d+(?:\.\d+)?)ps)"
    r"(?:-(?:(?P<browser>browser)|api(?P<poll>\d+(?:\.\d+)?)))?(?:-(?P<delay>\d+(?:\.\d+)?)ms)?"
)


def parse(name: str) -> Cell:
    """The cell called `name`; CellError for anything else."""
    match = _NAME.fullmatch(name)
    if match is None:
        workload = name.split("-", maxsplit=1)[0]
        raise CellError(
            f"{name} is no cell: it must be WORKLOAD-LOAD[-POLLING][-DELAY], such as small-50u, small-1u-api0.05, "
            f"small-50u-browser, small-6ps or small-10u-2ms. {did_you_mean(workload, get_args(Workload))}"
        )
    workload = cast(Workload, match["workload"])
    users, rate = int(match["users"] or 0), float(match["rate"] or 0)
    if not users and not rate:
        raise CellError(f"{name}: a load of nothing measures nothing; give users (50u) or arrivals a second (6ps)")
    polling: Polling = "browser" if match["browser"] else "api"
    cell = Cell(workload, users, rate, polling, 0.0, float(match["delay"] or 0))
    if polling == "browser":
        poll = BROWSER_CHART_SECONDS if cell.charts else BROWSER_SQL_SECONDS
    else:
        poll = float(match["poll"] or API_POLL_SECONDS)
        if not poll:
            raise CellError(f"{name}: a client that asks without a pause measures itself; give a poll above 0")
    return Cell(workload, users, rate, polling, poll, cell.delay_ms)


#: What `make bench` measures: at most an hour with five pairs (a test adds it up).
DEFAULT_CELLS: tuple[str, ...] = (
    "small-1u-api0.05",
    "small-10u",
    "small-50u",
    "small-200u",
    "small-50u-browser",
    "small-6ps",
    "medium-10u",
    "large-10u",
    "mixed-50u",
    "dashboard-1u",
    "chart-cached-10u",
    "storm-50u",
    "fanout-50u",
)
#: Two minutes of measuring for a comparison of ratios with a stored report.
QUICK_CELLS: tuple[str, ...] = ("small-50u", "small-1u-api0.05")


@dataclass(frozen=True)
class Schedule:
    """How long the parts of a measurement take, in seconds; all bounds, so that the whole is known before."""

    warm: float = 4.0
    measure: float = 16.0
    #: After a run: clients end what they have begun.
    drain: float = 2.0
    #: Statements and commands of single queries, counted once a side and cell.
    count: float = 6.0
    #: Starting a side from nothing, on two cores.
    start: float = 150.0
    #: Stopping and starting a side's processes with their data stores behind a delay.
    delay_change: float = 60.0

    @property
    def run(self) -> float:
        """One run of one side."""
        return self.warm + self.measure + self.drain


def expected_seconds(cells: Sequence[Cell], pairs: int, schedule: Schedule) -> float:
    """How long the measurement of `cells` takes with two sides: starting them, all runs, and counting."""
    changes = sum(before.delay_ms != after.delay_ms for before, after in itertools.pairwise(cells))
    changes += 1 if cells and cells[0].delay_ms else 0
    each = 2 * pairs * schedule.run + 2 * schedule.count
    return 2 * schedule.start + len(cells) * each + 2 * changes * schedule.delay_change


def in_order(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in the order that changes the delay least often, otherwise as they were asked for."""
    return sorted(cells, key=lambda cell: cell.delay_ms)
