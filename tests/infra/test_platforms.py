"""What differs between platforms, and who deploys which."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from infra import platforms as deployments
from topology import commands, presets
from topology.model import Topology
from topology.plan import plan
from topology.platforms import platform_of
from topology.settings import PlatformName

PLATFORMS: tuple[PlatformName, ...] = get_args(PlatformName)
#: What a stack must say of a platform beside its name: on AWS the account, and no KEDA, which it would have to bring.
NEEDED: dict[PlatformName, dict[str, Any]] = {
    "aws": {
        "workers": {"scaling": {"kind": "hpa", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300}},
        "aws": {"account": "123456789012", "repository": None},
    }
}


def stack_on(name: PlatformName, topology: str) -> Topology:
    return plan("here", {"topology": topology, "platform": name, **NEEDED.get(name, {})})


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("topology", presets.NAMES)
def test_a_topology_says_what_its_processes_must_know_of_the_platform(name: PlatformName, topology: str) -> None:
    platform = platform_of(name)
    planned = stack_on(name, topology)
    assert {planned.web.bind, planned.exporter.bind} == {platform.bind}
    assert planned.web.behind_proxy is platform.behind_proxy
    assert "--config=python:runtime.start.gunicorn_config" in commands.web(planned)
    for pool in planned.pools:
        assert pool.workers_in_one == (pool.max_workers if platform.elastic_workers else 1)
        sizes = [word for word in commands.worker(pool) if word.startswith(("--autoscale", "--concurrency"))]
        most, least = pool.max_workers * pool.concurrency, pool.min_workers * pool.concurrency
        wanted = f"--autoscale={most},{least}" if platform.elastic_workers else f"--concurrency={pool.concurrency}"
        assert sizes == [wanted]


@pytest.mark.parametrize("name", PLATFORMS)
def test_each_platform_is_deployed_or_refused_with_the_way_out(name: PlatformName) -> None:
    planned = stack_on(name, "minimal")
    problems = list(deployments.check(planned))
    if name == "local":
        (problem,) = problems
        assert (problem.key, problem.value) == ("platform", "local")
        assert "make up STACK=here" in problem.fix
    else:
        assert problems == []
        assert callable(deployments.deployment_of(planned).deploy)


def test_one_machine_has_one_process_of_each_kind_whatever_the_preset_says() -> None:
    planned = plan("here", {"topology": "enterprise", "platform": "local"})
    assert (planned.web.min_replicas, planned.web.max_replicas, planned.web.secure_cookies) == (1, 1, False)
    assert planned.web.cpu_target_percent is None
    assert (planned.postgres.instances, planned.postgres.backup) == (1, None)
    assert {(instance.replicas, instance.sentinel, instance.tls) for instance in planned.redis} == {(0, False, None)}
    assert all(pool.scaling is None for pool in planned.pools)
