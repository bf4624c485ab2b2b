"""Every query of the dashboard, and the article's three, answered with data by a real Prometheus that scrapes a real exporter.

The exporter reads a real broker with what Celery and this project's own counting put there; rules are loaded as well. Grafana
itself is not there: its JSON is made by its own library, and read back.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
import yaml

from monitoring import dashboard, rules, scraping
from runtime.environment import redis_databases
from runtime.environment.counters import field, observation
from runtime.environment.redis_clients import client
from runtime.observability.task_metrics import increments, wait_increments
from runtime.queries.executions import STATUSES
from tests.runtime.observability.test_exporter import Exporter, Server, celery, until
from tests.runtime.stacks import REDIS_PASSWORDS, topology
from topology import metric_names
from topology.histograms import REQUEST_BUCKETS, RESULT_BUCKETS, task_buckets
from topology.model import Topology

pytestmark = pytest.mark.thorough

PROMETHEUS = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(not PROMETHEUS, reason="no prometheus on PATH (Debian: prometheus)")
#: The article's, unchanged.
ARTICLE = (
    'sum(rate(celery_task_completed_total{status="failure"}[5m])) / sum(rate(celery_task_completed_total[5m]))',
    "histogram_quantile(0.95, sum by (le) (rate(celery_task_duration_seconds_bucket[5m])))",
    "rate(celery_task_duration_seconds_sum[5m]) / rate(celery_task_duration_seconds_count[5m])",
    "sum by (task_name) (rate(celery_task_submitted_total[1m]))",
    "sum by (queue_name) (celery_queue_depth)",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Watched:
    """A Prometheus that scrapes the exporter of a broker with work in it."""

    plan: Topology
    url: str
    counted: Any

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10).json()
        assert answer["status"] == "success", answer
        return cast("list[dict[str, Any]]", answer["data"]["result"])

    def numbers(self, query: str) -> list[float]:
        """What it answers, without what is no number."""
        values = [float(one["value"][1]) for one in self.ask(query)]
        return [value for value in values if value == value]


def count_everything(connection: Any, prefix: str, plan: Topology) -> None:
    """One of each event that processes count, as they do it."""
    more: list[tuple[str, float, dict[str, str]]] = []
    for ended in STATUSES:
        more += increments(
            "sql_lab.get_sql_results", "tenant-a", "tenant-a", ended, 0.7, bounds=task_buckets(plan.longest_time_limit)
        )
    more += wait_increments("tenant-a", "tenant-a", 0.4, redelivered=True)
    for operation in ("read", "write"):
        labels = {"cache": "query_results", "operation": operation}
        more += observation(metric_names.RESULTS_SECONDS, 0.01, RESULT_BUCKETS, labels)
    more.append(
        (metric_names.TASKS_SUBMITTED, 5, {"task_name": "sql_lab.get_sql_results", "queue": "default", "tenant": ""})
    )
    more += [(metric_names.CACHE_READS, 1, {"cache": "data_cache", "result": result}) for result in ("hit", "miss")]
    page = {"method": "GET", "route": "/api/v1/query/<int:pk>"}
    more.append((metric_names.REQUESTS, 1, {**page, "status": "200"}))
    more += observation(metric_names.REQUEST_SECONDS, 0.02, REQUEST_BUCKETS, page)
    step = {"name": "sqllab.query.time_executing_query"}
    more += [(f"{metric_names.STATS_SECONDS}_sum", 0.3, step), (f"{metric_names.STATS_SECONDS}_count", 1, step)]
    more.append((metric_names.STATS, 1, {"name": "loaded_from_cache"}))
    pipe = connection.pipeline()
    for name, by, labels in more:
        pipe.hincrbyfloat(f"{prefix}counters", field(name, labels), by)
    pipe.mset({f"{prefix}reaper:last": time.time(), f"{prefix}reaper:oldest": 3.5})
    pipe.execute()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    server = Server(folder, free_port())
    server.start()
    ports = {"redis_port": server.port, "exporter_port": free_port(), "prometheus_port": free_port()}
    plan = topology("multi-tenant", platform="local", local={"web_port": free_port(), **ports})
    app = celery(plan)
    for _ in range(3):
        app.send_task("some.task", queue="default", headers={metric_names.SENT_HEADER: str(time.time())}, ignore_result=True)
    exporter = Exporter(plan, folder)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules.spec(plan), sort_keys=False))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(scraping.config(plan, "rules.yaml", interval_seconds=1)))
    listen = f"127.0.0.1:{plan.monitoring.prometheus_port}"
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(
            [
                str(PROMETHEUS),
                "--config.file=prometheus.yaml",
                "--storage.tsdb.path=data",
                f"--web.listen-address={listen}",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    database = redis_databases.located(plan, "coordination", REDIS_PASSWORDS["broker"])
    connection = client(database)
    found = Watched(plan, f"http://{listen}", lambda: count_everything(connection, database.prefix, plan))

    def scraped() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        try:
            # While it starts it answers, and not with JSON.
            ready = httpx.get(f"{found.url}/-/ready", timeout=10).is_success
            return ready and found.numbers(metric_names.UP) == [1.0]
        except httpx.TransportError:
            return False

    try:
        until(scraped, "Prometheus scrapes the exporter", 60)
        found.counted()
        yield found
    finally:
        for each in (process, exporter.process):
            each.terminate()
            each.wait(20)
        server.kill()


def queries(plan: Topology) -> list[str]:
    return [query.expr for row in dashboard.rows(plan) for panel in row.panels for query in panel.queries]


@pytest.mark.services
@needs_prometheus
def test_every_query_of_the_dashboard_and_the_articles_are_answered_with_data(watched: Watched) -> None:
    wanted = [*ARTICLE, *queries(watched.plan)]
    left = [query.replace(dashboard.RATE, "1m").replace("$queue", ".*") for query in wanted]
    assert len(left) > 25

    def answered() -> bool:
        # Rates need an increase between two scrapes.
        watched.counted()
        left[:] = [query for query in left if not watched.numbers(query)]
        return not left

    try:
        until(answered, "every query is answered", 120)
    finally:
        assert not left, left


@pytest.mark.services
@needs_prometheus
def test_the_articles_numbers_are_those_that_were_counted(watched: Watched) -> None:
    failed, _, mean, _, depth = ARTICLE
    watched.counted()
    # Three of five ends are failures, each after 0.7 s; the depth is by queue.
    until(lambda: [round(value, 3) for value in watched.numbers(failed)] == [0.6], "the failed share is 3 of 5", 60)
    assert {round(value, 3) for value in watched.numbers(mean)} == {0.7}
    by_queue = {one["metric"]["queue_name"]: float(one["value"][1]) for one in watched.ask(depth)}
    assert by_queue == {"default": 3, "priority": 0, "tenant-a": 0, "tenant-b": 0}


@pytest.mark.services
@needs_prometheus
def test_prometheus_evaluates_every_rule_without_an_error(watched: Watched) -> None:
    def evaluated() -> bool:
        groups = httpx.get(f"{watched.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        assert [rule for rule in found if rule["health"] == "err"] == []
        return len(found) > 40 and all(rule["health"] == "ok" for rule in found)

    until(evaluated, "every rule has been evaluated", 60)
    assert "Watchdog" in {one["metric"]["alertname"] for one in watched.ask('ALERTS{alertstate="firing"}')}


def test_the_json_has_every_panel_with_its_queries() -> None:
    plan = topology("multi-tenant")
    board = json.loads(dashboard.document(plan))
    panels = [panel for panel in board["panels"] if panel["type"] == "timeseries"]
    assert [panel["title"] for panel in panels] == [panel.title for row in dashboard.rows(plan) for panel in row.panels]
    assert [target["expr"] for panel in panels for target in panel["targets"]] == queries(plan)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "queue"]
