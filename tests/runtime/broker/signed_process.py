"""A Celery application without Superset, whose processes sign as Superset's do; `ran` is the list of what ran."""

from __future__ import annotations

import os
from typing import Any, cast

from celery import Celery
from redis import Redis

from runtime.broker import channels, remote_control, signatures

URL = os.environ["BROKER_URL"]
app = Celery("signed", broker=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_compression=os.environ.get("COMPRESSION") or None,
    broker_transport_options={"sentinel_kwargs": {"password": "a-secret"}},
)
signatures.install()
channels.install(lambda node: None, signatures.of_process().check_message)
remote_control.install()


def good(word: str) -> None:
    """Say that it ran."""
    cast(Any, Redis).from_url(URL).rpush("ran", word)


def other(word: str) -> None:
    """Say that it ran, as another task."""
    good(f"other {word}")


cast(Any, app).task(name="good")(good)
cast(Any, app).task(name="other")(other)
