"""What the web tier's processes answer, and what Superset tells its stats logger in web and worker, is in the metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime.environment import redis_databases
from runtime.environment.redis_clients import client
from runtime.observability.shared_metrics import SharedMetrics, read_shared
from tests.runtime.conftest import Prepared
from tests.runtime.queries.conftest import Web, Worker
from tests.runtime.queries.test_synchronous import PATIENCE, Server, number, serving
from tests.runtime.stacks import REDIS_PASSWORDS
from tests.waiting import until

pytestmark = [pytest.mark.superset, pytest.mark.further]


@dataclass(frozen=True)
class Metrics:
    """The exporter's text about the stack's counters, read anew for each question."""

    prepared: Prepared

    def value(self, metric: str, /, **labels: str) -> float:
        """The sum of the samples with these labels."""
        return sum(value for found, value in self._samples(metric) if labels.items() <= found.items())

    def labels(self, metric: str, label: str) -> set[str]:
        return {found[label] for found, _ in self._samples(metric)}

    def _samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        database = redis_databases.located(self.prepared.topology, "coordination", REDIS_PASSWORDS["broker"])
        registry = CollectorRegistry()
        with client(database) as connection:
            registry.register(
                SharedMetrics(lambda: read_shared(connection, database.prefix), lambda: self.prepared.topology)
            )
            text = generate_latest(registry).decode()
        for family in text_string_to_metric_families(text):
            yield from ((sample.labels, sample.value) for sample in family.samples if sample.name == name)


def used(process: psutil.Process) -> float:
    """Seconds of CPU."""
    spent = process.cpu_times()
    return spent.user + spent.system


def ask_until_all_have_answered(server: Server, paths: list[str]) -> int:
    """Ask for paths at once, again and again, until each process of the web tier has worked for them; how often."""
    parent = psutil.Process(server.process.pid)
    before = {child.pid: used(child) for child in parent.children()}
    asked = 0
    with ThreadPoolExecutor(8) as clients:
        while True:
            list(clients.map(lambda path: server.ask("GET", path), paths))
            asked += 1
            if all(used(child) > before[child.pid] + 0.05 for child in parent.children()):
                return asked


def test_every_answer_of_every_process_is_counted_by_its_route(prepared: Prepared, web: Web, worker: Worker) -> None:
    metrics = Metrics(prepared)
    library = number(prepared, "library")
    polled = "/api/v1/query/<int:pk>"

    def requests(**labels: str) -> float:
        return metrics.value("superset_web_requests_total", **labels)

    before = requests(route=polled, status="404")
    warnings = metrics.value("superset_stats_total", name="QueryRestApi.get.warning")
    executing = {"name": "sqllab.query.time_executing_query"}
    statements = metrics.value("superset_stats_seconds_count", **executing)
    with serving(prepared, web, 240, processes=2) as server:
        paths = [f"/api/v1/query/{10**6 + number}" for number in range(10)]
        times = ask_until_all_have_answered(server, paths)
        assert server.query("SELECT 3 AS three", library)[0] == 200
        for path in ("/no/such/page", "/neither/this?one=1", "/api/v1/query/1/none"):
            assert server.ask("GET", path)[0] == 404
    # Each process has written what it had counted before it ended.
    assert requests(route=polled, method="GET", status="404") - before == 10 * times
    assert requests(route="/api/v1/sqllab/execute/", method="POST", status="200") >= 1
    assert requests(route="unmatched", status="404") >= 3
    routes = metrics.labels("superset_web_requests_total", "route")
    assert not [route for route in routes if re.search(r"/\d", route)], routes
    of_poll = {"route": polled, "method": "GET"}
    counted = metrics.value("superset_web_request_duration_seconds_count", **of_poll)
    assert (
        counted == requests(**of_poll) == metrics.value("superset_web_request_duration_seconds_bucket", **of_poll, le="+Inf")
    )
    assert metrics.value("superset_web_request_duration_seconds_sum", **of_poll) > 0
    assert metrics.value("superset_stats_total", name="QueryRestApi.get.warning") - warnings == 10 * times
    # The statement was executed by a child of the worker, which lives on and tells what it has counted by the clock.
    until(
        lambda: metrics.value("superset_stats_seconds_count", **executing) == statements + 1,
        PATIENCE,
        "the child has written",
    )
    assert metrics.value("superset_stats_seconds_sum", **executing) < PATIENCE
