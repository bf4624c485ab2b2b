"""A picture of the dashboard has every panel, with what Prometheus answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench import pictures
from monitoring import dashboard
from tests.runtime.stacks import topology

BEGIN = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_a_line_is_named_as_the_dashboard_says() -> None:
    assert pictures.legend("{{queue}} {{tenant}}", {"queue": "default"}) == "default"
    assert pictures.legend("P95 {{task_name}}", {"task_name": "a"}) == "P95 a"


@pytest.mark.further
def test_every_panel_is_drawn_and_what_it_has_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("matplotlib.image")
    plan = topology("minimal")
    asked: list[str] = []

    def answer(url: str, query: dashboard.Query, begin: float, end: float) -> list[pictures.Line]:
        asked.append(query.expr)
        return [("a line", [BEGIN, BEGIN + timedelta(minutes=5)], [1.0, 5.0])] * full

    monkeypatch.setattr(pictures, "lines", answer)
    between = (BEGIN.timestamp(), BEGIN.timestamp() + 300)
    dark: list[int] = []
    for full in (0, 1):
        path = tmp_path / f"{full}.png"
        pictures.draw(plan, "http://unused", between, "Under load", path)
        dark.append(int((image.imread(path)[:, :, :3].sum(axis=2) < 2.9).sum()))
    # Titles, axes and ticks of each panel are there without any line; with one there is more.
    assert dark[1] > dark[0] > 50_000, dark
    assert set(asked) == {query.expr for row in dashboard.rows(plan) for panel in row.panels for query in panel.queries}
