"""Run in Superset's environment as a web process that does what it is told: a line of JSON in, a line of JSON out.

{"do": name, ...arguments} calls the method of that name of `Process`; the answer is {"answer": …}, or {"error": …}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import jwt

from runtime.broker import delayed_messages
from runtime.environment import counters, process_topology, redis_databases, secrets
from runtime.environment.redis_clients import client
from runtime.queries import chart_jobs, interfaces, reaper
from runtime.queries.canceller import Canceller
from runtime.start import maintenance
from runtime.superset import without_superset
from tests.runtime import answers
from tests.runtime.web_process import PASSWORD, Browser
from topology import commands


class Process:
    """A web process with users, and a reaper whose clock is told."""

    def __init__(self) -> None:
        from superset.app import create_app

        self._app: Any = create_app()
        # A thread that writes counters would be taken for a request that waits for the broker.
        counters.later._every_seconds = 3600.0
        self._browsers: dict[str, Browser] = {}
        self._now = 0.0
        topology = process_topology.started()
        events = client(redis_databases.database(topology, secrets.read(topology, os.environ), "async_events"))
        self._ending = without_superset.Ending(events, 1000, 10_000, Canceller(commands.canceller()))
        self._reaper, _ = reaper.of_environment(os.environ)
        self._reaper._clock = lambda: self._now
        self._reaper._pace = reaper.Pace(every=10, apart=10, quiet=25, unsent=0, synchronous=600)

    def user(self, name: str) -> int:
        """Make a user who may do everything, and log in, once each: log-ins have a limit a second; the id."""
        with self._app.app_context():
            from superset.extensions import security_manager

            sm: Any = security_manager
            if not sm.find_user(username=name):
                sm.add_user(name, name, name, f"{name}@localhost", sm.find_role("Admin"), password=PASSWORD)
            database = self._app.appbuilder.session.execute("SELECT id FROM dbs WHERE database_name = 'analytics'").scalar()
            number = sm.find_user(username=name).id
        if name not in self._browsers:
            self._browsers[name] = Browser(self._app, name, database)
        return number

    def submit(self, user: str, sql: str, client_id: str | None = None) -> dict[str, Any]:
        """Submit a query to a worker: status, JSON, and the header Retry-After."""
        browser = self._browsers[user]
        body = {
            "database_id": browser._database_id,
            "sql": sql,
            "runAsync": True,
            "client_id": client_id or f"{time.monotonic_ns() % 10**10}",
            "schema": "public",
        }
        answer = browser._client.post("/api/v1/sqllab/execute/", json=body, headers=browser._headers)
        return {"status": answer.status_code, "json": answer.json, "retry_after": answer.headers.get("Retry-After")}

    def stop(self, user: str, client_id: str) -> int:
        """Stop a query: the status of the answer."""
        browser = self._browsers[user]
        return browser._client.post(
            "/api/v1/query/stop", json={"client_id": client_id}, headers=browser._headers
        ).status_code

    def changed(self, user: str, since: int) -> dict[str, str]:
        """What a browser learns by polling: state of each query that has changed, by client id."""
        browser = self._browsers[user]
        url = f"/api/v1/query/updated_since?q=(last_updated_ms:{since})"
        answer = browser._client.get(url, headers=browser._headers)
        return {query["id"]: query["state"] for query in answer.json["result"]}

    def at_once(self, user: str, charts: int, queries: int) -> list[int]:
        """Submit so many charts and queries of a user in the same moment, a thread each; the status of each answer."""
        number, browser = self.user(user), self._browsers[user]

        def chart(channel: int) -> int:
            return self.chart(number, f"channel-{channel}").get("refused", 202)

        def query() -> int:
            body = {
                "database_id": browser._database_id,
                "sql": "SELECT 1",
                "runAsync": True,
                "client_id": uuid.uuid4().hex[:10],
            }
            client = self._app.test_client()
            client.set_cookie("session", browser._client.get_cookie("session").value)
            return client.post("/api/v1/sqllab/execute/", json=body, headers=browser._headers).status_code

        return _together([partial(chart, each) for each in range(charts)] + [query] * queries)

    def guests_at_once(self, tokens: list[dict[str, Any]]) -> list[int]:
        """The same with a chart of a guest for each token, without cookies: each has a channel of its own."""

        def chart(token: dict[str, Any]) -> int:
            from flask import g
            from superset.exceptions import SupersetErrorException
            from superset.extensions import async_query_manager, security_manager

            with self._app.test_request_context():
                g.user = security_manager.get_guest_user_from_token(cast(Any, token))
                try:
                    async_query_manager.submit_chart_data_job(uuid.uuid4().hex, {"datasource": "1__table"}, None)
                except SupersetErrorException as error:
                    return error.status
                return 202

        return _together([partial(chart, token) for token in tokens])

    def end_charts(self) -> None:
        """Tell the browsers of all registered charts that they are done."""
        with self._app.app_context():
            from superset.extensions import async_query_manager

            for job in list(chart_jobs.registered()):
                async_query_manager.update_job(dict(job.metadata), "done")

    def chart(self, user_id: int, channel: str) -> dict[str, Any]:
        """Submit a chart as Superset's view does: the job, or the refusal's status."""
        with self._app.test_request_context():
            from superset.exceptions import SupersetErrorException
            from superset.extensions import async_query_manager

            try:
                return async_query_manager.submit_chart_data_job(channel, {"datasource": "1__table"}, user_id)
            except SupersetErrorException as error:
                return {"refused": error.status, "message": str(error)}

    def stop_chart(self, job_id: str, channel: str | None) -> tuple[int, bool | None]:
        """Stop a chart as the page does whose cookie names this channel: the answer's status, and whether it was stopped."""
        from superset.extensions import async_query_manager as manager

        client = self._app.test_client()
        if channel is not None:
            token = jwt.encode({"channel": channel}, manager._jwt_secret, algorithm="HS256")
            client.set_cookie(manager._jwt_cookie_name, token)
        answer = client.delete(f"/api/v1/superset_async/charts/{job_id}")
        found = answer.json or {}
        return answer.status_code, found.get("result", {}).get("stopped")

    def events(self, channel: str) -> list[dict[str, Any]]:
        """The events of a channel, as a browser polls them."""
        with self._app.app_context():
            from superset.extensions import async_query_manager

            return [event for event in async_query_manager.read_events(channel, None) if event is not None]

    def end_by_own_clock(self, query_id: int, late_seconds: float) -> list[str]:
        """End a query as a worker does whose clock is late; the statements that were sent to the database for it."""
        from sqlalchemy import event

        statements: list[str] = []
        with self._app.app_context():
            from superset.extensions import db
            from superset.models.sql_lab import Query

            def sent(*arguments: Any) -> None:
                statements.append(arguments[2])

            event.listen(db.engine, "before_cursor_execute", sent)
            try:
                query = db.session.query(Query).filter_by(id=query_id).one()
                query.status = "success"
                query.start_running_time = query.end_time = (time.time() - late_seconds) * 1000
                db.session.commit()
            finally:
                event.remove(db.engine, "before_cursor_execute", sent)
        return [statement for statement in statements if statement.startswith("UPDATE")]

    def registered(self) -> list[str]:
        """Ids of the chart jobs that have not ended."""
        return [job.job_id for job in chart_jobs.registered()]

    def bounds(self, max_queued: int, max_in_flight_per_user: int) -> None:
        """Change what may wait."""
        plan = process_topology.started()
        bounds = {"max_queued": max_queued, "max_in_flight_per_user": max_in_flight_per_user}
        changed = plan.model_copy(update={"resilience": plan.resilience.model_copy(update=bounds)})
        process_topology.started = process_topology.current = lambda *_: changed

    def sweep(self, *after: float) -> None:
        """Have the reaper sweep once after each of so many seconds, by its own clock."""
        from superset.extensions import db

        for seconds in after:
            self._now += seconds
            with self._app.app_context(), self._without_superset():
                with reaper.alone() as mine:
                    if not mine:
                        raise RuntimeError("another reaper is at work")
                    self._reaper.sweep()
                db.session.remove()

    @contextmanager
    def _without_superset(self) -> Generator[None]:
        """What the reaper needs of Superset is done in the block as in beat, and statements are cancelled by another process."""
        shipped = interfaces.superset()
        interfaces.use(without_superset.interface(self._ending))
        try:
            yield
        finally:
            interfaces.use(shipped)

    def send_due(self) -> int:
        """Send what is delayed until now, as a worker's parent process does: how many that was."""
        from superset.extensions import celery_app

        return delayed_messages.send_due(celery_app)

    def prune(self, days: int) -> None:
        """Delete what is older, as beat's job does."""
        with self._app.app_context():
            maintenance.prune_executions(days)


def _together(calls: list[Callable[[], int]]) -> list[int]:
    """What each call returns, all of them begun in the same moment."""
    gate = threading.Barrier(len(calls))

    def call(work: Callable[[], int]) -> int:
        gate.wait()
        return work()

    with ThreadPoolExecutor(len(calls)) as threads:
        return sorted(threads.map(call, calls))


def main() -> None:
    """Answer until the input ends."""
    out = answers.alone()
    process = Process()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = {"answer": getattr(process, arguments.pop("do"))(*arguments.pop("args", []), **arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), file=out, flush=True)


if __name__ == "__main__":
    main()
