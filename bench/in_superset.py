"""Parts of `bench/tenants.py` that need Superset's own environment: making users, and timing the router in it.

python in_superset.py people    reads {user: [role]} and a password from stdin, makes them, and lets guests ask for charts
python in_superset.py router    prints what a route costs in this process's topology, and the memory of a web process
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from flask import Flask, g
from flask_appbuilder import AppBuilder
from sqlalchemy import text

from runtime.environment.process_topology import load_topology
from runtime.start.wsgi import application_factory
from runtime.superset.application import create
from runtime.superset.directory import SupersetDirectory
from runtime.tenants import identity
from runtime.tenants.router import CHART_TASKS, SQL_LAB_TASK, Router

CALLS = 2000


def people() -> None:
    """Make users, each an Admin with the roles given; idempotent."""
    wanted = json.load(sys.stdin)
    app = create()
    with app.app_context():
        appbuilder = _appbuilder(app)
        sm: Any = appbuilder.sm
        admin = sm.find_role("Admin")
        for name, roles in wanted["users"].items():
            held = [admin, *(sm.add_role(role) or sm.find_role(role) for role in roles)]
            if sm.find_user(username=name) is None:
                sm.add_user(name, name, name, f"{name}@localhost", held, password=wanted["password"])
        # No more: for what anybody may do, Flask-AppBuilder does not look at who a token's user is.
        wanted_by_guests = (("can_read", "Chart"), ("all_datasource_access", "all_datasource_access"))
        sm.find_role("Public").permissions = [sm.find_permission_view_menu(*it) for it in wanted_by_guests]
        appbuilder.session.commit()


def router() -> None:
    """Print microseconds of a route by how the tenant is found, and resident memory in MB, as JSON."""
    app = application_factory()
    memory = _resident_mb()
    topology = load_topology(os.environ)
    routes = Router(topology, SupersetDirectory())
    chart = sorted(CHART_TASKS)[0]
    guest: dict[str, Any] = {
        "user_id": None,
        "guest_token": {"user": {"username": "acme-eve"}, "resources": [], "rls_rules": []},
    }
    with app.test_request_context():
        appbuilder = _appbuilder(app)
        sm: Any = appbuilder.sm
        query = appbuilder.session.execute(text("SELECT max(id) FROM query")).scalar()
        dave = {"user_id": sm.find_user(username="dave").id}
        asked: dict[str, Callable[[], Any]] = {
            "another task": lambda: routes("prune_query", (), {}),
            "by user": lambda: routes(SQL_LAB_TASK, (query, ""), {"username": "alice"}),
            "by role": lambda: routes(SQL_LAB_TASK, (query, ""), {"username": "carol"}),
            "by database": lambda: routes(SQL_LAB_TASK, (query, ""), {"username": "dave"}),
            "by dataset's database": lambda: routes(chart, (dave, {"datasource": {"id": 1, "type": "table"}}), {}),
            "by guest claim": lambda: routes(chart, (guest, {"datasource": {"id": 1, "type": "table"}}), {}),
        }
        g.user = sm.find_user(username="carol")
        asked["tenant of the current user"] = identity.current_tenant_id
        found = {name: _timed(ask) for name, ask in asked.items()}
    print(json.dumps({"tenants": len(topology.tenants), "memory_mb": memory, "microseconds": found}))


def _appbuilder(app: Flask) -> AppBuilder:
    return cast(AppBuilder, app.extensions["appbuilder"])


def _timed(ask: Callable[[], Any]) -> dict[str, Any]:
    began = time.perf_counter()
    answer = ask()
    first = time.perf_counter() - began
    took: list[float] = []
    for _ in range(CALLS):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return {"answer": str(answer), "first": round(first * 1e6), "median": round(statistics.median(took) * 1e6, 1)}


def _resident_mb() -> int:
    line = next(it for it in Path("/proc/self/status").read_text().splitlines() if it.startswith("VmRSS"))
    return int(line.split()[1]) // 1000


if __name__ == "__main__":
    {"people": people, "router": router}[sys.argv[1]]()
