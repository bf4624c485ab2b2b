"""Each alert has its page, each page its alert, and what a page names exists: metrics, settings, make targets."""

from __future__ import annotations

import re
from pathlib import Path

from monitoring import rules
from runtime.observability import known_series
from tests.runtime.stacks import topology
from topology import metric_names
from topology.reference import document

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/runbooks/alerts.md").read_text(encoding="utf-8")
OTHER_HEADINGS = {"First, for any of them"}


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    named = {rule["alert"] for group in rules.groups(topology("minimal")) for rule in group["rules"] if "alert" in rule}
    assert set(re.findall(r"^## (.*)$", PAGE, re.MULTILINE)) - OTHER_HEADINGS == named


def test_links_inside_lead_somewhere() -> None:
    anchors = {heading.lower() for heading in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)}
    for target in re.findall(r"\]\(#([^)]*)\)", PAGE):
        assert target in anchors
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (PROJECT / "docs/runbooks" / target).exists(), target


def test_metrics_and_settings_that_it_names_exist() -> None:
    metrics = {str(value) for key, value in vars(metric_names).items() if key.isupper()}
    metrics |= {name for name, _ in known_series.at_zero(topology("minimal"))}
    for name in re.findall(r"`((?:celery|superset_async)_[a-z_]+)", PAGE):
        assert name in metrics, name
    reference = document()
    sections = "metrics|resilience|workers|caching|redis"
    for key in re.findall(rf"`((?:{sections})\.[a-z_.]+)`", PAGE):
        assert f"`{key}`" in reference or f"`{key}." in reference, key
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", PAGE, re.MULTILINE):
        assert target in targets, target
