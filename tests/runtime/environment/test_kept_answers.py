"""Answers that are kept for a while, and forgotten when somebody says that something has changed."""

from __future__ import annotations

import pytest

from runtime.environment import coordination
from runtime.environment.kept_answers import MOST, KeptAnswers
from runtime.environment.shared_version import AWAY_SECONDS, SharedVersion


class Server:
    """Redis, as far as it is asked here."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.asked = 0
        self.away = False

    def get(self, key: str) -> bytes | None:
        self.asked += 1
        if self.away:
            raise ConnectionError("away")
        return self.values.get(key)

    def set(self, key: str, value: str, ex: int) -> None:
        assert ex > 0
        if self.away:
            raise ConnectionError("away")
        self.values[key] = value.encode()


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()
    monkeypatch.setattr(coordination, "client", lambda: found)
    monkeypatch.setattr(coordination, "key", lambda *parts: ":".join(parts))
    return found


def process(clock: Clock) -> KeptAnswers:
    return KeptAnswers(SharedVersion("users", 1.0, clock=clock), 5.0, clock=clock)


def test_an_answer_is_kept_for_its_time_and_asked_for_again_after_it(server: Server) -> None:
    clock = Clock()
    kept = process(clock)
    answers = iter(range(10))
    found: list[int] = []
    for seconds in (0.0, 4.9, 0.2, 4.7):
        clock.now += seconds
        found.append(kept.get("key", lambda: next(answers)))
    assert found == [0, 0, 1, 1]
    assert kept.get("another key", lambda: next(answers)) == 2


def test_a_change_counts_here_at_once_and_elsewhere_with_the_next_question(server: Server) -> None:
    clock = Clock()
    here, elsewhere = process(clock), process(clock)
    for each in (here, elsewhere):
        assert each.get("key", lambda: "before") == "before"
    here.changed()
    assert here.get("key", lambda: "after") == "after"
    assert elsewhere.get("key", lambda: "after") == "before"
    clock.now += 1.1
    assert elsewhere.get("key", lambda: "after") == "after"


def test_what_was_looked_up_before_a_change_is_not_kept_after_it(server: Server) -> None:
    kept = process(Clock())

    def slow() -> str:
        kept.changed()
        return "before"

    assert kept.get("key", slow) == "before"
    assert kept.get("key", lambda: "after") == "after"


def test_an_error_is_not_kept(server: Server) -> None:
    kept = process(Clock())
    with pytest.raises(ZeroDivisionError):
        kept.get("key", lambda: 1 // 0)
    assert kept.get("key", lambda: 1) == 1


def test_the_version_is_asked_for_once_a_second_and_less_often_while_redis_is_away(server: Server) -> None:
    clock = Clock()
    kept = process(clock)
    for _ in range(20):
        clock.now += 0.1
        kept.get("key", lambda: 1)
    assert server.asked == 2
    server.away, server.asked = True, 0
    for _ in range(20):
        clock.now += 0.5
        kept.get("key", lambda: 1)
    assert server.asked == 10 / AWAY_SECONDS
    kept.changed()
    assert kept.get("key", lambda: 2) == 2


def test_memory_is_bounded(server: Server) -> None:
    kept = process(Clock())
    for number in range(MOST + 10):
        kept.get(number, lambda: None)
    assert len(kept._answers) <= MOST
