"""The streams through which a browser learns that its chart is ready: Superset's, that expire and fail fast.

As shipped (6.1) their keys never expire, so that every session leaves one behind in the broker's memory; the client waits
without end for a server that is silent; behind Sentinel it uses database 0 whatever is configured; each of many identical
requests sends a job of its own; and an embedded guest's charts are all refused, because its cookie names no user as its
subject, which PyJWT takes for forged from 2.10 on. Imported only inside Superset, which loads the class that
GLOBAL_ASYNC_QUERY_MANAGER_CLASS names.

Replaces methods, the attribute `_cache` and the two tasks of `superset.async_events.async_query_manager.AsyncQueryManager`,
and leans on `_write_client` of flask-caching's Redis backends (read and tested with Superset 6.1.0 and flask-caching 2.3.1).
Superset 7 moves asynchronous charts onto its Global Task Framework (its pull requests 43407, 43424, 43429 and 43627), and
gives their jobs an expiry (42084).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import jwt
from flask import Flask, Request, Response
from flask_caching.backends import rediscache
from superset.async_events.async_query_manager import AsyncQueryManager as ShippedManager
from superset.async_events.async_query_manager import AsyncQueryTokenException

from runtime.environment import versions
from runtime.environment.process_topology import load_topology
from runtime.queries import abandoned_charts, chart_jobs, final_states
from runtime.results import followers
from runtime.superset import embedding
from runtime.superset.chart_streams import EXPIRES_SECONDS
from runtime.superset.implementation import reworded
from runtime.superset.shared_charts import SharedTask
from runtime.superset.submission import ChartTask

logger = logging.getLogger(__name__)
versions.require(__name__, "apache-superset", "flask-caching")


class AsyncQueryManager(ShippedManager):
    """Superset's manager of asynchronous charts, with a client of our settings."""

    def init_app(self, app: Flask) -> None:
        """As shipped, then the connection is replaced by the one that flask-caching makes of the same settings."""
        ShippedManager.init_app(self, app)
        config = app.config["GLOBAL_ASYNC_QUERIES_CACHE_BACKEND"]
        backend = cast("type[rediscache.RedisCache]", getattr(rediscache, config["CACHE_TYPE"]))
        made = backend.factory(app, config, [], dict(config["CACHE_OPTIONS"]))
        self._client = made._write_client
        # Both of Superset's classes keep it there.
        cast(Any, self._cache)._cache = self._client
        topology = load_topology(os.environ)
        chart: ChartTask | SharedTask = ChartTask(self._load_chart_data_into_cache_job)
        if topology.caching.single_flight:
            chart = SharedTask(chart, topology.celery.time_limit_seconds, self._end_followers)
        self._load_chart_data_into_cache_job = chart
        self._load_explore_json_into_cache_job = ChartTask(self._load_explore_json_into_cache_job)

    def register_request_handlers(self, app: Flask) -> None:
        """As shipped, but for guests, who need no cookie."""

        def after_request(handle: Callable[[Response], Response]) -> Callable[[Response], Response]:
            return app.after_request(embedding.without_guests(handle))

        ShippedManager.register_request_handlers(self, cast(Flask, SimpleNamespace(after_request=after_request)))

    def parse_channel_id_from_request(self, req: Request) -> str:
        """The channel of the guest's page, or else the one that the request's signed cookie names, whoever's it is.

        Superset's exception where there is none, or a forged one.
        """
        if (channel := embedding.guests_channel(self._jwt_secret, req)) is not None:
            return channel
        token = req.cookies.get(self._jwt_cookie_name)
        if not token:
            raise AsyncQueryTokenException("Token not preset")
        try:
            claims = jwt.decode(token, self._jwt_secret, algorithms=["HS256"], options={"verify_sub": False})
            return str(claims["channel"])
        except (jwt.PyJWTError, KeyError) as error:
            raise AsyncQueryTokenException("Failed to parse token") from error

    def read_events(self, channel: str, last_id: str | None) -> list[dict[str, Any] | None]:
        """As shipped; and whoever asks waits for its charts."""
        abandoned_charts.note(channel)
        return ShippedManager.read_events(self, channel, last_id)

    def update_job(self, job_metadata: dict[str, Any], status: str, **kwargs: Any) -> None:
        """Add the event as shipped, and let the stream live a day from now; the last event ends the job's followers, and
        then its registration."""
        if status == self.STATUS_ERROR:
            kwargs["errors"] = reworded(kwargs.get("errors") or [])
        self._tell(job_metadata, status, kwargs)
        if status in (self.STATUS_DONE, self.STATUS_ERROR):
            final_states.told.set(True)
            self._end_followers(job_metadata, status, kwargs)
            _forget(job_metadata)

    def _tell(self, job_metadata: dict[str, Any], status: str, changes: dict[str, Any]) -> None:
        ShippedManager.update_job(self, job_metadata, status, **changes)
        self._client.expire(f"{self._stream_prefix}{job_metadata['channel_id']}", EXPIRES_SECONDS)

    def _end_followers(self, job_metadata: dict[str, Any], status: str, changes: dict[str, Any]) -> None:
        def tell(follower: followers.Follower) -> None:
            own = {"result_url": follower.result_url} if status == self.STATUS_DONE else {}
            self._tell(dict(follower.metadata), status, {**changes, **own})

        followers.end(str(job_metadata["job_id"]), tell)


def _forget(job_metadata: dict[str, Any]) -> None:
    try:
        chart_jobs.remove(job_metadata)
    except Exception:
        # The browser has its event; the reaper ends the job once more, which nobody listens to.
        logger.warning("job %s stays registered", job_metadata["job_id"], exc_info=True)
