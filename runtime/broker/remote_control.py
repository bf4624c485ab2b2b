"""Which commands of Celery's remote control a worker obeys: those that ask, and none that changes or ends anything.

As shipped (Celery 5.6) whoever can publish to the broker may revoke tasks, take limits away, stop consumers and shut workers
down. Commands are not signed, so that Celery's own tools (`inspect`, flower, exporters of events) work with a user who has no
key: `topology.redis_acl` gives one. What a command would change is changed in the stack file, or by who runs the pods.

Replaces entries of `celery.worker.control.Panel` (read and tested with Celery 5.6.3; no upstream issue known).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from celery.app.utils import HIDDEN_SETTINGS  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue]
from celery.worker.control import Panel

from runtime.environment import counters, versions
from topology import metric_names

logger = logging.getLogger(__name__)

#: Names of settings that Celery hides.
_SECRET = cast("re.Pattern[str]", HIDDEN_SETTINGS)
#: What may be asked. `enable_events` has a worker tell of its tasks, which monitors ask for; `report` would tell passwords.
ALLOWED = frozenset(
    {
        *(
            "active",
            "active_queues",
            "clock",
            "conf",
            "ping",
            "query_task",
            "registered",
            "reserved",
            "revoked",
            "scheduled",
        ),
        *("stats", "enable_events", "heartbeat"),
    }
)
REFUSED = (
    "refused: a worker obeys commands that ask, and none that changes it. Change the stack file, or restart or scale the workers "
    "where they are run"
)


def install() -> None:
    """Have this worker obey those; UntestedVersionError for a Celery of another version."""
    versions.require(__name__, "celery")
    handlers: dict[str, Callable[..., Any]] = Panel.data
    # Some have two names.
    allowed = {handlers[name] for name in ALLOWED}
    for name, handler in list(handlers.items()):
        if handler not in allowed:
            handlers[name] = _refuse(name)
    for name in ("conf", "dump_conf"):
        handlers[name] = _censored(handlers[name])


def _refuse(name: str) -> Callable[..., dict[str, str]]:
    def refused(state: object, *_: object, **__: object) -> dict[str, str]:
        logger.error("the remote control command %s was refused", name)
        counters.count(metric_names.POISON, where="control")
        return {"error": REFUSED}

    return refused


def _censored(shipped: Callable[..., Any]) -> Callable[..., Any]:
    """Celery hides secrets among its settings, but not in the options that are one setting's value."""

    def conf(state: object, with_defaults: bool = False, **kwargs: Any) -> object:
        return without_secrets(shipped(state, with_defaults=with_defaults, **kwargs))

    return conf


def without_secrets(value: object) -> object:
    """Plain data with what has the name of a secret hidden, however deep it is."""
    if isinstance(value, Mapping):
        named = cast("Mapping[Any, object]", value)
        return {
            name: "********" if isinstance(each, str) and _SECRET.search(str(name)) else without_secrets(each)
            for name, each in named.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(each) for each in cast("list[object]", value)]
    return value
