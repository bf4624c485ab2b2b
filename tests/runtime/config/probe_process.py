"""Run in Superset's environment: starts the real Superset once for each topology and prints, as JSON, what it then has.

Usage: python -m tests.runtime.config.probe_process FILE, where FILE holds {name: environment of a web process}. The heavy
imports are done once; each topology is then a fork, two at a time.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import celery.app.defaults
import celery.backends.redis
import celery.loaders.base
import kombu.compression
import kombu.connection
import redis
from kombu.transport.redis import Channel, SentinelChannel


def known() -> dict[str, Any]:
    """The names that Celery, kombu, redis-py, Superset and its feature flags know."""
    from superset.config import DEFAULT_FEATURE_FLAGS

    failover = inspect.getsource(kombu.connection.Connection._extract_failover_opts)
    results = inspect.getsource(celery.backends.redis)
    loader = inspect.getsource(celery.loaders.base)
    return {
        "celery": sorted({*celery.app.defaults.DEFAULTS, *re.findall(r"_conf\[['\"](\w+)", loader)}),
        "broker_transport_options": sorted(
            {*Channel.from_transport_options, *SentinelChannel.from_transport_options}
            | set(re.findall(r"['\"](\w+)['\"] in transport_opts", failover))
        ),
        "result_backend_transport_options": sorted(
            set(re.findall(r"_transport_options(?:\.get\(|\[)\s*['\"](\w+)", results))
        ),
        "redis_client": sorted(inspect.signature(redis.Redis.__init__).parameters),
        "compressions": sorted(cast(Any, kombu.compression)._aliases),
        "feature_flags": sorted(DEFAULT_FEATURE_FLAGS),
    }


def started() -> dict[str, Any]:
    """What the real application has, made from this process's environment."""
    from superset.app import create_app

    from runtime.config import render
    from runtime.environment.process_topology import load_topology

    emitted = render(load_topology(os.environ), os.environ)
    app: Any = create_app()
    with app.app_context():
        import superset.extensions

        extensions: Any = superset.extensions

        celery = extensions.celery_app
        for module in celery.conf.imports:
            import_module(module)
        celery.finalize()
        caches, limiter = extensions.cache_manager, app.appbuilder.sm.limiter
        pool = extensions.db.engine.pool
        results = extensions.results_backend_manager.results_backend
        superset_tasks = {name: task for name, task in celery.tasks.items() if not name.startswith("celery.")}
        return {
            "config": {name: app.config[name] for name in emitted},
            "celery": {name: celery.conf[name] for name in cast("dict[str, Any]", emitted["CELERY_CONFIG"])},
            "tasks": {
                name: {
                    "soft_time_limit": task.soft_time_limit,
                    "time_limit": task.time_limit,
                    "acks_late": task.acks_late,
                    "reject_on_worker_lost": task.reject_on_worker_lost,
                    "parameters": [*inspect.signature(task.run).parameters],
                }
                for name, task in superset_tasks.items()
            },
            "queues": {name: queue.exchange.name for name, queue in celery.amqp.queues.items()},
            "routes": {
                name: celery.amqp.router.route({}, name, (), {"username": "alice"})["queue"].name for name in superset_tasks
            },
            "result_backend": f"{type(celery.backend).__module__}.{type(celery.backend).__name__}",
            "caches": {
                name: {
                    "type": type(getattr(caches, name).cache).__name__,
                    "prefix": getattr(caches, name).cache.key_prefix,
                    "timeout": getattr(caches, name).cache.default_timeout,
                    "client": repr(getattr(caches, name).cache.store.client),
                }
                for name in ("cache", "data_cache", "filter_state_cache", "explore_form_data_cache")
            },
            "results": {"type": type(results).__name__, "prefix": results.key_prefix, "client": repr(results.store.client)},
            "events": repr(extensions.async_query_manager._client),
            "limiter": {"storage": type(limiter._storage).__name__, "enabled": limiter.enabled},
            "pool": {"size": pool.size(), "overflow": pool._max_overflow, "recycle": pool._recycle, "ping": pool._pre_ping},
        }


def main(ask: Callable[[], object] = started) -> None:
    """Start each topology in a fork, `ask` it, and print everything as one line of JSON."""
    environments: dict[str, dict[str, str]] = json.loads(Path(sys.argv[1]).read_text())
    import superset.app  # noqa: F401

    assert "superset.config" not in sys.modules, "a topology would get another one's settings"
    answers: dict[str, Any] = {}
    waiting = list(environments)
    running: dict[int, tuple[str, Path]] = {}
    while waiting or running:
        while waiting and len(running) < 2:
            name = waiting.pop()
            answer = Path(sys.argv[1]).with_name(f"answer-{name}.json")
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                _child(environments[name], answer, ask)
            running[pid] = (name, answer)
        pid, _ = os.wait()
        name, answer = running.pop(pid)
        answers[name] = json.loads(answer.read_text())
    os.environ.update(environments[next(iter(environments))])
    print(json.dumps({"known": known(), "started": answers}))


def _child(environment: dict[str, str], answer: Path, ask: Callable[[], object]) -> None:
    """Never returns: a fork ends with its answer written."""
    os.environ.update(environment)
    try:
        found: object = ask()
    except BaseException:
        found = {"error": traceback.format_exc()}
    answer.write_text(json.dumps(found, default=repr))
    os._exit(0)


if __name__ == "__main__":
    main()
