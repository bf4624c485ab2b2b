"""Run in Superset's environment: prints how often databases were asked for their default schemas."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from flask import Flask, g

from runtime.superset.default_schemas import _kept

AT_ONCE = 16


def main() -> None:
    """Print the counts by case."""
    asked: list[str] = []
    all_there = threading.Barrier(AT_ONCE)

    def shipped(database: Any, catalog: str | None) -> str:
        asked.append(database.name)
        return f"schema of {database.name}"

    get = _kept(shipped)

    def counted(*calls: tuple[Any, str | None]) -> int:
        before = len(asked)
        for database, catalog in calls:
            assert get(database, catalog) == f"schema of {database.name}"
        return len(asked) - before

    def at_once(database: Any) -> str:
        all_there.wait()
        return str(get(database, None))

    def of(name: str, **others: Any) -> Any:
        return SimpleNamespace(**{"id": 1, "changed_on": 1, "impersonate_user": False, "name": name, **others})

    one = of("one")
    with ThreadPoolExecutor(AT_ONCE) as callers:
        answers = set(callers.map(at_once, [one] * AT_ONCE))
    found: dict[str, Any] = {"at once": [len(asked), sorted(answers)]}
    found["another catalog"] = counted((one, "c"), (one, "c"))
    found["another database"] = counted((of("two", id=2), None), (of("two", id=2), None))
    found["a changed one"] = counted((of("changed", changed_on=2), None))
    found["not stored"] = counted((of("new", id=None), None), (of("other", id=None), None))
    with Flask(__name__).app_context():
        for user, when in (("ann", ""), ("bob", ""), ("ann", " again")):
            g.user = SimpleNamespace(username=user)
            found[f"impersonated {user}{when}"] = counted((of(user, id=3, impersonate_user=True), None))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
