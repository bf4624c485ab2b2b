"""One cell measured on both sides in turns: what is acted on, sampled and added up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from bench.load import counting, measure
from bench.load.cells import THINK_SECONDS, Cell, Schedule
from bench.load.exchange import Answer, Sample, Task
from bench.load.sides import Side
from bench.load.verdict import percentile
from local.state import PROJECT
from topology.problems import MendableError

COUNTED_QUERIES = 20
#: Figures of which more is better; of the others less is.
MORE_IS_BETTER = frozenset({"queries/s"})
_TIERS = ("web", "worker", "postgres", "redis")


class LoadError(MendableError):
    """A load generator that ended by itself; its last words."""


@dataclass(frozen=True)
class Outcome:
    """One run of one side: its figures by name, what went wrong how often, and the strangers' share of the machine."""

    side: str
    figures: Mapping[str, float]
    errors: Mapping[str, int]
    foreign: float
    samples: int


@dataclass
class CellResult:
    """All runs of a cell, A's and B's in pairs, and what single queries cost."""

    cell: Cell
    a: list[Outcome] = field(default_factory=list[Outcome])
    b: list[Outcome] = field(default_factory=list[Outcome])
    counted: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict[str, dict[str, dict[str, float]]])


@dataclass(frozen=True)
class Lost:
    """Where a SQL Lab query's time went, by the metadata database: seconds, medians of a run."""

    waiting: float
    executing: float
    polling: float


class Runs:
    """Makes runs on two sides, each with a number that no other has."""

    def __init__(self, a: Side, b: Side | None, schedule: Schedule) -> None:
        self.a, self.b, self._schedule = a, b, schedule
        self._number = 0
        self._cores = psutil.cpu_count() or 1

    def task(self, side: Side, cell: Cell, most: int | None = None) -> Task:
        """The load of the next run."""
        self._number += 1
        schedule = self._schedule
        return Task(
            url=side.account.url,
            token=side.account.token,
            flood_token=side.account.flood_token,
            database_id=side.account.database_id,
            dataset_id=side.account.dataset_id,
            cell=cell,
            run=self._number,
            think=THINK_SECONDS,
            warm=0.0 if most else schedule.warm,
            measure=schedule.measure,
            drain=schedule.drain,
            most=most,
        )

    def run(self, side: Side, cell: Cell) -> Outcome:
        """One run of `side`, measured."""
        other = self.b if side is self.a else self.a
        own = [os.getpid(), *(pid for pids in (other.tiers() if other else {}).values() for pid in pids)]
        readings: list[measure.Reading] = []
        answer = _generate(self.task(side, cell), lambda pid: readings.append(measure.read(side.tiers(), [*own, pid])))
        before, after = readings
        samples = [sample for sample in answer.samples if sample.kind != "flood"]
        figures = latency_figures(samples, after.at - before.at)
        figures |= cost_figures(before, after, len(samples), answer.polls)
        if not cell.charts:
            figures |= self._lost(side, samples)
        figures["memory MB"] = sum(measure.pss_bytes(pids) for tier, pids in side.tiers().items() if tier != "proxy") / 1e6
        slot = measure.slot_bytes(side.tiers()["worker"])
        figures |= {"memory MB a slot": slot / 1e6} if slot else {}
        errors = dict(answer.errors)
        if cell.per_second and (unfinished := answer.begun - len(answer.samples) - sum(errors.values())) > 0:
            errors["not ended when the run was"] = unfinished
        return Outcome(side.name, figures, errors, measure.foreign_share(before, after, self._cores), len(samples))

    def generate(self, side: Side, cell: Cell, queries: int) -> Answer:
        """So many queries without thinking, and without measuring the side."""
        return _generate(self.task(side, cell, queries), lambda _: None)

    def _lost(self, side: Side, samples: Sequence[Sample]) -> dict[str, float]:
        ids = ",".join(f"'{sample.client_id}'" for sample in samples)
        if not ids:
            return {}
        rows = side.sql(
            "SELECT client_id, start_time / 1000, COALESCE(start_running_time, start_time) / 1000, end_time / 1000 "
            f"FROM query WHERE end_time IS NOT NULL AND client_id IN ({ids})"
        )
        times = {row[0]: tuple(map(float, row[1:])) for row in (line.split("|") for line in rows.splitlines())}
        return lost_figures(samples, times)

    def count(self, side: Side, cell: Cell) -> dict[str, dict[str, float]]:
        """What one query costs in statements and commands, with nobody else there."""
        alone = Cell(cell.workload, 1, 0.0, cell.polling, cell.poll_seconds, cell.delay_ms)
        busy = counting.count(side, lambda: self.generate(side, alone, COUNTED_QUERIES))
        idle = counting.count(side, lambda: time.sleep(self._schedule.count / 2))
        return counting.per_query(busy, idle, COUNTED_QUERIES)


def latency_figures(samples: Sequence[Sample], seconds: float) -> dict[str, float]:
    """Queries a second, and percentiles from submission to rows, of all and of each class where there are several."""
    figures = {"queries/s": len(samples) / seconds}
    kinds = sorted({sample.kind for sample in samples})
    for kind in ("", *(kinds if len(kinds) > 1 else ())):
        took = [sample.seconds for sample in samples if not kind or sample.kind == kind]
        for name, share in (("P50", 0.5), ("P95", 0.95), ("P99", 0.99)):
            value = percentile(took, share)
            if value is not None and len(took) * (1 - share) >= 1:
                figures[f"{name} s{f' of {kind}' if kind else ''}"] = value
    return figures


def cost_figures(before: measure.Reading, after: measure.Reading, queries: int, polls: int) -> dict[str, float]:
    """Processor milliseconds a query by tier and of all, cores that each side's workers used, and polls a query."""
    spent = {tier: after.tiers[tier] - before.tiers.get(tier, 0.0) for tier in after.tiers}
    figures: dict[str, float] = {"worker cores": spent.get("worker", 0.0) / (after.at - before.at)}
    if not queries:
        return figures
    for tier in (*_TIERS, *sorted(spent.keys() - set(_TIERS))):
        if tier in spent:
            figures[f"CPU ms a query, {tier}"] = spent[tier] * 1000 / queries
    figures["CPU ms a query"] = sum(value for tier, value in spent.items() if tier != "proxy") * 1000 / queries
    figures["polls a query"] = polls / queries
    return figures


def lost_figures(samples: Sequence[Sample], times: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """Medians of where the time went: until a worker had it, until the database had answered, until the client had its rows.

    `times`: by client id, seconds since the epoch at which the query was written down, began to run and ended.
    """
    parts: dict[str, list[float]] = {"s until a worker has it": [], "s executing": [], "s lost to polling and fetching": []}
    for sample in samples:
        if sample.client_id not in times:
            continue
        _, began, ended = times[sample.client_id]
        values = (began - sample.began, ended - began, sample.began + sample.seconds - ended)
        for part, value in zip(parts.values(), values, strict=True):
            part.append(max(0.0, value))
    return {name: value for name, took in parts.items() if (value := percentile(took, 0.5)) is not None}


def _generate(task: Task, at_edge: Callable[[int], object]) -> Answer:
    """Run the generator for `task`; `at_edge` is called with its process id when the measured time begins and when it ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load.generator"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: S101
    try:
        process.stdin.write(task.model_dump_json())
        process.stdin.close()
        last = ""
        for line in process.stdout:
            if line.strip() in ("begin", "end"):
                at_edge(process.pid)
            else:
                last = line
        words = process.stderr.read()
        if process.wait() or not last:
            raise LoadError(f"the load generator ended with {process.returncode}: {words[-2000:]}")
        return Answer.model_validate_json(last)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
