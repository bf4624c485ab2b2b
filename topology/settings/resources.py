"""What pods may use: of one container, and of all of a tenant's together."""

from __future__ import annotations

from pydantic import Field

from topology.quantities import Cpu, Memory
from topology.settings.section import Section


class Resources(Section):
    """What a container asks for (requests) and may use (limits): CPU in millicores, memory in bytes."""

    cpu_request_millis: Cpu = Field(
        validation_alias="cpu_request", description="CPU that the scheduler reserves, such as 500m"
    )
    cpu_limit_millis: Cpu = Field(validation_alias="cpu_limit", description="CPU that the container may use at most")
    memory_request_bytes: Memory = Field(
        validation_alias="memory_request", description="memory that the scheduler reserves, such as 1Gi"
    )
    memory_limit_bytes: Memory = Field(
        validation_alias="memory_limit", description="memory at which the container is killed"
    )


class Quota(Section):
    """The most that a tenant's pods may request together: CPU in millicores, memory in bytes."""

    cpu_millis: Cpu = Field(validation_alias="cpu", description="CPU, such as 8")
    memory_bytes: Memory = Field(validation_alias="memory", description="memory, such as 16Gi")
