"""Celery's result store on Redis, for processes that send tasks and never wait for a result, as Superset's do.

As shipped, sending a task subscribes to its result: in a web process that never asks, each thread keeps one more connection
and one more subscription a task for ever, and with Redis down a submission blocks for 20 s more. Imported only by Celery,
through its setting `override_backends`.

Replaces `on_task_call` of `celery.backends.redis.RedisBackend` and `SentinelBackend` (read and tested with Celery 5.6.3; no
upstream issue known).
"""

from __future__ import annotations

from celery.backends import redis

from runtime.environment import versions

versions.require(__name__, "celery")


class RedisBackend(redis.RedisBackend):
    """Stores and reads states as shipped; does not wait for them."""

    def on_task_call(self, producer: object, task_id: str) -> None:
        """Nothing to do when a task is sent."""


class SentinelBackend(redis.SentinelBackend):
    """The same behind Sentinel."""

    def on_task_call(self, producer: object, task_id: str) -> None:
        """Nothing to do when a task is sent."""
