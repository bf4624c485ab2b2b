"""Which module deploys a stack, by its platform: the one place of the Pulumi program that knows which there are.

A deployment is a module with `check` and `deploy` as `Deployment` has them; a new one needs a line in `_DEPLOYMENTS` (and its
platform one in `topology.platforms`). `local` has none: its processes are started by `make up`, without the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pulumi

from infra import aws, kubernetes
from infra.workloads import Given
from topology.model import Topology
from topology.problems import Problem
from topology.settings.stack import PlatformName


class Deployment(Protocol):
    """What a platform's module does for the program."""

    def check(self, topology: Topology) -> Iterator[Problem]:
        """What keeps `topology` from running there, beyond the rules that `topology.plan` has checked. No resource is made."""
        ...

    def deploy(
        self,
        topology: Topology,
        given: Given,
    ) -> dict[str, pulumi.Input[object]]:
        """Make every resource of `topology`; what a person needs to know of them, by the name of a stack output."""
        ...


_DEPLOYMENTS: dict[PlatformName, Deployment] = {
    "aws": aws,
    "kubernetes": kubernetes,
}


def check(topology: Topology) -> Iterator[Problem]:
    """What keeps the program from deploying `topology`; a platform that it does not deploy is the one problem then."""
    deployment = _DEPLOYMENTS.get(topology.platform)
    if deployment is not None:
        yield from deployment.check(topology)
        return
    yield Problem(
        "platform",
        topology.platform,
        "is not deployed by Pulumi: it runs as processes of this machine",
        f"Start it with make up STACK={topology.stack}, or set platform: {' or '.join(sorted(_DEPLOYMENTS))}",
    )


def deployment_of(topology: Topology) -> Deployment:
    """The module that deploys `topology`, which `check` has found nothing wrong with."""
    return _DEPLOYMENTS[topology.platform]
