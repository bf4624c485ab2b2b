"""`python -m bench.tenants`: what tenants cost each other, on one local platform with real services.

noise    A submits 200 queries of 2 s at once; meanwhile B submits a small query every 0.4 s. Side by side on one platform, in
         turns: each of the two with workers of its own, both in one shared pool with fair shares, and both in one queue, which
         is the usual deployment. B is measured alone in the same place, while A submits (both then want the one web tier and
         this machine's processors), and while A's queries wait and run. Latency is from the submission to the result's being
         stored, as Superset records both.
routing  N submissions of four tenants at once (known by user, by role, by database, by guest token), of SQL Lab and of charts:
         in which pool's worker each one was executed.
router   microseconds that a route costs in the web process with 7 and with 50 tenants, and the process's memory.

Slow queries sleep in the database, so they cost no processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from bench.world import World
from client.superset_client import SupersetClient
from local import binaries, platform
from local.processes import superset_environment
from local.state import StateFolder
from topology.plan import plan

PROJECT = Path(__file__).resolve().parent.parent
PASSWORD = secrets.token_urlsafe(12)
#: Everyone with the roles beside Admin. Of no tenant by themselves: dave, and the two of the one queue.
PEOPLE: dict[str, list[str]] = {
    "alice": [],
    "bob": [],
    "sue": [],
    "sam": [],
    "uma": ["Queue"],
    "una": ["Queue"],
    "carol": ["Finance"],
    "dave": [],
}
TENANTS: dict[str, Any] = {
    "alpha": {"users": ["alice"], "concurrency": 2},
    "beta": {"users": ["bob"], "concurrency": 2},
    "share-1": {"users": ["sue"], "pool": "shared"},
    "share-2": {"users": ["sam"], "pool": "shared"},
    "finance": {"roles": ["Finance"], "concurrency": 1},
    "heavy": {"databases": ["examples"], "concurrency": 1},
    "acme": {"guests": [{"claim": "user.username", "value": "acme-*"}], "concurrency": 1},
}
SETTINGS: dict[str, Any] = {
    "topology": "multi-tenant",
    "tenants": TENANTS,
    "pools": {"default": {"concurrency": 4}, "priority": {"concurrency": 4}},
    "workers": {"min_workers": 1, "max_workers": 1},
    # Its users are sent to one queue with one pool, whatever they are: the usual deployment, beside the others.
    "urgent": {"queue": "priority", "roles": ["Queue"], "marker_roles": []},
    "resilience": {"max_in_flight_per_user": 1000, "max_queued": 2000},
}
FLOOD, FLOOD_SECONDS = 200, 2
SMALL, SMALL_EVERY = 50, 0.4
PHASES = ("alone", "while A submits", "while A's wait")


@dataclass(frozen=True)
class Place:
    """Two users who meet in a place: A floods, B is measured; the queue of A."""

    name: str
    a: str
    b: str
    queue: str
    slots: str


PLACES = (
    Place("a pool each", "alice", "bob", "alpha", "2 + 2"),
    Place("one pool, fair shares", "sue", "sam", "share-1", "4"),
    Place("one queue", "uma", "una", "priority", "4"),
)


@dataclass
class Bench:
    """The platform with its people."""

    world: World
    console: Console
    _tokens: dict[str, str] = field(default_factory=dict[str, str])

    def superset(self, *arguments: str, given: str = "", topology: Path | None = None) -> str:
        """What `in_superset.py` prints on the platform, or on its services with another topology."""
        state = StateFolder.of("scenario")
        env = superset_environment(self.world.topology, state, self.world.secrets, "web")
        if topology:
            env["SUPERSET_ASYNC_TOPOLOGY"] = str(topology)
        script = str(PROJECT / "bench/in_superset.py")
        command = [str(binaries.superset_python()), script, *arguments]
        done = subprocess.run(command, env=env, cwd=PROJECT, input=given, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return done.stdout

    def client(self, user: str) -> SupersetClient:
        """A new session of `user`, who logs in once."""
        if user not in self._tokens:
            body = {"username": user, "password": PASSWORD, "provider": "db", "refresh": False}
            url = f"{self.world.known['url']}/api/v1/security/login"
            answer = httpx.post(url, json=body, timeout=60, trust_env=False)
            answer.raise_for_status()
            self._tokens[user] = str(answer.json()["access_token"])
        return SupersetClient(self.world.known["url"], token=self._tokens[user])

    def latencies(self, ids: Sequence[int], patience: float) -> list[float]:
        """Seconds from submission to stored result of each query, once all have ended."""
        listed = ",".join(map(str, ids))
        deadline = time.monotonic() + patience
        while True:
            rows = self.world.sql(f"SELECT status, (end_time - start_time) / 1000 FROM query WHERE id IN ({listed})")
            found = [line.split("|") for line in rows.splitlines()]
            if all(status not in ("pending", "running") for status, _ in found):
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ended within {patience} s: {Counter(status for status, _ in found)}")
            time.sleep(1)
        wrong = Counter(status for status, _ in found if status != "success")
        if wrong:
            raise RuntimeError(f"small queries ended otherwise: {wrong}")
        return [float(seconds) for _, seconds in found]

    def small(self, user: str, goes_on: Callable[[int], bool] = lambda number: number < SMALL) -> list[int]:
        """`user`'s small queries, submitted at a steady pace whatever becomes of them."""
        ids: list[int] = []
        with self.client(user) as client:
            client.login()
            next_at = time.monotonic()
            while goes_on(len(ids)):
                time.sleep(max(0.0, next_at - time.monotonic()))
                next_at = max(next_at + SMALL_EVERY, time.monotonic())
                ids.append(client.submit(f"SELECT {len(ids)}", self.world.database_id).id)
        return ids

    def flood(self, user: str) -> int:
        """Submit A's queries from four sessions, and return how many were taken."""

        def submit(part: range) -> int:
            with self.client(user) as client:
                for number in part:
                    client.submit(f"SELECT wait_seconds({FLOOD_SECONDS}, {number})", self.world.database_id)
            return len(part)

        with ThreadPoolExecutor(4) as threads:
            return sum(threads.map(submit, [range(first, FLOOD, 4) for first in range(4)]))

    def calm(self, place: Place) -> None:
        """Throw away what waits of a flood, and wait until what runs has ended."""
        self.world.redis().delete(place.queue)
        self.world.sql("UPDATE query SET status = 'stopped' WHERE status = 'pending'")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.world.sql("SELECT count(*) FROM query WHERE status = 'running'") != "0":
            time.sleep(0.5)

    def noise(self, rounds: int) -> None:
        """Print what B had in each place, alone and beside the flood."""
        found: dict[str, dict[str, list[float]]] = {place.name: {phase: [] for phase in PHASES} for place in PLACES}
        for number in range(rounds):
            for place in PLACES:
                alone = self.latencies(self.small(place.b), 600)
                flood = threading.Thread(target=self.flood, args=(place.a,))
                flood.start()
                submitted = [self.small(place.b, lambda _, of=flood: of.is_alive()), self.small(place.b)]
                waiting = self.world.redis().llen(place.queue)
                phases = [alone, *(self.latencies(ids, 900) for ids in submitted)]
                for phase, seconds in zip(PHASES, phases, strict=True):
                    found[place.name][phase] += seconds
                self.calm(place)
                told = ", ".join(f"{phase} {_p(seconds)}" for phase, seconds in zip(PHASES, phases, strict=True))
                load = os.getloadavg()[0]
                self.console.print(f"round {number + 1}, {place.name}: {told}; {waiting} messages waited, load {load:.1f}")
        table = Table("place", "slots", *(f"B {phase}" for phase in PHASES), "P95 beside / alone", box=None)
        for place in PLACES:
            of = found[place.name]
            times = _percentiles(of[PHASES[2]])[1] / _percentiles(of[PHASES[0]])[1]
            table.add_row(place.name, place.slots, *(_p(of[phase]) for phase in PHASES), f"{times:.2f}")
        self.console.print(table)

    def routing(self, each: int) -> dict[str, Any]:
        """Where the submissions of four tenants were executed: how many of each were in which pool."""
        users = {"alpha": "alice", "finance": "carol", "heavy": "dave"}
        with ThreadPoolExecutor(len(users) + 1) as threads:
            jobs = {
                tenant: threads.submit(self._mixed, user, each, 1000 * place)
                for place, (tenant, user) in enumerate(users.items())
            }
            jobs["acme"] = threads.submit(self._as_guest, each)
            tasks = {task: tenant for tenant, job in jobs.items() for task in job.result()}
        deadline = time.monotonic() + 300
        while True:
            ran = self._executions()
            missing = [task for task in tasks if task not in ran]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(1)
        found = Counter((tenant, pool) for task, tenant in tasks.items() for pool in ran.get(task, ["nowhere"]))
        right = sum(ran.get(task) == [tenant] for task, tenant in tasks.items())
        return {
            "submissions": len(tasks),
            "executed by the tenant's own pool and no other": right,
            "by tenant and pool": {f"{tenant} in {pool}": count for (tenant, pool), count in sorted(found.items())},
        }

    def _mixed(self, user: str, count: int, base: int) -> list[str]:
        """SQL Lab and charts in turns; what starts the ids of their tasks."""
        tasks: list[str] = []
        with self.client(user) as client, closing(self._browser(user)) as browser:
            for number in range(count):
                if number % 2:
                    tasks.append(_job(browser.post("/api/v1/chart/data", json=self._chart(base + number))))
                else:
                    tasks.append(f"sql-{client.submit(f'SELECT {number}', self.world.database_id).id}")
        return tasks

    def _browser(self, user: str) -> httpx.Client:
        """A session of `user` as a browser has it: where anybody may ask for charts, a token does not say who asks."""
        session = httpx.Client(base_url=self.world.known["url"], timeout=60, trust_env=False)
        page = session.get("/login/").text
        found = re.search(r"csrf_token[^>]*?value=.([\w.-]+)", page) or re.search(r"csrf_token&#34;: &#34;([^&]+)", page)
        if found is None:
            raise RuntimeError("the log-in page has no CSRF token")
        session.post("/login/", data={"username": user, "password": PASSWORD, "csrf_token": found.group(1)})
        return session

    def _as_guest(self, count: int) -> list[str]:
        tasks: list[str] = []
        url = self.world.known["url"]
        session = httpx.Client(base_url=url, timeout=60, trust_env=False)
        for number in range(count):
            if number % 50 == 0:
                session.headers["X-GuestToken"] = self._guest_token(f"acme-{number}")
                # Its answer brings the cookie of the guest's channel.
                session.get("/api/v1/me/")
            tasks.append(_job(session.post("/api/v1/chart/data", json=self._chart(5000 + number))))
        return tasks

    def _guest_token(self, name: str) -> str:
        self.client("dave").close()
        headers = {"Authorization": f"Bearer {self._tokens['dave']}"}
        with httpx.Client(base_url=self.world.known["url"], headers=headers, timeout=60, trust_env=False) as session:
            csrf = session.get("/api/v1/security/csrf_token/").json()["result"]
            body: dict[str, Any] = {"user": {"username": name}, "resources": [], "rls": []}
            answer = session.post("/api/v1/security/guest_token/", json=body, headers={"X-CSRFToken": csrf})
        answer.raise_for_status()
        return str(answer.json()["token"])

    def _chart(self, number: int) -> dict[str, Any]:
        """A chart's request that no other one equals."""
        metric = {"expressionType": "SQL", "sqlExpression": f"max(order_id) + {number}", "label": "m"}
        few = {"col": "order_id", "op": "<", "val": 100}
        query: dict[str, Any] = {"columns": [], "metrics": [metric], "filters": [few], "row_limit": 1}
        return {
            "datasource": {"id": self.world.dataset_id, "type": "table"},
            "queries": [query],
            "result_type": "full",
            "result_format": "json",
        }

    def _executions(self) -> dict[str, list[str]]:
        """The pools whose workers have finished each task, by what starts its id: a query's or a chart job's."""
        found: dict[str, list[str]] = {}
        for pool in self.world.topology.pools:
            for task in re.findall(r"Task \S+\[(\S+?)\] succeeded", self.world.log(f"worker-{pool.name}")):
                found.setdefault(re.sub(r"^(sql-\d+).*", r"\1", task), []).append(pool.name)
        return found

    def router(self) -> list[dict[str, Any]]:
        """Costs of a route with the tenants of the platform, and with more of them, 50 together."""
        more = {
            f"more-{number}": {"users": [f"user-{number}", f"other-{number}"], "pool": "shared"}
            for number in range(50 - len(TENANTS))
        }
        local = self.world.topology
        ports = {
            "web_port": local.web.port,
            "postgres_port": local.postgres.port,
            "exporter_port": local.exporter.port,
            "redis_port": min(instance.port for instance in local.redis),
        }
        base = {**SETTINGS, "platform": "local", "databases": {"examples": {"sample": True}}, "local": ports}
        found: list[dict[str, Any]] = []
        for tenants in (TENANTS, TENANTS | more):
            file = self.world.folder / f"topology-{len(tenants)}.json"
            file.write_text(plan("scenario", {**base, "tenants": tenants}).model_dump_json())
            found.append(json.loads(self.superset("router", topology=file).strip().splitlines()[-1]))
        return found


def _job(answer: httpx.Response) -> str:
    if answer.status_code != 202:
        raise RuntimeError(f"a chart: {answer.status_code} {answer.text[:500]}")
    return str(answer.json()["job_id"])


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    return statistics.median(seconds), statistics.quantiles(seconds, n=20)[18]


def _p(seconds: Sequence[float]) -> str:
    p50, p95 = _percentiles(seconds)
    return f"P50 {p50:.2f} P95 {p95:.2f} s"


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["routing", "noise", "router"], help="noise, routing, router")
    parser.add_argument("--rounds", type=int, default=2, help="of noise")
    parser.add_argument("--each", type=int, default=130, help="submissions of each tenant, of routing")
    arguments = parser.parse_args()
    console = Console(width=150)
    # Seven pools start at once, maybe beside other work.
    platform.PATIENCE_SECONDS = 900
    with World(SETTINGS, console.print) as world:
        bench = Bench(world, console)
        bench.superset("people", given=json.dumps({"users": PEOPLE, "password": PASSWORD}))
        if "routing" in arguments.parts:
            console.print(bench.routing(arguments.each))
        if "noise" in arguments.parts:
            bench.noise(arguments.rounds)
        if "router" in arguments.parts:
            for found in bench.router():
                console.print(found)


if __name__ == "__main__":
    main()
