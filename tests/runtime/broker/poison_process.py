"""A Celery application without Superset, whose workers' channel drops what is no message; `ran` is the list of what ran."""

from __future__ import annotations

import os
from typing import Any, cast

from celery import Celery
from redis import Redis

from runtime.broker import channels
from runtime.config import tasks

URL = os.environ["BROKER_URL"]
app = Celery("poison", broker=URL)
# What is put back must be executed again: that is how one message could stop a pool.
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1, **tasks.PATIENCE)
channels.install(lambda node: None, lambda message: None)


def good(number: int) -> None:
    """Say that it ran."""
    cast(Any, Redis).from_url(URL).rpush("ran", number)


cast(Any, app).task(name="good")(good)
