"""Every alert fires on what it is for, stays silent just below that, and says whose stack and which page; by promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import alerts, objectives, rules
from runtime.environment.counters import field as counter_field
from runtime.observability import known_series
from tests.runtime.stacks import STACKS, topology
from topology import metric_names
from topology.histograms import WAIT_BUCKETS
from topology.model import Topology

pytestmark = pytest.mark.thorough

PROJECT = Path(__file__).resolve().parents[2]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="no promtool on PATH (Debian: prometheus)")
SQL = 'namespace="superset",task_name="sql_lab.get_sql_results",queue="default",tenant=""'
QUEUE = 'namespace="superset",queue_name="default"'
RESULTS = 'namespace="superset",cache="query_results",operation="write"'
#: An empty label is none to Prometheus.
PLACE = {"queue": "default"}
HERE = {"queue_name": "default"}

#: Series by the minute of a stack on which nothing is wrong; 60 queries a minute.
HEALTHY: dict[str, str] = {
    'celery_exporter_up{namespace="superset"}': "1x300",
    f"celery_queue_depth{{{QUEUE}}}": "3x300",
    f"celery_queue_waiting_oldest_seconds{{{QUEUE}}}": "2x300",
    f"celery_queue_workers{{{QUEUE}}}": "2x300",
    f"celery_queue_workers_expected{{{QUEUE}}}": "2x300",
    f"celery_queue_workers_max{{{QUEUE}}}": "20x300",
    'superset_async_reaper_last_run_timestamp{namespace="superset"}': "0+60x300",
    'superset_async_query_running_oldest_seconds{namespace="superset"}': "12x300",
    'redis_memory_used_bytes{namespace="superset"}': "100x300",
    'redis_memory_max_bytes{namespace="superset"}': "1000x300",
    'redis_evicted_keys_total{namespace="superset"}': "0x300",
    'redis_rdb_last_bgsave_status{namespace="superset"}': "1x300",
    'redis_aof_last_write_status{namespace="superset"}': "1x300",
    f'celery_task_completed_total{{{SQL},status="success",reason=""}}': "0+60x300",
    f'celery_task_completed_total{{{SQL},status="failure",reason="error"}}': "0x300",
    f'celery_task_completed_total{{{SQL},status="failure",reason="lost"}}': "0x300",
    f'celery_task_completed_total{{{SQL},status="failure",reason="timed_out"}}': "0x300",
    f'celery_task_completed_total{{{SQL},status="stopped",reason=""}}': "0+1x300",
    'celery_task_queuing_time_seconds_bucket{namespace="superset",queue="default",tenant="",le="30"}': "0+60x300",
    'celery_task_queuing_time_seconds_count{namespace="superset",queue="default",tenant=""}': "0+60x300",
    f'superset_async_results_seconds_bucket{{{RESULTS},le="0.1"}}': "0+60x300",
    f'superset_async_results_seconds_bucket{{{RESULTS},le="1"}}': "0+60x300",
    f'superset_async_results_seconds_bucket{{{RESULTS},le="2.5"}}': "0+60x300",
    f'superset_async_results_seconds_bucket{{{RESULTS},le="+Inf"}}': "0+60x300",
    f"superset_async_results_failed_total{{{RESULTS}}}": "0x300",
    'superset_async_refused_total{namespace="superset",queue="default",reason="queue_full"}': "0x300",
    'superset_async_poison_total{namespace="superset",where="queue"}': "0x300",
}
SUCCESS, ERROR, LOST, *_ = [name for name in HEALTHY if name.startswith("celery_task_completed_total")]
BEGUN, BEGUN_ALL = [name for name in HEALTHY if name.startswith("celery_task_queuing_time")]
FAST, SECOND, _, ALL = [name for name in HEALTHY if name.startswith("superset_async_results_seconds_bucket")]
_named = {name.partition("{")[0]: name for name in HEALTHY}


@dataclass(frozen=True)
class Case:
    """Series that make an alert fire by minute `at`, and others that just do not. None: the series is not there.

    `labels` and `summary` are what it then says; `severities` those with which it fires.
    """

    alert: str
    fires: dict[str, str | None]
    silent: dict[str, str | None]
    at: int
    labels: dict[str, str]
    summary: str
    severities: tuple[str, ...] = ("ticket",)


CASES = (
    Case(
        "AsyncQueriesWaitTooLong",
        # A third waits too long: 33 times what the budget of 1 % allows.
        {BEGUN: "0+40x300"},
        {BEGUN: "0+5995x300", BEGUN_ALL: "0+6000x300"},
        90,
        PLACE,
        "Queue default: the promise that 99 % of queries begin within 30 s is being broken",
        ("page", "ticket"),
    ),
    Case(
        "AsyncQueriesWaitTooLong",
        # Twice the budget, for hours: nobody is woken.
        {BEGUN: "0+588x300", BEGUN_ALL: "0+600x300"},
        # Half of the queries wait, and there are three in an hour.
        {BEGUN: "0x20 1x40 1x240", BEGUN_ALL: "0x20 1x20 3x260"},
        240,
        PLACE,
        "Queue default: the promise that 99 % of queries begin within 30 s is being broken",
    ),
    Case(
        "AsyncQueriesEndBadly",
        {LOST: "0+10x300"},
        # Errors of the queries themselves are no breach.
        {ERROR: "0+2x300"},
        90,
        PLACE,
        "Queue default: the promise that 99.5 % of queries end neither lost nor at a limit is being broken",
        ("page", "ticket"),
    ),
    Case(
        "AsyncOldestMessageTooOld",
        {_named["celery_queue_waiting_oldest_seconds"]: "2x10 310x290"},
        {_named["celery_queue_waiting_oldest_seconds"]: "290x300"},
        13,
        HERE,
        "Queue default: a query has waited for 5m 10s",
        ("page",),
    ),
    Case(
        "AsyncQueueWithoutWorkers",
        {_named["celery_queue_workers"]: "2x10 0x290"},
        {_named["celery_queue_workers"]: "0x300", _named["celery_queue_depth"]: "0x300"},
        14,
        HERE,
        "Queue default: 3 queries wait, and no worker listens",
        ("page",),
    ),
    Case(
        "AsyncQueryOlderThanItsLimit",
        {_named["superset_async_query_running_oldest_seconds"]: "0+60x300"},
        {_named["superset_async_query_running_oldest_seconds"]: "659x300"},
        15,
        {},
        "A query has run for 15m 0s, longer than any may",
        ("page",),
    ),
    Case(
        "AsyncTaskFailureRateHigh",
        {ERROR: "0+6x300"},
        {ERROR: "0+3x300"},
        20,
        PLACE,
        "Queue default: 8.955% of queries fail",
    ),
    Case(
        "AsyncQueueDepthHigh",
        {_named["celery_queue_depth"]: "3x5 501x295"},
        {_named["celery_queue_depth"]: "500x300"},
        17,
        HERE,
        "Queue default: 501 queries wait",
    ),
    Case(
        "AsyncWorkersBelowExpected",
        {_named["celery_queue_workers"]: "2x5 1x295"},
        # Back within the five minutes: a rolling update.
        {_named["celery_queue_workers"]: "2x5 1x4 2x290"},
        12,
        HERE,
        "Queue default: only 1 workers",
    ),
    Case(
        "AsyncScalerAtMaximum",
        {
            _named["celery_queue_workers"]: "20x300",
            _named["celery_queue_depth"]: "80x300",
            _named["celery_queue_waiting_oldest_seconds"]: "40x300",
        },
        {_named["celery_queue_workers"]: "20x300", _named["celery_queue_depth"]: "80x300"},
        20,
        HERE,
        "Queue default: all workers that it may have, and 80 queries wait",
    ),
    Case(
        "AsyncResultsBackendSlow",
        {FAST: "0+50x300", SECOND: "0+50x300"},
        {FAST: "0+58x300", SECOND: "0+58x300"},
        20,
        {"cache": "query_results", "operation": "write"},
        "Results (query_results): a write takes 2.05s (P95)",
    ),
    Case(
        "AsyncResultsBackendFailing",
        {_named["superset_async_results_failed_total"]: "0x5 0+1x295"},
        {_named["superset_async_results_failed_total"]: "0x5 2x295"},
        20,
        {"cache": "query_results", "operation": "write"},
        "Results (query_results): writes fail",
        ("page",),
    ),
    Case(
        "AsyncBrokerMemoryHigh",
        {_named["redis_memory_used_bytes"]: "850x300"},
        {_named["redis_memory_used_bytes"]: "9000x300", _named["redis_memory_max_bytes"]: "0x300"},
        10,
        {},
        "The broker's memory is 85% full",
    ),
    Case(
        "AsyncBrokerEvicts",
        {_named["redis_evicted_keys_total"]: "0x5 1x295"},
        # Its server was restarted.
        {_named["redis_evicted_keys_total"]: "7x5 0x295"},
        7,
        {},
        "The broker evicts keys",
        ("page",),
    ),
    Case(
        "AsyncBrokerCannotSave",
        {_named["redis_rdb_last_bgsave_status"]: "1x5 0x295"},
        # A server without an append-only file, and a snapshot that succeeded when it was tried again.
        {_named["redis_rdb_last_bgsave_status"]: "1x5 0x0 1x294", _named["redis_aof_last_write_status"]: None},
        7,
        {},
        "The broker's server cannot save",
        ("page",),
    ),
    Case(
        "AsyncBrokerCannotSave",
        {_named["redis_aof_last_write_status"]: "1x5 0x295"},
        {_named["redis_rdb_last_bgsave_status"]: None, _named["redis_aof_last_write_status"]: None},
        7,
        {},
        "The broker's server cannot save",
        ("page",),
    ),
    Case(
        "AsyncBeatSilent",
        {_named["superset_async_reaper_last_run_timestamp"]: "0+60x10 600x290"},
        {_named["superset_async_reaper_last_run_timestamp"]: "-100+60x300"},
        15,
        {},
        "Beat is silent: nothing ends lost queries",
    ),
    Case(
        "AsyncBeatSilent",
        # It has never looked.
        {_named["superset_async_reaper_last_run_timestamp"]: None},
        # Where the exporter is gone, nobody knows.
        {_named["superset_async_reaper_last_run_timestamp"]: None, _named["celery_exporter_up"]: None},
        5,
        {"namespace": "superset"},
        "Beat is silent: nothing ends lost queries",
    ),
    Case(
        "AsyncSubmissionsRefused",
        {_named["superset_async_refused_total"]: "0x5 0+4x295"},
        {_named["superset_async_refused_total"]: "9x300"},
        15,
        {"queue": "default", "reason": "queue_full"},
        "Queue default: queries are refused (queue_full)",
    ),
    Case(
        "AsyncForeignMessages",
        {_named["superset_async_poison_total"]: "0x5 1x295"},
        {_named["superset_async_poison_total"]: "4x300"},
        7,
        {"where": "queue"},
        "What is no message of this stack was found (queue)",
    ),
    Case(
        "AsyncExporterLost",
        {_named["celery_exporter_up"]: "1x2 _x298"},
        {_named["celery_exporter_up"]: "1x2 _x3 1x295"},
        14,
        {"namespace": "superset"},
        "The exporter of queue metrics is gone: no other alert of the stack can fire",
        ("page",),
    ),
    Case(
        "AsyncBrokerUnreadable",
        {_named["celery_exporter_up"]: "1x5 0x295"},
        {_named["celery_exporter_up"]: "1x5 0x0 1x294"},
        8,
        {},
        "The exporter cannot read the broker",
        ("page",),
    ),
)


def plan() -> Topology:
    return topology("minimal")


def rule_of(found: Topology, alert: str, severity: str) -> dict[str, Any]:
    return next(
        rule
        for group in rules.groups(found)
        for rule in group["rules"]
        if rule.get("alert") == alert and rule["labels"]["severity"] == severity
    )


def expected(case: Case) -> list[dict[str, Any]]:
    """What the alert says, its own words in `summary`, for each severity."""
    found: list[dict[str, Any]] = []
    for severity in case.severities:
        rule = rule_of(plan(), case.alert, severity)
        said = dict(rule["annotations"])
        text = said["description"].replace('{{ $labels.tenant | printf "%q" }}', f'"{case.labels.get("tenant", "")}"')
        said |= {"summary": case.summary, "description": text.replace("{{ $labels.queue }}", case.labels.get("queue", ""))}
        sloth = {} if "sloth_severity" not in rule["labels"] else slo_labels(case.alert)
        found.append({"exp_labels": {**sloth, **case.labels, **rule["labels"]}, "exp_annotations": said})
    return found


def slo_labels(alert: str) -> dict[str, str]:
    name = next(objective.name for objective in objectives.objectives(plan()) if objective.alert == alert)
    service = "superset-async-superset"
    return {"sloth_id": f"{service}-{name}", "sloth_service": service, "sloth_slo": name}


def promtool(tmp_path: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules.spec(plan()), sort_keys=False))
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yaml"], cwd=tmp_path, check=False, capture_output=True, text=True
    )


def series(changes: dict[str, str | None]) -> list[dict[str, str]]:
    together = {**HEALTHY, **changes}
    return [{"series": name, "values": values} for name, values in together.items() if values is not None]


def firing(case: Case, changes: dict[str, str | None], alerts: list[dict[str, Any]]) -> dict[str, Any]:
    test = {"eval_time": f"{case.at}m", "alertname": case.alert, "exp_alerts": alerts}
    return {"interval": "1m", "input_series": series(changes), "alert_rule_test": [test]}


@needs_promtool
@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{case.alert}-{number}" for number, case in enumerate(CASES)])
def test_an_alert_fires_on_its_cause_and_not_just_below_it(number: int, tmp_path: Path) -> None:
    case = CASES[number]
    done = promtool(tmp_path, [firing(case, case.fires, expected(case)), firing(case, case.silent, [])])
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_on_a_healthy_stack_only_the_watchdog_fires(tmp_path: Path) -> None:
    watchdog = {
        "alertname": "Watchdog",
        "exp_alerts": [
            {
                "exp_labels": rule_of(plan(), "Watchdog", "none")["labels"],
                "exp_annotations": rule_of(plan(), "Watchdog", "none")["annotations"],
            }
        ],
    }
    silence = {"expr": 'ALERTS{alertname!="Watchdog"}', "exp_samples": []}
    minutes = (1, 30, 90, 240)
    tests = [
        {
            "interval": "1m",
            "input_series": series({}),
            "alert_rule_test": [{"eval_time": f"{minute}m", **watchdog} for minute in minutes],
            "promql_expr_test": [{"eval_time": f"{minute}m", **silence} for minute in minutes],
        }
    ]
    done = promtool(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_planted_mistake_is_seen_by_promtool(tmp_path: Path) -> None:
    """The tool says no where an alert fires that is not expected: a test above can fail."""
    case = CASES[0]
    done = promtool(tmp_path, [firing(case, case.silent, expected(case))])
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


def test_every_alert_has_its_cases() -> None:
    named = {rule["alert"] for group in rules.groups(plan()) for rule in group["rules"] if "alert" in rule}
    assert {case.alert for case in CASES} == named - {"Watchdog"}


@needs_promtool
@pytest.mark.parametrize("stack", STACKS)
def test_prometheus_takes_the_rules_of_every_stack(stack: str, tmp_path: Path) -> None:
    found = topology(stack)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules.spec(found), sort_keys=False))
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", "rules.yaml"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    count = sum(len(group["rules"]) for group in rules.groups(found))
    assert f"{count} rules found" in done.stdout
    for group in rules.groups(found):
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] in ("page", "ticket", "none")
                assert rule["annotations"]["runbook_url"].endswith(f"alerts.md#{rule['alert'].lower()}")


def test_rules_ask_only_for_metrics_that_are_served() -> None:
    served = {value for key, value in vars(metric_names).items() if key.isupper()}
    served |= {name for name, _ in known_series.at_zero(plan())}
    for alert in alerts.alerts(plan()):
        asked = set(re.findall(r"\b(?:celery|superset_async|redis)_[a-z_]+", alert.expr))
        assert asked <= served, alert.name
    assert counter_field("x", {}) == '["x",{}]'


def test_objectives_are_what_sloth_makes_of_them() -> None:
    """Every record and alert, its expression and labels; alerts have this project's labels besides, and info has its own mode."""

    def by_name(groups: list[dict[str, Any]]) -> dict[tuple[str, ...], dict[str, Any]]:
        found = [rule for group in groups for rule in group["rules"]]
        own = ("sloth_slo", "sloth_severity", "sloth_window")
        return {
            (rule.get("record") or rule["alert"], *(str(rule["labels"].get(label)) for label in own)): rule for rule in found
        }

    def tight(expr: str) -> str:
        text = "".join(expr.split())
        # Sloth puts what it was given between parentheses.
        return text.removeprefix("(").removesuffix(")") if text.startswith("((sumby") else text

    path = Path(__file__).with_name("sloth.yaml")
    theirs = by_name(yaml.safe_load(path.read_text())["groups"])
    ours = by_name([group for group in rules.groups(plan()) if group["name"].startswith("sloth-slo")])
    assert len(theirs) == 34
    assert ours.keys() == theirs.keys()
    for name, rule in ours.items():
        assert tight(rule["expr"]) == tight(theirs[name]["expr"]), name
        if name[0] != "sloth_slo_info":
            assert rule["labels"].items() >= theirs[name]["labels"].items()


def test_the_promised_wait_is_a_bound_of_the_histogram() -> None:
    for stack in STACKS:
        assert topology(stack).exporter.objectives.wait in WAIT_BUCKETS
