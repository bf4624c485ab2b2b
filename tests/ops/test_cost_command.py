"""`superset-async cost`, against the server that plays Superset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops.cli import app
from tests.client.conftest import PASSWORD, USER, Answer, Playing

USAGE = "/api/v1/superset_async/usage"
ROW: dict[str, Any] = {
    "tenant": "acme",
    "queries": 3,
    "failed": 1,
    "seconds": 7200.04,
    "worker_cost": 0.5,
    "redis_cost": 0.1,
    "cost": 0.6,
    "share_percent": 100.0,
    "cost_per_query": 0.2,
    "reserved_cost": 12.0,
    "reserved_used_percent": 4.166,
    "month_to_date": 20.0,
    "month_projected": 60.0,
    "budget": None,
    "budget_left": None,
}
REPORT: dict[str, Any] = {
    "by": "tenant",
    "hours": 24.0,
    "currency": "USD",
    "rows": [ROW],
    "total": {key: ROW[key] for key in ("queries", "failed", "seconds", "worker_cost", "redis_cost", "cost")},
}
Cost = Callable[..., Result]


@pytest.fixture
def cost(superset: Playing, tmp_path: Path) -> Cost:
    superset.on("GET", USAGE, Answer({"result": REPORT}))
    env = {
        "SUPERSET_ASYNC_STATE": str(tmp_path / "no-state"),
        "SUPERSET_ASYNC_URL": superset.url,
        "SUPERSET_ASYNC_USERNAME": USER,
        "SUPERSET_ASYNC_PASSWORD": PASSWORD,
    }
    return lambda *arguments: CliRunner(env=env).invoke(app, ["cost", *arguments], catch_exceptions=False)


def test_the_report_in_each_format(cost: Cost, superset: Playing) -> None:
    assert json.loads(cost("--format", "json").stdout) == REPORT
    lines = cost("--by", "tenant", "--hours", "48", "-f", "csv").stdout.splitlines()
    assert lines[0].startswith(
        "tenant,queries,failed,seconds,worker_cost,redis_cost,cost,share_percent,cost_per_query,reserved"
    )
    assert lines[1] == "acme,3,1,7200.0,0.5,0.1,0.6,100.0,0.2,12.0,4.2,20.0,60.0,,"
    assert [one.query for one in superset.asked("GET", USAGE)] == [
        {"by": "tenant", "hours": "24"},
        {"by": "tenant", "hours": "48"},
    ]
    done = cost()
    assert "acme" in done.stdout
    assert done.stderr == "3 queries in 24 hours cost 0.60 USD: workers 0.50, Redis 0.10\n"


def test_rows_of_users_have_no_budgets(cost: Cost, superset: Playing) -> None:
    row = {"user": "ann", **{key: ROW[key] for key in list(ROW)[1:9]}}
    superset.on("GET", USAGE, Answer({"result": REPORT | {"by": "user", "rows": [row]}}))
    assert cost("--by", "user", "-f", "csv").stdout.splitlines()[0].endswith(",cost_per_query")


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (Answer({"message": "Forbidden"}, 403), 4, "may not do this"),
        (Answer({"message": "Not found"}, 404), 2, "is its web tier one of this project's?"),
        (Answer({"rows": []}), 1, "not an answer"),
    ],
)
def test_what_goes_wrong_is_said(cost: Cost, superset: Playing, answer: Answer, code: int, says: str) -> None:
    superset.on("GET", USAGE, answer)
    done = cost()
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr
