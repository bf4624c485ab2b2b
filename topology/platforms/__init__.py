"""One module a platform: everything that differs between the places where a stack can run.

`platform.Platform` says what a platform decides. To add one: its name in `PlatformName` (settings/stack.py); a
module here with its `Platform`, made with `dataclasses.replace(KUBERNETES, …)` where its workloads are Kubernetes' own; a line in
`_PLATFORMS`; its deployment in `infra.platforms`. Nothing else asks for a platform's name: what a process must know of it stands
in the topology.
"""

from __future__ import annotations

from topology.platforms.aws import AWS
from topology.platforms.kubernetes import KUBERNETES
from topology.platforms.local import LOCAL
from topology.platforms.platform import Address, Platform
from topology.settings import PlatformName

__all__ = ["Address", "Platform", "platform_of"]

_PLATFORMS: dict[PlatformName, Platform] = {
    "aws": AWS,
    "kubernetes": KUBERNETES,
    "local": LOCAL,
}


def platform_of(name: PlatformName) -> Platform:
    """The platform called `name`, which the settings have checked already."""
    return _PLATFORMS[name]
