"""Pods of other namespaces connect to what they need of a stack, and to nothing else."""

from __future__ import annotations

import pytest

from tests.components.stacks import recorded


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
