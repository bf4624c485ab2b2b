"""`python -m bench.load.generator`: the load of one run, by locust; a process of its own, since locust's gevent patches it.

Reads a `Task` as JSON from stdin. Prints `begin` and `end` around the measured time, and then one line of JSON, an `Answer`. A
query is one sample: from its submission to its rows in the client's hands (in an open loop: from the moment it was due).
"""

from __future__ import annotations

# Before anything that opens a socket: it patches them.
from locust import FastHttpUser, events, task  # isort: skip

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

import gevent
from gevent.event import Event
from gevent.pool import Group
from locust.env import Environment

from bench.load import workloads
from bench.load.exchange import Answer, Sample, Task

FINAL = ("success", "failed", "stopped", "timed_out")
#: A query that has not ended after so long is `unanswered`.
PATIENCE_SECONDS = 120.0
#: Sessions that an open loop's arrivals share: a browser has one, and so do they.
OPEN_LOOP_SESSIONS = 20


class FailedError(Exception):
    """A query that did not bring its rows; says at which step, and what was answered."""


@dataclass
class Run:
    """What all users of this process share: the task, and what has come of it."""

    task: Task
    measuring: bool = False
    number: int = 0
    polls: int = 0
    begun: int = 0
    samples: list[Sample] = field(default_factory=list[Sample])
    errors: Counter[str] = field(default_factory=Counter[str])
    full: Event = field(default_factory=Event)
    dice: random.Random = field(default_factory=random.Random)

    def next(self) -> int:
        """A number that no other query of this side has."""
        self.number += 1
        return self.task.run * 1_000_000 + self.number

    @property
    def exhausted(self) -> bool:
        """Whether as many queries were begun as were asked for."""
        return self.task.most is not None and self.number >= self.task.most


run: Run


class QueryUser(FastHttpUser):
    """One user with a session of its own, who asks for one query (or dashboard) after the other."""

    host = "http://127.0.0.1"
    network_timeout = connection_timeout = PATIENCE_SECONDS
    #: The class of its queries where they are others than the workload's.
    flooding = False

    def wait_time(self) -> float:
        """Seconds of thought; nobody thinks where single queries are counted or where a user floods."""
        return 0.0 if self.flooding or run.task.most is not None else run.dice.expovariate(1 / run.task.think)

    def on_start(self) -> None:
        """Get the cookies of an own session for the token that all share: log-ins are limited in number."""
        token = run.task.flood_token if self.flooding else run.task.token
        self.sent = {"Authorization": f"Bearer {token}"}
        answer = self.call("GET", "/api/v1/security/csrf_token/", "csrf")
        self.sent |= {"X-CSRFToken": str(answer.json()["result"]), "Referer": f"{run.task.url}/"}
        self.last_event: str | None = None

    @task
    def query(self) -> None:
        """One query, from submission to rows."""
        if run.exhausted:
            run.full.set()
            gevent.sleep(1)
            return
        self.sample(time.time())

    def sample(self, due: float) -> None:
        """Ask, wait, fetch, and note what came of it since `due` (seconds since the epoch)."""
        measured = run.measuring
        run.begun += measured
        number = run.next()
        kind, client_id, outcome = run.task.cell.workload, "", "success"
        try:
            if self.flooding:
                kind, client_id = "flood", self.sql(workloads.flood(number))
            elif run.task.cell.charts:
                self.dashboard(workloads.charts(run.task.cell.workload, number, time.time(), run.task.run))
            else:
                text, kind = workloads.statement(run.task.cell.workload, number, run.dice)
                client_id = self.sql(text)
        except FailedError as error:
            outcome = str(error)
        except OSError as error:
            outcome = type(error).__name__
        ended = time.time()
        if outcome != "success":
            run.errors[outcome] += 1
        # What an open loop measures is what was due in the measured time; a closed one, what ended in it.
        counted = measured if run.task.cell.per_second else run.measuring
        if counted and outcome == "success":
            run.samples.append(Sample(kind=kind, began=due, seconds=ended - due, client_id=client_id))
        cast(Any, events.request).fire(
            request_type="QUERY",
            name=kind,
            response_time=(ended - due) * 1000,
            response_length=0,
            exception=None if outcome == "success" else FailedError(outcome),
            context={},
        )

    def sql(self, text: str) -> str:
        """Run `text` asynchronously in SQL Lab; its client id."""
        client_id = "".join(run.dice.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=11))
        since = int((time.time() - 2) * 1000)
        body = {
            "database_id": run.task.database_id,
            "sql": text,
            "runAsync": True,
            "client_id": client_id,
            "sql_editor_id": "bench",
            "queryLimit": 10_000,
        }
        answer = self.call("POST", "/api/v1/sqllab/execute/", "submit", body, wanted=(202,))
        query_id = int(answer.json()["query"]["queryId"])
        key = self.followed(query_id, client_id, since)
        self.call("GET", f"/api/v1/sqllab/results/?q=(key:'{key}')", "rows")
        return client_id

    def followed(self, query_id: int, client_id: str, since: int) -> str:
        """Ask until the query has ended; the key of its rows."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            gevent.sleep(run.task.cell.poll_seconds)
            run.polls += run.measuring
            if run.task.cell.polling == "api":
                found = self.call("GET", f"/api/v1/query/{query_id}", "poll").json()["result"]
                state, key = found["status"], found["results_key"]
            else:
                path = f"/api/v1/query/updated_since?q=(last_updated_ms:{since})"
                listed = self.call("GET", path, "poll").json()["result"]
                mine = [it for it in listed if it["id"] == client_id]
                if not mine:
                    continue
                state, key = mine[0]["state"], mine[0]["resultsKey"]
            if state == "success":
                return str(key)
            if state in FINAL:
                raise FailedError(state)
        raise FailedError("unanswered")

    def dashboard(self, salts: list[int]) -> None:
        """Ask for all charts at once, follow their jobs together as a page does, and fetch each."""
        jobs: dict[str, int] = {}

        def ask(salt: int) -> None:
            body = workloads.chart(run.task.dataset_id, salt)
            answer = self.call("POST", "/api/v1/chart/data", "chart", body, wanted=(200, 202))
            if answer.status_code == 202:
                told = answer.json()
                jobs[str(told.get("result", told)["job_id"])] = salt

        self.together([(ask, salt) for salt in salts])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while jobs:
            if time.monotonic() > deadline:
                raise FailedError("unanswered")
            gevent.sleep(run.task.cell.poll_seconds)
            run.polls += run.measuring
            query = f"?last_id={quote(self.last_event)}" if self.last_event else ""
            ready: list[str] = []
            for event in self.call("GET", f"/api/v1/async_event/{query}", "poll").json()["result"]:
                self.last_event = str(event["id"])
                if event["job_id"] in jobs and event["status"] in ("done", "error"):
                    del jobs[event["job_id"]]
                    if event["status"] == "error":
                        raise FailedError("chart")
                    ready.append(str(event["result_url"]))
            self.together([(self.fetch, url) for url in ready])

    def fetch(self, url: str) -> None:
        """The rows of a chart whose job is done."""
        self.call("GET", url, "rows")

    def together(self, calls: list[tuple[Any, Any]]) -> None:
        """Make calls at the same time; raises what the first failed one raised."""
        if len(calls) == 1:
            calls[0][0](calls[0][1])
            return
        group = Group()
        greenlets = [group.spawn(function, argument) for function, argument in calls]
        group.join()
        for greenlet in greenlets:
            greenlet.get()

    def call(self, method: str, path: str, name: str, body: Any = None, wanted: tuple[int, ...] = (200,)) -> Any:
        """One request; FailedError for any other status than `wanted`."""
        client: Any = self.client
        answer = client.request(method, path, name=name, headers=self.sent, json=body)
        if answer.status_code not in wanted:
            raise FailedError(f"{name} {answer.status_code}")
        return answer


class FloodUser(QueryUser):
    """The tenant that floods."""

    flooding = True


class ArrivalUser(QueryUser):
    """An open loop: queries are due at random moments, and begin whatever became of the ones before."""

    def wait_time(self) -> float:
        """None: `query` itself waits for the next one that is due."""
        return 0.0

    def on_start(self) -> None:
        """Sessions beside this user's own, taken in turns."""
        super().on_start()
        self.sessions = [QueryUser(cast(Any, self).environment) for _ in range(OPEN_LOOP_SESSIONS)]
        for session in self.sessions:
            session.on_start()
        self.arrived = Group()
        self.due = time.time()

    @task
    def query(self) -> None:
        """Begin the next one when it is due."""
        self.due += run.dice.expovariate(run.task.cell.per_second)
        gevent.sleep(max(0.0, self.due - time.time()))
        session = self.sessions[run.number % len(self.sessions)]
        self.arrived.spawn(session.sample, self.due)


def main() -> None:
    """Make the load that stdin describes."""
    global run  # noqa: PLW0603 locust makes its users itself, and gives them nothing but their environment
    run = Run(Task.model_validate_json(sys.stdin.read()))
    asked = run.task
    run.dice.seed(asked.run)
    if asked.cell.per_second:
        classes: list[type[QueryUser]] = [ArrivalUser]
    elif asked.cell.workload == "tenants":
        QueryUser.fixed_count, FloodUser.fixed_count = asked.cell.users, workloads.FLOOD_CLIENTS
        classes = [QueryUser, FloodUser]
    else:
        classes = [QueryUser]
    environment = Environment(user_classes=cast(Any, classes), host=asked.url, events=events)
    runner = environment.create_local_runner()
    users = 1 if asked.cell.per_second else asked.cell.users
    users += workloads.FLOOD_CLIENTS if asked.cell.workload == "tenants" else 0
    runner.start(users, spawn_rate=max(1.0, users / 2))
    gevent.sleep(asked.warm)
    run.measuring = True
    _say("begin")
    if asked.most is None:
        gevent.sleep(asked.measure)
    else:
        run.full.wait(PATIENCE_SECONDS)
    run.measuring = False
    _say("end")
    if asked.cell.per_second:
        # What was due and has not ended counts with the time that it has waited so far, at least.
        gevent.sleep(asked.drain)
    runner.quit()
    _say(Answer(samples=run.samples, begun=run.begun, polls=run.polls, errors=dict(run.errors)).model_dump_json())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
