"""A stack that grows, in the real engine on a cluster: what each change touches, both ways, and what it leaves as it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation

from tests.engine.conftest import MakeStack, configure, remove
from tests.engine.test_engine import changes
from topology.changes import ACCEPT_ENV

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
NAMESPACE = "engine-growth"
WORKERS = "deployment/worker-default"
#: The API server's word for a claim that is bound to nothing, or whose class does not expand.
FORBIDDEN = "forbidden"


class Living:
    """A stack on a cluster, and its objects."""

    def __init__(self, stack: automation.Stack, cluster: Path) -> None:
        self.stack = stack
        self._kubectl = ["kubectl", f"--kubeconfig={cluster}", f"--namespace={NAMESPACE}"]

    def kubectl(self, *arguments: str) -> str:
        done = subprocess.run([*self._kubectl, *arguments], check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def patch(self, what: str, patch: Mapping[str, Any]) -> str:
        """Patch an object; what the API server says where it refuses, from the words that it begins with."""
        done = subprocess.run(
            [*self._kubectl, "patch", what, f"--patch={json.dumps(patch)}"], check=False, capture_output=True, text=True
        )
        return FORBIDDEN if FORBIDDEN in done.stderr else done.stderr

    def up(self, change: Mapping[str, Any]) -> dict[str, str]:
        """What an `up` with this change to the stack's file does to each resource."""
        configure(self.stack, change)
        return changes(self.stack.up)

    def uids(self, kinds: str) -> dict[str, str]:
        found = json.loads(self.kubectl("get", kinds, "--output=json"))["items"]
        return {f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["uid"] for each in found}

    @contextmanager
    def replicas(self, what: str) -> Generator[list[int]]:
        """Every number of replicas that the object is told to have while the block runs, in order."""
        seen: list[int] = []
        template = "--output=jsonpath={.spec.replicas}{'\\n'}"
        watch = subprocess.Popen(
            [*self._kubectl, "get", what, "--watch", template], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert watch.stdout
        seen.append(int(watch.stdout.readline()))
        try:
            yield seen
        finally:
            watch.terminate()
            seen.extend(int(line) for line in watch.stdout.read().split())
            watch.wait(30)


@pytest.fixture(scope="module")
def living(
    make_stacks: Callable[[Path], MakeStack], tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path
) -> Iterator[Living]:
    stack = make_stacks(tmp_path_factory.mktemp("growth"))("enterprise", kubeconfig)
    # Certificates are nobody's question here, and their provider is one more to have.
    configure(stack, {"namespace": NAMESPACE, "redis": {"tls": None}, "postgres": {"tls": None}})
    try:
        stack.up()
        yield Living(stack, kubeconfig)
    finally:
        remove(stack, NAMESPACE, kubeconfig)


#: Change, and the way back: of which resources it may touch none.
QUIET: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "labels": ({"labels": {"team": "data"}}, {"labels": {}}),
    "further workers": ({"workers": {"max_workers": 21}}, {"workers": {"max_workers": 20}}),
    "further replica": ({"redis": {"broker": {"replicas": 3}}}, {"redis": {"broker": {"replicas": 2}}}),
    "a setting": ({"row_limit": 4000}, {"row_limit": 5000}),
}


@pytest.mark.parametrize("name", QUIET)
def test_a_change_makes_no_server_or_claim_anew_in_either_direction(name: str, living: Living) -> None:
    there, back = QUIET[name]
    before = living.uids("statefulset,persistentvolumeclaim,namespace")
    for change in (there, back):
        done = living.up(change)
        assert done, "nothing was changed"
        assert not [what for what, how in done.items() if "replace" in how and not what.startswith("Job/")]
        after = living.uids("statefulset,persistentvolumeclaim,namespace")
        assert {key: after.get(key) for key in before} == before


def test_a_label_rolls_no_pod_of_a_data_store(living: Living) -> None:
    templates = "{range .items[*]}{.metadata.name} {.status.updateRevision}{'\\n'}{end}"
    before = living.kubectl("get", "statefulset", f"--output=jsonpath={templates}")
    living.up({"labels": {"team": "finance"}})
    assert living.kubectl("get", "statefulset", f"--output=jsonpath={templates}") == before
    living.up({"labels": {}})


def test_replicas_are_handed_over_in_one_up_and_never_fall(living: Living) -> None:
    # What a scaler does: it owns the field, by an API of its own.
    living.kubectl("scale", WORKERS, "--replicas=5")
    with living.replicas(WORKERS) as seen:
        done = living.up({"workers": {"scaling": None, "min_workers": 5, "max_workers": 5}})
    assert min(seen) == 5
    assert [how for what, how in done.items() if what.startswith("ScaledObject/")] == ["delete"]

    with living.replicas(WORKERS) as seen:
        done = living.up(
            {
                "workers": {
                    "scaling": {"kind": "keda", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300},
                    "min_workers": 2,
                    "max_workers": 20,
                }
            }
        )
    assert min(seen) == 5, "they run until the scaler decides"
    assert [how for what, how in done.items() if what.startswith("ScaledObject/")] == ["create"]


def test_a_larger_volume_is_refused_and_comes_by_the_steps_that_are_named(living: Living) -> None:
    """The claim's request and the set; no driver at hand expands the volume itself."""
    with pytest.raises(automation.CommandError) as caught:
        living.up({"redis": {"broker": {"volume_size": "40Gi"}}})
    said = str(caught.value)
    assert "redis.broker.volume_size" in said
    assert "delete statefulset/redis-broker --cascade=orphan" in said

    pods = living.uids("pod")
    claims = [name for name in living.uids("persistentvolumeclaim") if "data-redis-broker-" in name]
    # And that of a replica that has come and gone.
    assert len(claims) >= 3
    for claim in claims:
        assert living.patch(claim, {"spec": {"resources": {"requests": {"storage": "40Gi"}}}}) in ("", FORBIDDEN)
    living.kubectl("delete", "statefulset/redis-broker", "--cascade=orphan")
    living.stack.workspace.env_vars = {
        **(living.stack.workspace.env_vars or {}),
        ACCEPT_ENV: "redis.broker.volume_size",
    }
    living.stack.up()
    living.stack.workspace.env_vars.pop(ACCEPT_ENV)
    after = living.uids("pod")
    assert {name: after.get(name) for name in pods if "redis-broker" in name} == {
        name: uid for name, uid in pods.items() if "redis-broker" in name
    }
    size = "{.spec.volumeClaimTemplates[0].spec.resources.requests.storage}"
    assert living.kubectl("get", "statefulset/redis-broker", f"--output=jsonpath={size}") == "40Gi"
