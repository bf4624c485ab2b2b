"""`python -m bench.many_tenants [COUNT]`: a stack of COUNT tenants (default 50): time to plan and render, and its objects."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

from infra import recording
from infra.render import manifest_files
from topology.plan import plan


def config(count: int) -> dict[str, Any]:
    """A stack file's keys: every fifth tenant has a quota, every tenth shares workers."""
    tenants: dict[str, Any] = {}
    for number in range(count):
        tenant: dict[str, Any] = {
            "roles": [f"Role {number}"],
            "guests": [{"claim": "user.username", "value": f"t{number:03}-*"}],
        }
        if number % 10 == 9:
            tenant["pool"] = "shared"
        elif number % 5 == 0:
            tenant["quota"] = {"cpu": "8", "memory": "16Gi"}
        tenants[f"tenant-{number:03}"] = tenant
    return {"topology": "multi-tenant", "tenants": tenants}


def main(count: int) -> None:
    """Print a line for each figure."""
    keys = config(count)
    started = time.perf_counter()
    topology = plan("bench", keys)
    planned = time.perf_counter()
    recorded = recording.record("bench", keys)
    ran = time.perf_counter()
    files = manifest_files("bench", recorded.manifests())
    written = time.perf_counter()
    manifests = recorded.manifests()
    kinds = Counter(manifest["kind"] for manifest in manifests)
    print(
        f"{count} tenants: planned and checked in {planned - started:.2f} s, program {ran - planned:.2f} s, "
        f"YAML {written - ran:.2f} s; {len(recorded.resources)} resources, {len(manifests)} objects in {len(files)} files"
    )
    print(", ".join(f"{kind} {number}" for kind, number in kinds.most_common()))
    size = len(topology.model_dump_json())
    print(f"topology {size / 1024:.0f} KiB (a ConfigMap holds 1024), max_connections {topology.postgres.max_connections}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
