"""A script that does not end is ended, by a user of the stack, on a real server; and one that has written is named."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from runtime.environment import script_watchdog
from runtime.environment.script_watchdog import Watchdog
from tests.components.test_redis import client, instance, server
from tests.waiting import until
from topology import metric_names, redis_acl


@pytest.mark.services
@pytest.mark.parametrize("user", ["broker", "cache"])
def test_a_script_that_does_not_end_is_ended(user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[dict[str, str]] = []
    monkeypatch.setattr(script_watchdog.counters, "count", lambda name, **labels: counted.append({name: labels["what"]}))
    wanted = instance()
    with server(wanted, tmp_path) as process:
        client(wanted, redis_acl.OPERATOR).config_set("lua-time-limit", 100)
        watchdog = Watchdog([("redis", client(wanted, user, socket_timeout=5))], every=0.05)
        watchdog.start()
        said = _run(wanted, "broker", "while true do end", process)
        assert "Script killed" in said
        until(lambda: counted == [{metric_names.REAPED: "script"}], 60, "it is counted")
        assert client(wanted).ping()
        watchdog.end()
        watchdog.join(60)


@pytest.mark.services
def test_a_script_that_has_written_is_not_ended_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = instance()
    with server(wanted, tmp_path) as process:
        client(wanted, redis_acl.OPERATOR).config_set("lua-time-limit", 100)
        program = "redis.call('set', 'unacked', 'x') while true do end"
        running = threading.Thread(target=_run, args=(wanted, "broker", program, process))
        running.start()
        asked = client(wanted, "broker", socket_timeout=5)
        watchdog = Watchdog([])
        until(lambda: _busy(asked), 60, "the server is busy")
        assert not watchdog.look("redis", asked)
        assert not watchdog.look("redis", asked)
        assert caplog.text.count("a script that has written does not end on redis") == 1
        process.kill()
        running.join(60)


def _run(wanted: Any, user: str, program: str, process: Any) -> str:
    """What the server says when the script has ended; empty where the server has ended."""
    try:
        client(wanted, user, socket_timeout=120).eval(program, 0)
    except RedisError as error:
        return str(error) if process.poll() is None else ""
    return "it ended by itself"


def _busy(asked: Any) -> bool:
    with suppress(RedisError):
        asked.ping()
        return False
    try:
        asked.ping()
    except RedisError as error:
        return str(error).startswith("BUSY")
    return False
