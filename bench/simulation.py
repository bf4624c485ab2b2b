"""Pools simulated with simpy: the queueing model beside what it approximates, and the autoscaler over a day.

    python -m bench.simulation model        P95 of the wait: model against simulation, for loads of three kinds
    python -m bench.simulation autoscaler   a day's curve and a Monday's burst: P95 of the wait against worker-hours, by
    target and window

Simulated time has nothing to do with this machine's: a figure is the same on a busy one. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import simpy
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.load.verdict import percentile
from sizing.autoscaling import Rules, Scaler
from sizing.constants import MEASURED
from sizing.queueing import Service, Stream, merged, slots_needed, wait_quantile

HOUR = 3600.0
#: Seconds until a new worker takes its first message: a pod that is scheduled with its image there, and 10-24 s of Superset.
POD_START = 30.0


def drawn(service: Service, dice: random.Random) -> float:
    """A service time: lognormal, as durations of queries are; exactly the mean where there is no variation."""
    if service.cv == 0:
        return service.mean
    variance = math.log(1 + service.cv**2)
    return dice.lognormvariate(math.log(service.mean) - variance / 2, math.sqrt(variance))


def waits(slots: int, streams: Sequence[Stream], arrivals: int, seed: int) -> list[float]:
    """Seconds that each of `arrivals` waited in one queue before `slots`, from an empty start whose first tenth is left out."""
    dice = random.Random(seed)
    environment: Any = simpy.Environment()
    pool: Any = simpy.Resource(environment, slots)
    waited: list[float] = []
    rates = [stream.rate for stream in streams]

    def served(service: Service) -> Generator[Any, Any, None]:
        came = environment.now
        with pool.request() as slot:
            yield slot
            waited.append(environment.now - came)
            yield environment.timeout(drawn(service, dice))

    def arrive() -> Generator[Any, Any, None]:
        for _ in range(arrivals):
            yield environment.timeout(dice.expovariate(sum(rates)))
            environment.process(served(dice.choices(streams, rates)[0].service))

    environment.process(arrive())
    environment.run()
    return waited[arrivals // 10 :]


@dataclass(frozen=True)
class Case:
    """A load to check the model with: its streams, and the P95 of the wait that slots are sized for, in seconds."""

    name: str
    streams: tuple[Stream, ...]
    wait: float


SHORT, MEDIUM, LONG = Service(0.3, 0.5), Service(5.0, 0.8), Service(60.0, 1.0)
CASES = (
    Case("short queries", (Stream(20.0, SHORT),), 0.5),
    Case("short and medium", (Stream(6.0, SHORT), Stream(0.6, MEDIUM)), 2.0),
    Case("short, medium and long", (Stream(6.0, SHORT), Stream(0.6, MEDIUM), Stream(0.03, LONG)), 5.0),
)


@dataclass(frozen=True)
class Checked:
    """A case with the slots that the model gives it, and the fewest that the simulation needs: P95 of the wait with the
    model's slots by the model and by the simulation's runs, in seconds."""

    name: str
    slots: int
    fewest: int
    model: float
    simulated: tuple[float, ...]


def check(case: Case, arrivals: int, runs: int) -> Checked:
    """Size `case` as the recommendation does, and simulate it `runs` times; then with ever fewer slots, until its objective
    is missed."""
    slots = slots_needed(case.streams, 0.95, case.wait, MEASURED.utilization)

    def simulated(number: int) -> tuple[float, ...]:
        return tuple(percentile(waits(number, case.streams, arrivals, seed), 0.95) or 0.0 for seed in range(runs))

    fewest = slots
    while fewest - 1 > merged(case.streams).offered and statistics.median(simulated(fewest - 1)) <= case.wait:
        fewest -= 1
    return Checked(case.name, slots, fewest, wait_quantile(slots, case.streams, 0.95), simulated(slots))


@dataclass(frozen=True)
class Day:
    """What a pool went through: P95 and longest wait in seconds, worker-hours, and workers over time for a plot."""

    p95: float
    longest: float
    worker_hours: float
    most: int
    series: tuple[tuple[float, int, int], ...]


def weekday(hour: float) -> float:
    """Share of the busiest hour's rate at an hour of the day: nights are quiet, two humps around lunch."""
    humps = math.exp(-((hour - 10.5) ** 2) / 4) + 0.9 * math.exp(-((hour - 15) ** 2) / 5)
    return 0.05 + 0.95 * min(1.0, humps)


def monday(hour: float) -> float:
    """A weekday whose users all open their dashboards at nine: four times the busiest hour, for ten minutes."""
    return weekday(hour) + (4.0 if 9 <= hour < 9 + 1 / 6 else 0.0)


def day(  # noqa: PLR0915 one world of processes that share what they change
    rules: Rules,
    curve: Callable[[float], float],
    peak: float,
    streams: Sequence[Stream],
    *,
    concurrency: int,
    seed: int,
    hours: float = 24.0,
) -> Day:
    """One day of a pool under its scaler. `peak`: arrivals a second in the busiest hour; `streams` give their shares and times.

    A worker that is to go finishes what it runs and takes nothing new; a slot's processor time is a task's, spread over it.
    """
    dice = random.Random(seed)
    environment: Any = simpy.Environment()
    queue: deque[tuple[float, Service]] = deque()
    running = 0
    workers = started = rules.min_workers
    waited: list[float] = []
    series: list[tuple[float, int, int]] = []
    hours_paid = 0.0
    cpu_of_slot = MEASURED.worker_cpu_seconds / merged(streams).service.mean

    def dispatch() -> None:
        nonlocal running
        while queue and running < started * concurrency:
            came, service = queue.popleft()
            waited.append(environment.now - came)
            running += 1
            environment.timeout(drawn(service, dice)).callbacks.append(served)

    def served(_: object) -> None:
        nonlocal running
        running -= 1
        dispatch()

    def arrive() -> Generator[Any, Any, None]:
        weights = [stream.rate for stream in streams]
        while environment.now < hours * HOUR:
            # The rate is that of the minute; what would come after its end is drawn anew, which changes nothing (memoryless).
            pause = dice.expovariate(peak * curve(environment.now / HOUR % 24))
            left = 60.0 - environment.now % 60.0
            yield environment.timeout(min(pause, left))
            if pause < left:
                queue.append((environment.now, dice.choices(streams, weights)[0].service))
                dispatch()

    def start(count: int) -> Generator[Any, Any, None]:
        nonlocal started
        yield environment.timeout(POD_START)
        started = min(started + count, workers)
        dispatch()

    def scale() -> Generator[Any, Any, None]:
        nonlocal workers, started, hours_paid
        scaler = Scaler(rules)
        seen, seen_at = 0, -math.inf
        while environment.now < hours * HOUR:
            yield environment.timeout(rules.decide_every)
            hours_paid += workers * rules.decide_every / HOUR
            if environment.now - seen_at >= rules.look_every:
                seen, seen_at = len(queue) + running, environment.now
            # Of a request of half a core, as the presets' workers have.
            to = scaler.decide(environment.now, workers, seen, running * cpu_of_slot / 0.5)
            if to > workers:
                environment.process(start(to - workers))
            workers = to
            started = min(started, workers)
            series.append((environment.now / HOUR, workers, len(queue)))

    environment.process(arrive())
    environment.process(scale())
    environment.run()
    return Day(
        percentile(waited, 0.95) or 0.0, max(waited, default=0.0), hours_paid, max(it for _, it, _ in series), tuple(series)
    )


#: The pool of the presets under 3 queries a second in its busiest hour, which keep 13 of its slots busy.
POOL_STREAMS = (Stream(0.6, SHORT), Stream(0.35, MEDIUM), Stream(0.04, LONG))
POOL_PEAK = 3.0
TARGETS, WINDOWS = (4, 8, 16, 50), (60.0, 300.0, 900.0)


def days(targets: Sequence[int], windows: Sequence[float], hours: float = 24.0) -> dict[tuple[str, int, float], Day]:
    """A day of each kind under each target and window."""
    base = Rules(min_workers=2, max_workers=20, queued_per_worker=50)
    grid = [
        (name, curve, target, window)
        for name, curve in (("weekday", weekday), ("monday", monday))
        for target in targets
        for window in windows
    ]
    return {
        (name, target, window): day(
            replace(base, queued_per_worker=target, window=window),
            curve,
            POOL_PEAK,
            POOL_STREAMS,
            concurrency=4,
            seed=1,
            hours=hours,
        )
        for name, curve, target, window in track(grid, description="days")
    }


def plot_days(found: dict[tuple[str, int, float], Day], folder: Path) -> Path:
    """Workers over a Monday under each target, at the window of the presets."""
    from matplotlib.figure import Figure

    drawing: Any = Figure(figsize=(9, 6), layout="constrained")
    above, below = drawing.subplots(2, sharex=True)
    for (name, target, window), result in found.items():
        if name == "monday" and window == 300.0:
            hours = [hour for hour, _, _ in result.series]
            above.step(hours, [workers for _, workers, _ in result.series], label=f"{target} queued a worker", linewidth=0.9)
            below.plot(hours, [waiting for _, _, waiting in result.series], linewidth=0.9)
    above.set_ylabel("workers")
    below.set_ylabel("messages waiting")
    below.set_xlabel("hour of a Monday with a burst at nine")
    above.legend(fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "autoscaler-monday.svg"
    drawing.savefig(path)
    return path


def _show_model(console: Console, arrivals: int, runs: int) -> None:
    heads = (
        "load",
        "wait allowed s",
        "slots, model",
        "slots, simulation",
        "P95 with the model's slots: model s",
        "simulation s",
    )
    console.print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for case in CASES:
        found = check(case, arrivals, runs)
        told = f"{statistics.median(found.simulated):.2f} ({min(found.simulated):.2f} to {max(found.simulated):.2f})"
        console.print(f"| {case.name} | {case.wait} | {found.slots} | {found.fewest} | {found.model:.2f} | {told} |")


def _show_days(console: Console, folder: Path) -> None:
    found = days(TARGETS, WINDOWS)
    table = Table("day", "queued a worker", "window s", "P95 wait s", "longest s", "worker-hours", "most workers", box=None)
    for (name, target, window), result in found.items():
        cells = (f"{result.p95:.1f}", f"{result.longest:.0f}", f"{result.worker_hours:.0f}", str(result.most))
        table.add_row(name, str(target), f"{window:.0f}", *cells)
    console.print(table)
    console.print(f"written: {plot_days(found, folder)}")


def main() -> None:
    """Simulate what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("model", "autoscaler"))
    parser.add_argument("--arrivals", type=int, default=60_000, help="of each simulated run of the model's check")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    console = Console(width=150)
    if arguments.what == "model":
        _show_model(console, arguments.arrivals, arguments.runs)
    else:
        _show_days(console, arguments.folder)


if __name__ == "__main__":
    main()
