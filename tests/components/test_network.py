"""Pods of other namespaces connect to what they need of a stack, and to nothing else."""

from __future__ import annotations

import pytest

from infra import recording
from tests.components.stacks import SECRET_KEYS, recorded
from topology import stack_file


def let_in(stack: str) -> set[tuple[str, str, int]]:
    """Every namespace that a policy lets in, with the policy's name and the port."""
    return {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], name, port["port"])
        for name, policy in recorded(stack).of_kind("NetworkPolicy").items()
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
        if "namespaceSelector" in peer
        for port in rule["ports"]
    }


@pytest.mark.parametrize(
    ("stack", "operators"),
    [
        ("minimal", set[tuple[str, str, int]]()),
        ("enterprise", {("keda", "to-redis-broker", 6379), ("keda", "to-redis-broker-sentinel", 26379)}),
        (
            "cloudnativepg",
            {
                ("autoscaling", "to-redis-broker", 6379),
                ("autoscaling", "to-redis-broker-sentinel", 26379),
                ("autoscaling", "to-exporter", 9808),
                ("databases", "to-postgres", 5432),
                ("databases", "to-postgres", 8000),
            },
        ),
    ],
)
def test_an_operator_connects_from_the_namespace_that_the_stack_file_names(
    stack: str, operators: set[tuple[str, str, int]]
) -> None:
    users = {("monitoring", "allow-to-exporter", 9808), ("gateways", "allow-to-web", 8088)}
    assert let_in(stack) - users == {(namespace, f"allow-{policy}", port) for namespace, policy, port in operators}


def resolvers(network: dict[str, object]) -> set[tuple[str, int]]:
    """Namespace or network of each resolver that every pod may ask, with the port."""
    config = stack_file.read("minimal") | {"network": network}
    policy = recording.record("minimal", config, secret_keys=SECRET_KEYS).of_kind("NetworkPolicy")["allow-dns"]
    assert policy["spec"]["podSelector"] == {}
    found: set[tuple[str, int]] = set()
    for rule in policy["spec"]["egress"]:
        ports = {port["port"] for port in rule["ports"]}
        assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {
            (p, q) for p in ports for q in ("UDP", "TCP")
        }
        for peer in rule["to"]:
            block, namespace = peer.get("ipBlock", {}), peer.get("namespaceSelector", {})
            name = block.get("cidr") or namespace["matchLabels"]["kubernetes.io/metadata.name"]
            found |= {(name, port) for port in ports}
    return found


def test_every_pod_may_ask_the_resolvers_that_the_stack_names_and_no_other() -> None:
    """Redis, Sentinels, the exporter and dumps too: one policy for all pods of the namespace."""
    usual = {("kube-system", 53), ("169.254.20.10/32", 53)}
    assert resolvers({}) == usual
    assert resolvers({"dns": ["openshift"]}) == {("openshift-dns", 53), ("openshift-dns", 5353)}
    assert resolvers({"dns": ["kube-dns", "kubespray"]}) == {("kube-system", 53), ("169.254.25.10/32", 53)}
    assert resolvers({"dns": ["gke-cloud-dns"]}) == {("169.254.169.254/32", 53)}
    assert resolvers({"dns_cidrs": ["10.96.0.10/32"]}) == usual | {("10.96.0.10/32", 53)}
