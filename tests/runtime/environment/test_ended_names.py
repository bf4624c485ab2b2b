"""Names that have ended, as several processes of one stack tell each other on a real server."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from runtime.environment import coordination
from runtime.environment.ended_names import AWAY_SECONDS, EndedNames
from tests.runtime.conftest import OPERATOR_PASSWORD, Services

LIFETIME = 1000.0


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    prefix = uuid.uuid4().hex
    with Redis(port=services.redis_port, username="operator", password=OPERATOR_PASSWORD) as found:
        monkeypatch.setattr(coordination, "client", lambda: found)
        monkeypatch.setattr(coordination, "key", lambda *parts: ":".join((prefix, *parts)))
        yield found


def test_what_ends_is_known_here_at_once_and_elsewhere_with_the_next_question(server: Any) -> None:
    clock = Clock()
    here, elsewhere = (EndedNames("logins", LIFETIME, 1.0, clock=clock) for _ in range(2))
    assert not elsewhere.has("a")
    here.end("a")
    assert here.has("a")
    assert not elsewhere.has("a")
    clock.now += 1.1
    assert elsewhere.has("a")
    assert not elsewhere.has("b")


def test_a_new_process_knows_what_ended_before_it(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In more answers than one."""
    monkeypatch.setattr("runtime.environment.ended_names._BATCH", 3)
    here = EndedNames("logins", LIFETIME, 1.0)
    for number in range(10):
        here.end(f"{number}")
    late = EndedNames("logins", LIFETIME, 1.0)
    assert all(late.has(f"{number}") for number in range(10))


def test_what_ends_without_redis_is_told_when_it_answers_again(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    here, elsewhere = (EndedNames("logins", LIFETIME, 1.0, clock=clock) for _ in range(2))

    def away() -> Any:
        raise ConnectionError("away")

    with monkeypatch.context() as broken:
        broken.setattr(coordination, "client", away)
        here.end("a")
        assert here.has("a")
    clock.now += AWAY_SECONDS + 0.1
    assert not here.has("b")
    assert elsewhere.has("a")


def test_a_name_is_kept_for_its_lifetime_and_not_longer(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    here = EndedNames("logins", LIFETIME, 1.0, clock=clock)
    here.end("a")
    (key,) = server.keys(coordination.key("*"))
    assert 0 < server.ttl(key) <= LIFETIME
    then = time.time() + LIFETIME + 1
    monkeypatch.setattr(time, "time", lambda: then)
    clock.now += 1.1
    assert not here.has("a")
    here.end("b")
    assert here.has("b")
