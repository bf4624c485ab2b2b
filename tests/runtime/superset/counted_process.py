"""Run in Superset's environment: does the work of one query and one chart, step by step, and prints what each step cost as JSON.

Usage: counted_process.py web|worker LOG. The web process submits, prints a line, waits for a line on its standard input (which
says that the worker has done its part), and asks for states and rows; everything is done more than once, and the last time
counts. The worker executes what waits in the broker, in its own process, as Celery's child would.
"""

from __future__ import annotations

import json
import os
import random
import sys
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.environment import process_topology
from runtime.environment.kept_answers import KeptAnswers
from runtime.environment.shared_version import SharedVersion
from tests.runtime.superset.counted import Cost, Counter

PASSWORD = "for-this-test"
TIMES = 3
NEVER = 3600.0
#: Rows of the chart's table.
TABLE = "counted_rows"


class User:
    """A logged-in user of the HTTP API, as one with a bearer token and cookies."""

    def __init__(self, app: Any, name: str) -> None:
        self.client = app.test_client()
        login = {"username": name, "password": PASSWORD, "provider": "db", "refresh": False}
        token = self.client.post("/api/v1/security/login", json=login).json["access_token"]
        self._headers = {"Authorization": f"Bearer {token}"}
        self._headers["X-CSRFToken"] = self.get("/api/v1/security/csrf_token/").json["result"]

    def get(self, path: str) -> Any:
        answer = self.client.get(path, headers=self._headers)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer

    def post(self, path: str, body: Any, status: int) -> Any:
        answer = self.client.post(path, json=body, headers=self._headers)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.json


def web(counter: Counter) -> dict[str, Cost]:
    """What a browser asks for."""
    from runtime.start.wsgi import application_factory

    app: Any = application_factory()
    _log_never()
    costs: dict[str, Cost] = {}
    with app.app_context():
        from superset import extensions

        from runtime.superset.preparation import register_databases

        sm: Any = extensions.security_manager
        if not sm.find_user(username="counted"):
            sm.add_user("counted", "c", "c", "counted@localhost", sm.find_role("Admin"), password=PASSWORD)
        session: Any = extensions.db.session
        database_id = session.execute("SELECT id FROM dbs WHERE database_name = 'analytics'").scalar()
        register_databases(app, process_topology.started(), os.environ, print)
        session.remove()
    user = User(app, "counted")
    if not user.get("/api/v1/dataset/").json["count"]:
        user.post("/api/v1/dataset/", {"database": database_id, "schema": "public", "table_name": TABLE}, 201)
    dataset_id = user.get("/api/v1/dataset/").json["ids"][0]
    queries: list[dict[str, Any]] = []
    for number in range(TIMES):
        body = {
            "database_id": database_id,
            "sql": f"SELECT {number} AS n",
            "runAsync": True,
            "client_id": uuid.uuid4().hex[:10],
            "sql_editor_id": "1",
            "queryLimit": 1000,
            "schema": "public",
        }
        with counter.count() as costs["query: submit"]:
            queries.append(user.post("/api/v1/sqllab/execute/", body, 202)["query"])
    jobs: list[dict[str, Any]] = []
    for _ in range(TIMES):
        with counter.count() as costs["chart: submit"]:
            jobs.append(user.post("/api/v1/chart/data", _chart(dataset_id, random.randrange(1, 9000)), 202))
    print("submitted", flush=True)
    sys.stdin.readline()
    for query in queries:
        with counter.count() as costs["query: poll by id"]:
            found = user.get(f"/api/v1/query/{query['queryId']}").json["result"]
        assert found["status"] == "success", found
        with counter.count() as costs["query: poll by time"]:
            user.get("/api/v1/query/updated_since?q=(last_updated_ms:0)")
        with counter.count() as costs["query: rows"]:
            rows = user.get(f"/api/v1/sqllab/results/?q=(key:'{found['results_key']}')").json["data"]
        assert len(rows) == 1, rows
    events: list[Any] = []
    for _ in jobs:
        with counter.count() as costs["chart: poll"]:
            events = user.get("/api/v1/async_event/").json["result"]
    done = {event["job_id"]: event for event in events if event["status"] == "done"}
    for job in jobs:
        with counter.count() as costs["chart: rows"]:
            user.get(done[job["job_id"]]["result_url"])
    with app.test_request_context():
        extensions.db.session.remove()
    return costs


def _chart(dataset_id: int, row_limit: int) -> dict[str, Any]:
    query = {"columns": ["kind"], "metrics": [], "orderby": [], "row_limit": row_limit, "filters": []}
    return {"datasource": {"id": dataset_id, "type": "table"}, "queries": [query], "result_format": "json"}


def worker(counter: Counter) -> dict[str, Cost]:
    """What a worker's child does for each message."""
    from celery.app.trace import fast_trace_task, setup_worker_optimizations
    from celery.signals import worker_process_init
    from superset.tasks.celery_app import app as celery

    celery.loader.import_default_modules()
    setup_worker_optimizations(celery, "worker@counted")
    celery.finalize()
    for task in celery.tasks.values():
        task.__trace__ = _tracer(task, celery)
    worker_process_init.send(sender=None)
    _log_never()
    costs: dict[str, Cost] = {}
    with celery.connection_for_read() as connection:
        channel: Any = connection.default_channel
        while (message := channel.basic_get("default")) is not None:
            headers: dict[str, Any] = dict(message.headers)
            delivery = {"routing_key": "default", "exchange": "", "redelivered": False}
            request = {**headers, "delivery_info": delivery, "hostname": "worker@counted", "reply_to": None}
            name = "query: worker" if headers["task"].startswith("sql_lab") else "chart: worker"
            body = (message.body, message.content_type, message.content_encoding)
            with counter.count() as costs[name]:
                fast_trace_task(headers["task"], headers["id"], request, *body, hostname="worker@counted")
            message.ack()
    return costs


def _tracer(task: Any, celery: Any) -> Any:
    from celery.app.trace import build_tracer

    return build_tracer(task.name, task, celery.loader, "worker@counted", app=celery)


def _log_never() -> None:
    from runtime.environment import counters
    from runtime.superset import event_log

    event_log.batches._every_seconds = NEVER
    counters.later._every_seconds = NEVER


def _nothing_by_the_clock() -> None:
    """What is done every second, or after seconds, is no cost of a query: have none of it happen in between."""
    # Imported when their processes are configured.
    from runtime.superset import known_users, pings

    pings.TRUSTED_SECONDS = NEVER
    known_users.kept = KeptAnswers(SharedVersion("users", NEVER), NEVER)


def main() -> None:
    """Print the costs as one line."""
    counter = Counter(Path(sys.argv[2]))
    _nothing_by_the_clock()
    costs = web(counter) if sys.argv[1] == "web" else worker(counter)
    print(json.dumps({name: {**asdict(cost), "numbers": cost.numbers()} for name, cost in costs.items()}))


if __name__ == "__main__":
    main()
