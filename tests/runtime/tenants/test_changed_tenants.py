"""Tenants come and go in the topology's file, and the processes that read it go on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from runtime.environment.process_topology import Watched
from runtime.tenants import router as routing
from runtime.tenants.recognition import Person
from runtime.tenants.router import LiveRouter, Router
from tests.runtime.conftest import OPERATOR_PASSWORD, Services, run_script
from tests.runtime.stacks import topology
from topology.model import Topology

TENANTS = {"tenant-a": {"users": ["alice"]}, "newcomer": {"users": ["nina"]}}
SQL = "sql_lab.get_sql_results"


class Known:
    """A directory in which everybody is known by name and has no role."""

    def named(self, username: str) -> Person:
        return Person(username=username)

    def database_of_query(self, query_id: int) -> str | None:
        return None


def router(plan: Topology) -> Router:
    return Router(plan, cast(Any, Known()), lambda: False)


class Mounted:
    """A ConfigMap as the kubelet mounts it: files behind symbolic links, which are replaced all at once."""

    def __init__(self, folder: Path, first: Topology) -> None:
        self.path = folder / "topology.json"
        self._folder, self._version = folder, 0
        self.write(first.model_dump_json())
        self.path.symlink_to("..data/topology.json")

    def write(self, text: str) -> None:
        self._version += 1
        made = self._folder / f"..{self._version}"
        made.mkdir()
        (made / "topology.json").write_text(text)
        link = self._folder / "..new"
        link.symlink_to(made.name)
        link.replace(self._folder / "..data")


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path, topology("multi-tenant"))


def test_a_changed_file_is_read_and_a_broken_one_is_not(mounted: Mounted, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(mounted.path, every=0)
    first = watched()
    assert first == topology("multi-tenant")
    assert watched() is first
    changed = topology("multi-tenant", tenants=TENANTS)
    mounted.write(changed.model_dump_json())
    assert watched() == changed
    with caplog.at_level(logging.ERROR):
        mounted.write('{"stack": "of another version"}')
        assert watched() == changed
        mounted.path.unlink()
        assert watched() == changed
    assert "is not taken" in caplog.text


def test_the_file_is_looked_at_seldom(mounted: Mounted) -> None:
    watched = Watched(mounted.path, every=3600)
    first = watched()
    mounted.write(topology("multi-tenant", tenants=TENANTS).model_dump_json())
    assert watched() is first


def test_submissions_are_routed_by_the_tenants_that_there_are_now(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(routing, "declared", lambda name: name)
    watched = Watched(mounted.path, every=0)
    route = LiveRouter(topology("multi-tenant"), router, watched)

    def queue(user: str) -> str:
        return route(SQL, (1,), {"username": user}, {}, task=None)["queue"]

    assert [queue("alice"), queue("bob"), queue("nina")] == ["tenant-a", "tenant-b", "default"]
    mounted.write(topology("multi-tenant", tenants=TENANTS).model_dump_json())
    assert [queue("alice"), queue("bob"), queue("nina")] == ["tenant-a", "default", "newcomer"]

    def unreadable() -> Topology:
        raise OSError("no such file")

    with caplog.at_level(logging.ERROR):
        assert (
            LiveRouter(topology("multi-tenant"), router, unreadable)(SQL, (1,), {"username": "bob"})["queue"] == "tenant-b"
        )
    assert "cannot be read" in caplog.text


@pytest.mark.superset
def test_celery_itself_sends_to_a_queue_that_came_after_its_start(services: Services, mounted: Mounted) -> None:
    """A real Celery on a real broker, in one process: before and after the file has changed."""
    here = {"web_port": 8088, "redis_port": services.redis_port, "postgres_port": services.postgres_port}
    plans: dict[str, Any] = {
        name: topology("multi-tenant", platform="local", local=here, **change)
        for name, change in {"before": {}, "after": {"tenants": TENANTS}}.items()
    }
    mounted.write(plans["before"].model_dump_json())
    env = services.process_environment(plans["before"], "web", "changed-tenants")
    env["SUPERSET_ASYNC_TOPOLOGY"] = str(mounted.path)
    changed = mounted.path.with_name("changed.json")
    changed.write_text(plans["after"].model_dump_json())
    redis: Any = Redis(port=services.redis_port, username="operator", password=OPERATOR_PASSWORD)
    # These servers are strict as one that carries everything; with tenants the broker's has every key for its user.
    redis.execute_command("ACL", "SETUSER", "broker", "~newcomer*")
    said = run_script("tenants.changed_tenants_process", env, str(mounted.path), str(changed), SQL)
    assert said["queues_at_start"] == ["default", "priority", "tenant-a", "tenant-b"]
    (message,) = [json.loads(each) for each in redis.lrange("newcomer", 0, -1)]
    assert message["properties"]["delivery_info"]["routing_key"] == "newcomer"
    assert redis.delete("newcomer") == 1
    assert redis.lpop("default") is not None
