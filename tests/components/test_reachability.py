"""What the rendered policies allow, as a reader of policies finds it that somebody else wrote: just what docs/network.md says."""

from __future__ import annotations

import copy
import ipaddress
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components import stacks
from tests.components.aws import stacks as on_aws
from topology import reachability
from topology.egress import excluded
from topology.model import Topology

PROJECT = Path(__file__).resolve().parents[2]
#: network-config-analyzer, in the environment of the scanners.
READER = PROJECT / ".venv-scan" / "bin" / "nca"
_EDGE = re.compile(r'"(?P<source>[^"]+)" -> "(?P<target>[^"]+)" \[label="(?P<label>[^"]*)"')
_PORTS = re.compile(r"\b(?P<protocols>TCP|UDP|TCP\+UDP) (?P<ports>[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)")
#: Addresses that matter whatever a stack says: metadata, the Internet, an API server, other pods, and their like in IPv6.
ADDRESSES = ("169.254.169.254", "169.254.170.23", "8.8.8.8", "10.96.0.1", "192.168.0.1", "172.20.0.1", "100.64.0.1")
#: What a reader of policies must know.
READ = ("Namespace", "NetworkPolicy", "Deployment", "StatefulSet", "Job", "CronJob")
#: A namespace that nobody is to reach or to be reached from.
NOBODY = "elsewhere"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not READER.exists(), reason="network-config-analyzer is not installed: make .venv-scan/.installed"),
]


class Allowed:
    """What a reader of policies says that they let through, by TCP: from whom to which ports of whom."""

    def __init__(self, folder: Path, manifests: list[dict[str, Any]], namespaces: list[str]) -> None:
        self._file = folder / "stack.yaml"
        self._file.write_text(
            yaml.safe_dump_all([*(each for each in manifests if each["kind"] in READ), *_inhabitants(namespaces)])
        )
        done = subprocess.run(
            [
                READER,
                "--connectivity",
                "--resource_list",
                folder,
                "--output_format",
                "dot",
                "--output_endpoints",
                "deployments",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert "digraph" in done.stdout, done.stderr
        self._edges = [
            (_name(match["source"]), _name(match["target"]), _tcp(match["label"])) for match in _EDGE.finditer(done.stdout)
        ]

    def inside(self) -> dict[tuple[str, str], set[int]]:
        """The ports between workloads of the stack, and from and to namespaces."""
        ends = {ends[:2]: ends[2] for ends in self._edges if not _is_block(ends[0]) and not _is_block(ends[1])}
        return {ends: ports for ends, ports in ends.items() if not all(end.startswith("namespace ") for end in ends)}

    def to(self, address: str) -> dict[str, set[int]]:
        """Which workloads of the stack reach which ports of an address outside."""
        found: dict[str, set[int]] = {}
        for source, target, ports in self._edges:
            ours = not _is_block(source) and not source.startswith("namespace ")
            if ours and _is_block(target) and _holds(target, ipaddress.ip_address(address)):
                found.setdefault(source, set()).update(ports)
        return found


def _inhabitants(namespaces: list[str]) -> Iterator[dict[str, Any]]:
    """A pod in each namespace, so that the reader has whom to look for."""
    for name in namespaces:
        yield {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        }
        pod = {"name": "somebody", "namespace": name, "labels": {"somebody": "here"}}
        container = {"name": "main", "image": "none"}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": {"containers": [container]}}


def _name(end: str) -> str:
    """As `topology.reachability` calls it: a workload of the stack, a namespace, or a block."""
    namespace, slash, workload = end.partition("/")
    if workload.endswith("(Pod)"):
        return f"namespace {namespace}"
    if not slash or "(" not in workload:
        return end
    name = workload.partition("(")[0]
    return "init" if name.startswith("superset-init-") else name


def _is_block(end: str) -> bool:
    return re.fullmatch(r"[0-9a-f.:/-]+", end) is not None and any(mark in end for mark in "./:")


def _holds(block: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    first, _, last = block.partition("-")
    if not last:
        return address in ipaddress.ip_network(first)
    ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
    return ends[0].version == address.version and int(ends[0]) <= int(address) <= int(ends[1])


def _tcp(label: str) -> set[int]:
    """The ports; everything is 0."""
    if label == "All connections":
        return {0}
    found: set[int] = set()
    for match in _PORTS.finditer(label):
        if "TCP" in match["protocols"]:
            for ports in match["ports"].split(","):
                first, _, last = ports.partition("-")
                found |= set(range(int(first), int(last or first) + 1))
    return found


def _addresses(topology: Topology) -> Iterator[str]:
    """Those that matter, and both sides of each border that the topology draws."""
    yield from ADDRESSES
    for cidr in (*(cidr for peer in topology.egress for cidr in peer.cidrs), *filter(_is_block, _resolving(topology))):
        for border in (cidr, *excluded(cidr)):
            network = ipaddress.ip_network(border)
            if network.version == 4:
                around = (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1)
                yield from (str(ipaddress.IPv4Address(each)) for each in around if 0 <= each < 2**32)


def _resolving(topology: Topology) -> dict[str, set[int]]:
    """The ports of resolvers, by network or namespace."""
    found: dict[str, set[int]] = {}
    for each in topology.resolvers:
        for end in (*each.cidrs, *([f"namespace {each.namespace}"] if each.namespace else [])):
            found.setdefault(end, set()).update(each.ports)
    return found


def _holding(networks: Iterable[str], address: str) -> bool:
    """Whether one of the networks has an address that is not closed in it."""
    return any(_holds(cidr, ipaddress.ip_address(address)) and not _closed(cidr, address) for cidr in networks)


def _closed(cidr: str, address: str) -> bool:
    return any(_holds(each, ipaddress.ip_address(address)) for each in excluded(cidr))


def compare(manifests: list[dict[str, Any]], topology: Topology, folder: Path) -> None:
    """AssertionError where the policies let through anything else than what the topology says."""
    expected = list(reachability.reaches(topology))
    resolving = _resolving(topology)
    named = [*(end for each in expected for end in each[:2]), *resolving]
    namespaces = {end.removeprefix("namespace ") for end in named if end.startswith("namespace ")}
    allowed = Allowed(folder, manifests, sorted({NOBODY, *namespaces}))
    everyone = {source for source, _ in allowed.inside() if not source.startswith("namespace ")}
    assert {
        each.source for each in expected if not each.source.startswith("namespace ") and not _is_block(each.source)
    } <= everyone
    wanted: dict[tuple[str, str], set[int]] = {}
    for source, target, port in expected:
        if not _is_block(source) and not _is_block(target):
            wanted.setdefault((source, target), set()).add(port)
    for end, ports in resolving.items():
        if not _is_block(end):
            for source in everyone:
                wanted.setdefault((source, end), set()).update(ports)
    assert allowed.inside() == wanted
    for address in sorted(set(_addresses(topology))):
        due: dict[str, set[int]] = {}
        for source, target, port in expected:
            if _is_block(target) and not _is_block(source) and _holding([target], address):
                due.setdefault(source, set()).add(port)
        for end, ports in resolving.items():
            if _is_block(end) and _holding([end], address):
                for source in everyone:
                    due.setdefault(source, set()).update(ports)
        assert allowed.to(address) == due, address


@pytest.mark.parametrize("stack", ["minimal", "enterprise", "multi-tenant", "existing", "existing-redis", "own-superset"])
def test_policies_let_through_what_the_topology_says_and_nothing_else(stack: str, tmp_path: Path) -> None:
    compare(stacks.recorded(stack).manifests(), stacks.topology_of(stack), tmp_path)


def test_so_they_do_on_aws(tmp_path: Path) -> None:
    compare(on_aws.recorded("aws-enterprise").manifests(), on_aws.topology_of("aws-enterprise"), tmp_path)


def test_the_page_is_up_to_date() -> None:
    assert (PROJECT / "docs" / "network.md").read_text() == reachability.document(), "run make docs"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("allow-from-superset", {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}),
        ("allow-from-superset", {"to": [{"namespaceSelector": {}}], "ports": [{"port": 5432}]}),
        ("allow-dns", {"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}], "ports": [{"port": 80}]}),
    ],
)
def test_a_planted_opening_is_seen(name: str, rule: dict[str, Any], tmp_path: Path) -> None:
    manifests = copy.deepcopy(stacks.recorded("minimal").manifests())
    policy = next(each for each in manifests if each["metadata"]["name"] == name)
    policy["spec"]["egress"].append(rule)
    with pytest.raises(AssertionError):
        compare(manifests, stacks.topology_of("minimal"), tmp_path)
