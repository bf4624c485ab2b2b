"""Many ask for the same at once: identical cold charts, charts that expire under load, a holder that dies, forged values.

Executions are counted by the database: its statistics say how often the function in the dataset's SQL was called (sessions are
read-only, so that it cannot count itself).
`python -m bench.scenarios.stampede` runs it alone.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.report import Check, percentiles, show
from bench.world import World
from client.errors import ClientError
from client.session import json_object
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE

USERS = 50
#: Seconds that one execution takes.
SLOW, STORM = 2.0, 0.4
CHARTS = 6
STORM_SECONDS, STORM_TTL = 60, 15
COUNTED = """
CREATE OR REPLACE FUNCTION counted(seconds float8) RETURNS bigint LANGUAGE plpgsql VOLATILE AS
$$ BEGIN PERFORM pg_sleep(seconds); RETURN 1; END $$;
"""
#: A session tells its calls when it ends, or after this long.
STATISTICS_SECONDS = 1.5
SETTINGS: dict[str, Any] = {
    "topology": "minimal",
    # Counting is writing.
    "databases": {SAMPLE_DATABASE: {"sample": True, "allow_dml": True}},
    "web": {"processes": 2, "threads": 10},
    "workers": {"concurrency": 4, "min_workers": 1, "max_workers": 1},
}
UNPROTECTED = {"single_flight": False, "jitter": 0, "early_refresh": 0, "stale": 0}


@dataclass(frozen=True)
class Answer:
    """What one user got: rows or an error, and after how many seconds."""

    rows: Any
    error: str
    seconds: float


class Scene:
    """A platform with a dataset whose executions are counted."""

    def __init__(self, world: World, seconds: float) -> None:
        self.world = world
        world.sql(COUNTED, SAMPLE_DATABASE, user=SAMPLE_ROLE)
        world.sql(f"ALTER DATABASE {SAMPLE_DATABASE} SET track_functions = 'pl'")
        body = {
            "database": world.database_id,
            "schema": "public",
            "table_name": f"counted_{time.monotonic_ns()}",
            "sql": f"SELECT counted({seconds}) AS value",
        }
        session = world.session()
        answer = session.call("POST", "/api/v1/dataset/", body=body)
        with session.shape(answer):
            self._dataset = int(json_object(answer)["id"])
        session.close()

    def executions(self) -> int:
        """How often the dataset's SQL was executed so far."""
        time.sleep(STATISTICS_SECONDS)
        statement = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'counted'"
        return int(self.world.sql(statement, SAMPLE_DATABASE))

    def chart(self, name: str, **changes: Any) -> dict[str, Any]:
        """The request of a chart called `name`: another name has another cache key."""
        metric = {"expressionType": "SQL", "sqlExpression": "sum(value)", "label": name}
        return {
            "datasource": {"id": self._dataset, "type": "table"},
            "queries": [{"columns": [], "metrics": [metric], "row_limit": 10}],
            "result_format": "json",
            "result_type": "full",
        } | changes

    def all_at_once(
        self, payload: dict[str, Any], users: int = USERS, meanwhile: Callable[[], None] | None = None
    ) -> list[Answer]:
        """What `users` get who ask at the same moment; a payload of type `results` is computed by the web tier."""
        asynchronous = payload["result_type"] == "full"
        answers: list[Answer] = []
        barrier = threading.Barrier(users + 1)

        def user() -> None:
            session, client = self.world.session(), self.world.client()
            (client if asynchronous else session).login()
            barrier.wait()
            began = time.monotonic()
            rows: Any = None
            error = ""
            try:
                if asynchronous:
                    rows = client.chart_data(payload).queries[0]["data"]
                else:
                    answer = session.call("POST", "/api/v1/chart/data", body=payload)
                    with session.shape(answer):
                        rows = json_object(answer)["result"][0]["data"]
            except ClientError as failure:
                error = str(failure)
            answers.append(Answer(rows, error, time.monotonic() - began))
            session.close()
            client.close()

        threads = [threading.Thread(target=user, daemon=True) for _ in range(users)]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        barrier.wait()
        if meanwhile:
            meanwhile()
        for thread in threads:
            thread.join(240)
        return answers

    def storm(self) -> tuple[list[float], list[str], int]:
        """Seconds of each chart, errors, and executions, while users open a dashboard again and again."""
        seconds: list[float] = []
        errors: list[str] = []
        stop = time.monotonic() + STORM_SECONDS
        before = self.executions()

        def user(number: int) -> None:
            with self.world.client() as client:
                client.login()
                time.sleep(number * 0.1)
                while time.monotonic() < stop:
                    for chart in range(CHARTS):
                        began = time.monotonic()
                        try:
                            client.chart_data(self.chart(f"storm_{chart}"), timeout=60)
                            seconds.append(time.monotonic() - began)
                        except ClientError as error:
                            errors.append(str(error))
                    time.sleep(3)

        threads = [threading.Thread(target=user, args=(number,), daemon=True) for number in range(USERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(STORM_SECONDS + 120)
        return seconds, errors, self.executions() - before

    def holders(self) -> list[int]:
        """Process ids of those that compute something which others may wait for."""
        database = self.world.topology.database("coordination")
        redis = self.world.redis("broker", database.number)
        leases = [redis.get(key).decode() for key in redis.scan_iter(f"{database.prefix}flight:*")]
        # runtime/results/process_liveness.py: "<where>:<pid>.<start> <word>".
        return [int(lease.partition(" ")[0].rpartition(":")[2].partition(".")[0]) for lease in leases]


def run(say: Callable[[str], None] = print) -> list[Check]:
    """Every check: protected, and what the same load does without protection."""
    checks: list[Check] = []
    caching = {"chart_data_ttl": STORM_TTL}
    with World(SETTINGS | {"caching": caching}, say=say) as world:
        scene = Scene(world, SLOW)
        checks += _cold(scene, "protected", most=1)
        checks += _failing(scene)
        checks += _killed(scene)
        checks += _forged(scene)
        protected = Scene(world, STORM).storm()
    with World(SETTINGS | {"caching": caching | UNPROTECTED}, say=say) as world:
        checks += _cold(Scene(world, SLOW), "single_flight: false", most=None)
        shipped = Scene(world, STORM).storm()
    saved = 1 - protected[2] / shipped[2]
    # Users who are answered sooner ask for more.
    by_chart = 1 - protected[2] / len(protected[0]) * len(shipped[0]) / shipped[2]
    for name, (seconds, errors, executions) in (("protected", protected), ("without", shipped)):
        seen = (
            f"{executions} executions for {len(seconds)} charts, {percentiles(seconds)}, {len(errors)} errors {errors[:1]}"
        )
        held = None if name == "without" else not errors
        checks.append(Check(f"refresh storm, {name}", f"{USERS} users × {CHARTS} charts, no error", seen, held))
    seen = f"−{by_chart:.0%} a chart that was answered, −{saved:.0%} in all"
    checks.append(Check("refresh storm", "database load a chart −70 % or better", seen, by_chart >= 0.7))
    return checks


def _cold(scene: Scene, name: str, most: int | None) -> list[Check]:
    checks: list[Check] = []
    for kind, result_type in (("asynchronous", "full"), ("synchronous", "results")):
        before, tasks = scene.executions(), _tasks(scene.world)
        answers = scene.all_at_once(scene.chart(f"{kind}_{time.monotonic_ns()}", result_type=result_type))
        executions = scene.executions() - before
        errors = Counter(answer.error for answer in answers if answer.error)
        same = {repr(answer.rows) for answer in answers if not answer.error}
        seen = (
            f"{executions} executions, {_tasks(scene.world) - tasks} tasks, "
            f"{percentiles([answer.seconds for answer in answers])}, {sum(errors.values())} errors {list(errors)[:1]}"
        )
        held = executions <= most and not errors and len(same) == 1 and len(answers) == USERS if most else None
        checks.append(Check(f"{USERS} identical cold charts, {kind}, {name}", "1 execution, all answered", seen, held))
    return checks


def _tasks(world: World) -> int:
    """Tasks that a worker has had: it logs that it received and that it ended one."""
    return world.log("worker-default").count("Task load_chart_data_into_cache[") // 2


def _failing(scene: Scene) -> list[Check]:
    """A query that fails: those who wait get the failure, the next caller runs it again."""
    checks: list[Check] = []
    for kind, result_type in (("asynchronous", "full"), ("synchronous", "results")):
        metric = {"expressionType": "SQL", "sqlExpression": "sum(value) / 0", "label": f"fails_{time.monotonic_ns()}"}
        payload = scene.chart("-", result_type=result_type)
        payload["queries"][0]["metrics"] = [metric]
        before = scene.executions()
        answers = scene.all_at_once(payload)
        first = scene.executions() - before
        again = scene.all_at_once(payload, users=1)
        second = scene.executions() - before - first
        told = sum("division by zero" in answer.error for answer in answers)
        held = (
            # Synchronous requests that are let in after the failure compute it again, in rounds.
            told == USERS
            and second == 1
            and "division by zero" in again[0].error
            and first <= (1 if kind[0] == "a" else USERS // 5)
        )
        seen = f"{first} executions, {told} told why, {second} by the next caller"
        checks.append(Check(f"{USERS} identical failing charts, {kind}", "not run one after the other", seen, held))
    return checks


def _killed(scene: Scene) -> list[Check]:
    """The web process that computes is killed: those who wait in the other one finish."""
    victims: list[int] = []
    died: list[float] = []
    accepted: list[int] = []

    def kill() -> None:
        time.sleep(SLOW / 2)
        victims.extend(scene.holders())
        for pid in victims:
            accepted.append(_accepted(pid, scene.world.topology.web.port))
            os.kill(pid, signal.SIGKILL)
        died.append(time.monotonic())

    before = scene.executions()
    began = time.monotonic()
    answers = scene.all_at_once(scene.chart(f"killed_{time.monotonic_ns()}", result_type="results"), meanwhile=kill)
    answered = [answer for answer in answers if not answer.error]
    executions = scene.executions() - before
    late = max((answer.seconds for answer in answered), default=0.0) - (died[0] - began)
    cut = len(answers) - len(answered)
    # Nobody can answer what the killed process had accepted; everyone else is answered.
    held = len(victims) == 1 and executions == 2 and len(answers) == USERS and cut <= sum(accepted) < USERS
    seen = (
        f"{executions} executions, {len(answered)} answered, last {late:.1f} s after, {cut} lost of the {sum(accepted)} "
        "that the process had accepted"
    )
    return [Check("kill -9 of the web process that computes", "the others finish, 1 more execution", seen, held)]


def _accepted(pid: int, port: int) -> int:
    """How many connections of clients a web process has."""
    connections = psutil.Process(pid).net_connections()
    return sum(it.laddr.port == port and it.status == psutil.CONN_ESTABLISHED for it in connections)


def _forged(scene: Scene) -> list[Check]:
    """Someone who can write to the cache's Redis puts a pickle there that runs code when it is loaded."""
    world = scene.world
    payload = scene.chart(f"forged_{time.monotonic_ns()}")
    scene.all_at_once(payload, users=1)
    database = world.topology.database("data_cache")
    redis = world.redis("cache", database.number)
    proof = world.folder / "executed"
    written = 0
    for key in list(redis.scan_iter(f"{database.prefix}*")):
        redis.set(key, b"!" + pickle.dumps(_Bomb(proof)), keepttl=True)
        written += 1
    answers = scene.all_at_once(payload, users=5)
    told = [answer.error for answer in answers if answer.error]
    counters = world.topology.database("coordination")
    fields = world.redis("broker", counters.number).hgetall(f"{counters.prefix}counters")
    refused = sum(int(value) for name, value in fields.items() if b"cache_refused" in name)
    held = not proof.exists() and refused > 0 and not told and written > 0
    seen = f"{written} forged, {refused} refused, executed: {proof.exists()}, {len(told)} errors"
    return [Check("forged cache values", "not loaded, counted, computed anew", seen, held)]


class _Bomb:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._path), "w"))


if __name__ == "__main__":
    show(run())
