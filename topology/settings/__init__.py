"""What a stack file may say: typed, validated, every key documented, unknown keys refused with the nearest real one.

One module a subject. `read` takes the `superset-async:` keys of a stack, lays them over the preset of the topology that they
name, and returns `Settings`, complete, with every problem found: nothing is decided here, and no file or service is read.

A section about which nothing is decided later (`Caching`, `Images`, …) stands in the topology as it is, and what a larger section
hands on unchanged is a base class of both (`RedisServer`, `WebServer`, …): a new setting of such a class is one field here, and
its value in `topology.presets`.
"""

from __future__ import annotations

from topology.settings.policies import PolicyException
from topology.settings.reading import Reading, read
from topology.settings.redis import RedisSettings
from topology.settings.resources import Resources
from topology.settings.section import Section
from topology.settings.stack import PlatformName, Settings
from topology.settings.tenants import TenantSettings

__all__ = [
    "PlatformName",
    "PolicyException",
    "Reading",
    "RedisSettings",
    "Resources",
    "Section",
    "Settings",
    "TenantSettings",
    "read",
]
