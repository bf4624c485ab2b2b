"""What a browser that polls is answered: what the shipped view answers, to whom it answers, from a few statements."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.runtime.conftest import Prepared, run_script
from tests.runtime.superset.polled_process import QUERIES

pytestmark = pytest.mark.superset


@pytest.fixture(scope="module")
def polled(prepared: Prepared) -> dict[str, Any]:
    return run_script("superset.polled_process", prepared.environment("web"))


def test_a_poll_is_answered_byte_for_byte_as_the_shipped_view_answers(polled: dict[str, Any]) -> None:
    found = polled["polls"]
    assert found["different"] == []
    # Each user has polled for each query, in two languages; not all may, and none but the administrator sees another's.
    assert {"admin 200", "admin 404", "admin 400", "analyst 200", "analyst 404", "anonymous 401"} <= set(found["same"])
    assert "nobody 200" not in found["same"]
    assert found["rows"] >= 2 * 3 * len(QUERIES)


def test_who_loses_a_right_has_lost_it_within_the_stated_time(polled: dict[str, Any]) -> None:
    assert polled["rights"] == [
        ["at first", 0, 200],
        ["taken by SQL", 4.9, 200],
        ["taken by SQL", 0.2, 403],
        ["given by SQL", 5.1, 200],
        ["taken by another process", 1.1, 403],
        ["given here", 0, 200],
        ["taken here", 0, 403],
        ["given here", 0, 200],
        ["user made inactive here", 0, 401],
        ["user made active here", 0, 200],
        ["permission taken from the role here", 0, 403],
        # Who sends a token is himself on a view of the public's too (as shipped: nobody, who has no queries).
        ["permission given to the public here", 0, 200],
    ]


def test_polls_are_logged_later_and_what_people_did_before_they_are_answered(polled: dict[str, Any]) -> None:
    assert polled["log"] == {
        "answered": ["QueryRestApi.get_list"],
        "flushed": ["QueryRestApi.get_list", "QueryRestApi.get", "QueryRestApi.get_updated_since"],
    }


def test_requests_are_counted_by_their_route_and_what_superset_says_of_itself_by_its_name(polled: dict[str, Any]) -> None:
    found = {(name, *sorted(labels.items())): by for (name, labels), by in _read(polled["counted"])}
    poll, nowhere = ("method", "GET"), ("route", "unmatched")
    route = ("route", "/api/v1/query/<int:pk>")
    assert found == {
        ("superset_web_requests_total", poll, route, ("status", "200")): 1,
        ("superset_web_requests_total", poll, route, ("status", "404")): 2,
        ("superset_web_requests_total", poll, nowhere, ("status", "404")): 2,
        ("superset_web_request_duration_seconds_bucket", ("le", "+Inf"), poll, route): 3,
        ("superset_web_request_duration_seconds_bucket", ("le", "+Inf"), poll, nowhere): 2,
        ("superset_stats_total", ("name", "QueryRestApi.get.success")): 1,
        ("superset_stats_total", ("name", "QueryRestApi.get.warning")): 2,
        ("superset_stats_seconds_count", ("name", "QueryRestApi.get.time")): 3,
    }


def _read(counted: dict[str, float]) -> list[tuple[Any, float]]:
    return [(json.loads(field), by) for field, by in counted.items()]


def test_a_log_out_ends_every_copy_of_its_session_and_no_other(polled: dict[str, Any]) -> None:
    """Answers to three browsers, and to a copy of each one's cookie."""
    assert polled["sessions"] == {
        "logged in": [200, 200, 200, 200, 200, 200],
        "the first logged out here": [401, 200, 200, 401, 200, 200],
        "the second in another process": [401, 401, 200, 401, 401, 200],
        "the third copy of before": [401, 401, 200, 401, 401, 401],
    }
