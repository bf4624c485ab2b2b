"""Run in Superset's environment as a web process: what its caches and its store of results do, as JSON.

Everything goes through Superset's own objects; only the forged values and the lifetimes are written and read directly.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

from flask import g

from runtime.environment import process_topology
from runtime.environment.process_topology import load_topology
from topology.commands import TOPOLOGY_ENV


class Bomb:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def main() -> None:
    """Print everything as one line of JSON."""
    proof = Path(sys.argv[1])
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        from superset import extensions

        sm: Any = extensions.security_manager
        for name in ("ann", "ben"):
            sm.add_user(name, name, name, f"{name}@localhost", sm.find_role("Gamma"), password="-")
        users = {name: sm.find_user(username=name).id for name in ("ann", "ben")}
        caches: Any = extensions.cache_manager
        results: Any = extensions.results_backend_manager.results_backend
        objects: dict[str, Any] = {
            "data_cache": caches.data_cache,
            "cache": caches.cache,
            "filter_state": caches.filter_state_cache,
            "explore_form_data": caches.explore_form_data_cache,
            "results": results,
        }
        answer: dict[str, Any] = {name: {} for name in objects}

        def seen_by(name: str | None, cache: Any) -> Any:
            g.user = sm.get_user_by_id(users[name]) if name else None
            return cache.get("key")

        for name, cache in objects.items():
            g.user = sm.get_user_by_id(users["ann"])
            value: Any = b"rows" if name == "results" else "rows"
            answer[name]["set"] = bool(cache.set("key", value, timeout=600))
            answer[name]["tenants"] = [seen_by(user, cache) == value for user in ("ann", "ben", None)]
            g.user = sm.get_user_by_id(users["ann"])
            store = cache.store if name == "results" else cache.cache.store
            full = store.key("key")
            answer[name]["name"], answer[name]["ttl"] = full, store.client.pttl(full) / 1000
            store.client.set(full, b"!" + pickle.dumps(Bomb(proof)), px=60_000)
            answer[name]["forged"] = cache.get("key")
            store.client.set(full, pickle.dumps(Bomb(proof)), px=60_000)
            answer[name]["forged again"] = cache.get("key")
            answer[name]["deleted"] = [bool(cache.set("key", value, timeout=0)), bool(cache.delete("key")), cache.get("key")]
            cache.set("endless", value, timeout=0)
            answer[name]["endless"] = store.client.pttl(store.key("endless")) / 1000
            cleared = bool(cache.set("cleared", value, timeout=600)) and cache.clear()
            answer[name]["cleared"] = [cleared, cache.get("cleared") == value]
        answer["none"] = [caches.data_cache.set("none", None), caches.data_cache.cache.has("none")]
        answer["data too large"] = _too_large(lambda: caches.data_cache.set("large", {"df": os.urandom(3 * 2**20)}))
        answer["data that becomes too large"] = _too_large(lambda: caches.data_cache.set("large", {"df": bytes(3 * 2**20)}))
        answer["rows that become too large"] = _too_large(lambda: results.set("large", zlib.compress(bytes(3 * 2**20)), 60))
        answer["rows too large"] = _too_large(lambda: results.set("large", os.urandom(3 * 2**20), 60))
        medium = os.urandom(2**20)
        results.set("medium", medium, 60)
        answer["spilled"] = [results.get("medium") == medium, int(results.store.client.strlen(results.store.key("medium")))]
        folder = Path(load_topology(os.environ).caching.spill.folder)  # type: ignore[union-attr]
        (file,) = (folder / "query_results").iterdir()
        file.write_bytes(pickle.dumps(Bomb(proof)))
        answer["forged file"] = results.get("medium")
        file.unlink()
        answer["lost file"] = results.get("medium")
        answer["codec"] = _codec(caches.data_cache)
        answer["newcomer"] = _newcomer(objects, sm.get_user_by_id(users["ben"]))
    print(json.dumps(answer | {"executed": proof.exists()}, default=repr))


def _newcomer(objects: dict[str, Any], user: Any) -> dict[str, Any]:
    """What the caches of this process do for a user whose tenant comes while it runs: each value's name, and its lifetime."""
    file = Path(os.environ[TOPOLOGY_ENV])
    process_topology.current = process_topology.Watched(file, every=0)
    topology = process_topology.current()
    tenant = topology.tenant("tenant-b").model_copy(update={"id": "newcomer", "users": ("ben",), "result_ttl_seconds": 60})
    tenants = tuple(each for each in topology.tenants if each.id != "tenant-b")
    file.write_text(topology.model_copy(update={"tenants": (*tenants, tenant)}).model_dump_json())
    g.user = user
    found: dict[str, Any] = {}
    for name, cache in objects.items():
        cache.set("key of a newcomer", b"rows")
        store = cache.store if name == "results" else cache.cache.store
        full = store.key("key of a newcomer")
        found[name] = [full, store.client.pttl(full) / 1000, cache.get("key of a newcomer") == b"rows"]
    return found


def _too_large(store: Any) -> list[str]:
    try:
        store()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


def _codec(cache: Any) -> str:
    cache.set("codec", {"df": ["the same"] * 10_000})
    store = cache.cache.store
    return str(store.read(store.key("codec")).codec)


if __name__ == "__main__":
    main()
