"""What is stored for a value, how long it is kept, and who computes it: the parts that need no Superset."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from runtime.environment import coordination, leases
from runtime.results import envelope, followers, lifetimes, process_liveness, single_flight, spill_files
from runtime.results.envelope import Envelope, RefusedError, opened, wrap
from tests.runtime.conftest import OPERATOR_PASSWORD, Services, until

SECRET = envelope.signing_secret("a-secret-key", "data_cache")
KEY = "data_cache:@:abc"


def sealed(value: object, key: str = KEY, secret: bytes = SECRET) -> bytes:
    return wrap(value, computed=1.0, expires=2.0, seconds=0.5, codec="zlib", above=100).sealed(secret, key)


@given(st.binary() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.floats(allow_nan=False)))
def test_a_value_comes_back_as_it_was(value: object) -> None:
    found = opened(sealed(value), SECRET, KEY)
    assert found.value == value
    assert (found.computed, found.expires, found.seconds) == (1.0, 2.0, 0.5)


def test_what_gets_smaller_is_compressed_and_what_superset_compressed_is_not() -> None:
    assert opened(sealed(["same"] * 1000), SECRET, KEY).codec == "zlib"
    assert opened(sealed(["short"]), SECRET, KEY).codec == "none"
    found = opened(sealed(b"x" * 1000), SECRET, KEY)
    assert (found.kind, found.codec) == ("bytes", "none")


class Bomb:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize(
    "how", ["unsigned", "another key's", "another secret's", "another purpose's", "changed", "cut", "junk"]
)
def test_nothing_is_unpickled_before_its_signature_was_checked(how: str, tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "executed")
    forged = {
        "unsigned": b"!" + pickle.dumps(bomb),
        "another key's": sealed(bomb, key="data_cache:@other:abc"),
        "another secret's": sealed(bomb, secret=envelope.signing_secret("another-secret-key", "data_cache")),
        "another purpose's": sealed(bomb, secret=envelope.signing_secret("a-secret-key", "metadata_cache")),
        "changed": sealed(bomb)[:-1] + b"!",
        "cut": sealed(bomb)[:40],
        "junk": b"",
    }[how]
    with pytest.raises(RefusedError):
        opened(forged, SECRET, KEY)
    assert not bomb.path.exists()
    pickle.loads(pickle.dumps(bomb))
    assert bomb.path.exists(), "the bomb would have been no proof"


@given(data=st.data())
def test_any_changed_bit_is_refused(data: st.DataObject) -> None:
    """The times in the header too: else a value could be kept for ever."""
    good = sealed(["some", "value"])
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + bytes([good[at] ^ (1 << data.draw(st.integers(0, 7)))]) + good[at + 1 :]
    with pytest.raises(RefusedError):
        opened(changed, SECRET, KEY)


chances = st.floats(0, 1, exclude_max=True)


@given(chance=chances, percent=st.integers(0, 50), seconds=st.integers(1, 10**6))
def test_lifetimes_are_spread_by_the_jitter_and_no_more(chance: float, percent: int, seconds: int) -> None:
    spread = lifetimes.Lifetimes(jitter_percent=percent).spread(seconds, chance)
    assert seconds * (1 - percent / 100) - 1e-6 <= spread <= seconds * (1 + percent / 100) + 1e-6


@given(now=st.floats(0, 400), chance=chances, took=st.floats(0, 20), stale=st.integers(0, 100), beta=st.floats(0, 3))
def test_a_value_is_served_in_its_lifetime_then_renewed_then_gone(
    now: float, chance: float, took: float, stale: int, beta: float
) -> None:
    # Stored at 150, to live 50 seconds.
    found = Envelope("bytes", "none", 150.0 - took, 200.0, took, b"")
    policy = lifetimes.Lifetimes(early_refresh=beta, stale_seconds=stale, fetch_seconds=60)
    state = policy.state(found, now, chance)
    assert policy.kept(50) == 50 + max(60, min(stale, 50))
    if now >= 200 + min(stale, 50) + 1e-6:
        assert state == "gone"
    elif now >= 200:
        assert state == "due" or now > 200 + min(stale, 50) - 1e-6
    else:
        assert state in ("fresh", "due")
        assert state == "fresh" or beta * took > 0
    assert policy.state(None, now, chance) == "gone"


def test_early_refreshes_are_rare_until_the_end_is_near() -> None:
    """Of a thousand callers, those who refresh one second and twenty seconds before the end of a value that took a second."""
    found = Envelope("bytes", "none", 0.0, 200.0, 1.0, b"")
    policy = lifetimes.Lifetimes(early_refresh=1.0, stale_seconds=60)
    due = {left: sum(policy.state(found, 200.0 - left, n / 1000) == "due" for n in range(1000)) for left in (1, 20)}
    assert 300 < due[1] < 400
    assert due[20] == 0


@pytest.mark.parametrize(
    ("timeout", "tenants", "expected"),
    [
        (None, None, 3600),
        (3600, None, 3600),
        (60, None, 60),
        (0, None, lifetimes.LONGEST_SECONDS),
        (3600, 900, 900),
        (60, 900, 60),
        (7200, 900, 900),
        (None, 7200, 7200),
        (0, 900, 900),
    ],
)
def test_a_tenants_lifetime_replaces_the_default_and_bounds_the_rest(
    timeout: int | None, tenants: int | None, expected: int
) -> None:
    assert lifetimes.lifetime(timeout, 3600, tenants) == expected


def test_a_spilled_result_is_read_until_its_end_and_then_removed(tmp_path: Path) -> None:
    folder = spill_files.Folder(tmp_path / "results")
    ended, kept = folder.write("a", b"first", -10), folder.write("b", b"second", 60)
    (tmp_path / "results" / "notes.txt").write_text("not ours")
    abandoned = tmp_path / "results" / "x.part"
    abandoned.write_text("half")
    os.utime(abandoned, (0, 0))
    assert folder.read(kept) == b"second"
    spill_files.Folder(tmp_path / "results").clean()
    assert folder.read(ended) is None
    assert folder.read(kept) == b"second"
    assert {path.name for path in (tmp_path / "results").iterdir()} == {kept, "notes.txt"}
    assert folder.read("../results/" + kept) is None
    folder.remove(kept)
    assert folder.read(kept) is None


@pytest.fixture
def redis(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The coordination database of this process, on a real server, empty."""
    client: Any = Redis(port=services.redis_port, db=15, username="operator", password=OPERATOR_PASSWORD)
    client.flushdb()
    monkeypatch.setattr(coordination, "client", lambda: client)
    monkeypatch.setattr(coordination, "key", lambda *parts: ":".join(parts))
    yield client
    client.flushdb()
    client.close()


def test_one_leads_and_each_who_waits_hears_the_outcome_once_it_ends(redis: Any) -> None:
    flight = single_flight.take("chart", 60)
    assert flight is not None
    assert single_flight.take("chart", 60) is None
    heard: list[bytes | None] = []

    def wait() -> None:
        while (outcome := single_flight.outcome("chart", 1.0)) is None:
            pass
        heard.append(outcome)

    threads = [threading.Thread(target=wait) for _ in range(50)]
    for thread in threads:
        thread.start()
    until(lambda: int(redis.info("clients")["blocked_clients"]) == 50, 30, "all wait")
    flight.end(single_flight.FAILED + b"division by zero")
    for thread in threads:
        thread.join(10)
    assert heard == [b"failed:division by zero"] * 50
    assert single_flight.outcome("chart", 1.0) == single_flight.AGAIN
    assert 0 < redis.pttl(flight.outcome) <= single_flight.OUTCOME_SECONDS * 1000


def test_a_lease_is_renewed_while_its_holder_lives_and_never_anothers(redis: Any) -> None:
    flight = single_flight.take("chart", 60)
    assert flight is not None
    redis.pexpire(flight.lease.key, 2000)
    until(lambda: redis.pttl(flight.lease.key) > 3000, 10, "renewed")
    redis.set(flight.lease.key, "somebody-else", px=2000)
    assert not leases.renew(flight.lease)
    flight.end(single_flight.DONE)
    assert redis.get(flight.lease.key) == b"somebody-else"
    assert redis.pttl(flight.lease.key) <= 2000


def test_a_lease_that_is_held_too_long_is_not_renewed(redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "LEASE_SECONDS", 1.5)
    flight = single_flight.take("chart", 0.1)
    assert flight is not None
    until(lambda: not redis.exists(flight.lease.key), 10, "the lease ends")
    assert single_flight.take("chart", 0.1) is not None


def test_who_sees_that_the_holder_was_killed_takes_over_and_wakes_the_others(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "LEASE_SECONDS", 600.0)
    pid = os.fork()
    if pid == 0:
        single_flight.take("chart", 600)
        time.sleep(600)
        os._exit(0)
    try:
        until(lambda: bool(redis.exists("flight:chart")), 30, "the child holds it")
        held = single_flight.Flight("chart", redis.get("flight:chart").decode())
        assert single_flight.outcome("chart", 0.1) is None
    finally:
        os.kill(pid, signal.SIGKILL)
    try:
        # Nobody has waited for it, so it is still in the list of processes.
        until(lambda: single_flight.outcome("chart", 0.1) == single_flight.AGAIN, 30, "its end is seen")
    finally:
        os.waitpid(pid, 0)
    assert redis.lrange(held.outcome, 0, -1) == [single_flight.AGAIN]
    assert single_flight.take("chart", 60) is not None
    assert single_flight.outcome("chart", 0.1) is None


def test_a_process_is_known_by_more_than_its_number() -> None:
    own = process_liveness.name()
    place, _, process = own.rpartition(":")
    pid, _, start = process.partition(".")
    assert not process_liveness.has_ended(own)
    assert process_liveness.has_ended(f"{place}:{pid}.{int(start) - 1}"), "its number is another's by now"
    child = subprocess.Popen(["true"])
    child.wait()
    assert process_liveness.has_ended(f"{place}:{child.pid}.{start}")
    # In another container, and what is no name at all.
    for unseen in (f"another:{child.pid}.{start}", "", "x", place, f"{place}:", f"{place}:{child.pid}", f"{place}:a.b"):
        assert not process_liveness.has_ended(unseen)


def test_what_is_left_undone_is_for_another(redis: Any) -> None:
    flight = single_flight.take("chart", 60)
    assert flight is not None
    with pytest.raises(RuntimeError), single_flight.scope(probe=False, may_refresh=True) as scope:
        scope.flight = flight
        raise RuntimeError
    assert redis.lrange(flight.outcome, 0, -1) == [single_flight.AGAIN]
    assert single_flight.current() is None


def test_inside_a_computation_that_others_wait_for_nothing_waits(redis: Any) -> None:
    with single_flight.scope(probe=False, may_refresh=True) as outer:
        with single_flight.scope(probe=False, may_refresh=True) as inner:
            assert inner.nested is False
        outer.flight = single_flight.take("chart", 60)
        with (
            single_flight.scope(probe=False, may_refresh=True) as inner,
            single_flight.scope(probe=False, may_refresh=True) as innermost,
        ):
            assert inner.nested is innermost.nested is True


def follower(number: int) -> followers.Follower:
    return followers.Follower({"job_id": f"job-{number}", "channel_id": f"channel-{number}"}, f"/url/{number}")


def test_identical_jobs_follow_the_first_until_it_ends(redis: Any) -> None:
    assert followers.join("same", follower(0), 60) is None
    assert followers.join("other", follower(9), 60) is None
    assert [followers.join("same", follower(n), 60) for n in (1, 2)] == ["job-0", "job-0"]
    assert followers.close("job-9") == []
    assert followers.close("job-0") == [follower(1), follower(2)]
    # Until they have all been told they are found again, by whoever ends the job after a crash.
    assert followers.close("job-0") == [follower(1), follower(2)]
    followers.forget("job-0")
    assert followers.close("job-0") == []
    assert followers.join("same", follower(3), 60) is None
    assert all(redis.ttl(key) > 0 for key in redis.keys("*") if key != b"counters")


def test_a_leader_that_died_unnoticed_gathers_no_followers_for_ever(redis: Any) -> None:
    assert followers.join("same", follower(0), 60) is None
    assert followers.join("same", follower(1), 60) == "job-0"
    redis.pexpire("chart:same", 1)
    time.sleep(0.01)
    assert followers.join("same", follower(2), 60) is None
    # The first one ends after all: its follower with it, and not the one that leads now.
    assert followers.close("job-0") == [follower(1)]
    assert followers.join("same", follower(3), 60) == "job-2"


@given(st.binary(max_size=2000), st.integers(1, 5000), st.integers(1, 40))
def test_the_size_of_compressed_bytes_is_what_they_become(data: bytes, most: int, times: int) -> None:
    plain = data * times
    size = envelope.size_when_inflated(zlib.compress(plain), most)
    assert (size > most) is (max(len(plain), len(zlib.compress(plain))) > most)


def test_bytes_that_nobody_compressed_are_as_many_as_they_are() -> None:
    assert envelope.size_when_inflated(b"plain", 100) == 5
