"""Which key of the stack file a rule speaks of."""

from __future__ import annotations

from topology.settings import Settings


def pool_key(settings: Settings, pool: str, field: str) -> str:
    """The key that decides `field` of a pool: its own, its tenant's, or the one of all workers."""
    if pool in settings.pools and getattr(settings.pools[pool], field) is not None:
        return f"pools.{pool}.{field}"
    if pool in settings.tenants and getattr(settings.tenants[pool], field, None) is not None:
        return f"tenants.{pool}.{field}"
    return f"workers.{field}"
