"""`GET /api/v1/superset_async/doctor`: what `superset-async doctor` asks the web tier.

For those who may read Superset's action log. It reads the platform's stores and changes nothing. Imported only inside Superset.

Leans on Flask-AppBuilder's `BaseApi`, on the permission's name, and on the columns of the tables query and ab_user (read and
tested with Superset 6.1.0; no upstream issue known).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask, Response, request
from flask_appbuilder import AppBuilder
from flask_appbuilder.api import BaseApi, expose, safe
from flask_appbuilder.security.decorators import protect
from redis import Redis, RedisError

from runtime.broker import queues, reserved_tasks
from runtime.environment import coordination, process_topology, redis_databases, secrets, versions
from runtime.environment.metadata_database import Connection
from runtime.environment.redis_clients import client
from runtime.observability import checklist, diagnosis, exporter
from runtime.observability.diagnosis import Observed
from runtime.queries import executions
from runtime.superset.implementation import OPEN
from topology.model import Purpose, RedisInstance, Topology

#: Results with most rows that are looked at for the largest, and how many of these are told.
LOOKED_AT, TOLD = 50, 3
#: Users that may be expected at once.
MOST_USERS = 1_000_000
#: What INFO says of the last write of each of its files.
WRITES = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


class DoctorApi(BaseApi):
    """What is wrong with the platform, as data."""

    resource_name = "superset_async"
    class_permission_name = "Log"
    method_permission_name = {"doctor": "read", "checklist": "read"}  # noqa: RUF012 - as its base class has it
    allow_browser_login = True
    openapi_spec_tag = "Superset async"

    @expose("/doctor", methods=("GET",))
    @protect()
    @safe
    def doctor(self) -> Response:
        """Answer with `diagnosis.report`."""
        topology = process_topology.current()
        return self.response(200, result=diagnosis.report(topology, observed(topology)))

    @expose("/checklist", methods=("GET",))
    @protect()
    @safe
    def checklist(self) -> Response:
        """Answer with `checklist.report`; 400 for a parameter `users` that is no number above 0."""
        users = request.args.get("users", "")
        if not (users.isascii() and users.isdecimal() and 0 < int(users) <= MOST_USERS):
            return self.response_400(message=f"users must be a number from 1 to {MOST_USERS}")
        try:
            return self.response(200, result=checked(process_topology.current(), int(users)))
        except RedisError as error:
            return self.response_500(message=f"a Redis server does not answer: {error}")


def install(app: Flask) -> None:
    """Add the API to Superset's application."""
    versions.require(__name__)
    appbuilder: AppBuilder = app.extensions["appbuilder"]
    appbuilder.add_api(DoctorApi)


def observed(topology: Topology) -> Observed:
    """What the stores say now. A Redis server that does not answer is a fact; the metadata database's errors are raised."""
    from superset.extensions import db

    connection = db.session.connection()
    now = time.time()
    stores = [_store(topology, instance) for instance in topology.redis]
    known: dict[str, Any] = {}
    try:
        waiting = exporter.Broker(*queues.own_broker(), topology.celery.queues).read_waiting()
        shared, prefix = coordination.client(), coordination.key("")
        published = reserved_tasks.workers(shared, prefix)
        swept = shared.get(coordination.key(coordination.REAPED_AT))
        living = {worker.worker for worker in published}
        known = {
            "waiting": waiting.waiting,
            "oldest": waiting.oldest_waiting,
            "workers": published,
            "beat_seconds": now - float(swept) if swept else None,
            "silent": {
                name: seconds
                for name, seconds in reserved_tasks.silent(shared, prefix, now).items()
                if name not in living or seconds >= diagnosis.SILENT_SECONDS
            },
            "deaths": [diagnosis.Death(*death) for death in reserved_tasks.deaths(shared, prefix)],
        }
    except RedisError:
        # Its store above says so: both are on the server that carries the broker.
        pass
    return Observed(
        now,
        stores,
        _connections(connection),
        lost=_lost(connection),
        same=list(_same(connection)),
        largest=_largest(topology, connection),
        **known,
    )


def checked(topology: Topology, users: int) -> list[dict[str, Any]]:
    """The lines of the checklist. Raises RedisError where a server does not answer."""
    from superset.extensions import db

    now = datetime.now(UTC)
    connection = db.session.connection()
    past = checklist.Past(*connection.exec_driver_sql(checklist.PAST).fetchone())
    busiest = connection.exec_driver_sql(checklist.BUSIEST).fetchone()
    return checklist.report(
        topology,
        users,
        servers=[_server(topology, instance, now) for instance in topology.redis],
        workers=reserved_tasks.workers(coordination.client(), coordination.key("")),
        past=past,
        busiest=checklist.Busiest(*busiest) if busiest else None,
        now=now,
    )


def _server(topology: Topology, instance: RedisInstance, now: datetime) -> checklist.Server:
    info = _client(topology, instance).info()
    marked = coordination.client().get(coordination.key(coordination.MARKED_AT)) if instance.carries_broker else None
    return checklist.Server(
        instance.name,
        started=now - timedelta(seconds=int(info.get("uptime_in_seconds", 0))),
        aof=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        peak_bytes=int(info.get("used_memory_peak", 0)),
        max_bytes=int(info.get("maxmemory", 0)),
        replicas=int(info.get("connected_slaves", 0)),
        marked=datetime.fromtimestamp(float(marked), UTC) if marked else None,
    )


def _client(topology: Topology, instance: RedisInstance) -> Redis[bytes]:
    """A client of a server, as this process's user of the first database on it."""
    purpose: Purpose = next(each.purpose for each in topology.redis_databases if each.instance == instance.name)
    return client(redis_databases.database(topology, secrets.read(topology, os.environ), purpose))


def _store(topology: Topology, instance: RedisInstance) -> diagnosis.Store:
    try:
        info = _client(topology, instance).info()
    except RedisError:
        return diagnosis.Store(instance.name, answers=False)
    lasting: dict[Purpose, int] = {
        database.purpose: keys
        for database in topology.redis_databases
        if database.instance == instance.name and database.default_ttl_seconds is not None
        if (keys := _without_lifetime(info.get(f"db{database.number}")))
    }
    return diagnosis.Store(
        instance.name,
        answers=True,
        used_bytes=int(info.get("used_memory", 0)),
        max_bytes=int(info.get("maxmemory", 0)),
        policy=info.get("maxmemory_policy"),
        aof=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        aof_bytes=int(info.get("aof_current_size", 0)),
        failing=[what for what in WRITES if info.get(what, "ok") != "ok"],
        lasting=lasting,
    )


def _without_lifetime(keyspace: Any) -> int:
    return int(keyspace["keys"]) - int(keyspace["expires"]) if keyspace else 0


def _connections(connection: Connection) -> diagnosis.Connections:
    rows = connection.exec_driver_sql(
        "SELECT COALESCE(usename, ''), count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%%' "
        "AND state_change < now() - interval '1 minute'), current_setting('max_connections')::int "
        "FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1",
    ).fetchall()
    by_user = {str(user): int(count) for user, count, _, _ in rows}
    return diagnosis.Connections(sum(by_user.values()), int(rows[0][3]), sum(int(row[2]) for row in rows), by_user)


def _lost(connection: Connection) -> dict[str, int]:
    rows = connection.exec_driver_sql(
        f"SELECT worker, count(*) FROM {executions.TABLE} WHERE outcome = 'lost' "
        f"AND ended_at > now() - make_interval(hours => {diagnosis.RECENT_HOURS}) GROUP BY worker"
    )
    return {str(worker): int(count) for worker, count in rows}


def _same(connection: Connection) -> Iterator[diagnosis.Same]:
    rows = connection.exec_driver_sql(
        f"SELECT count(*), count(DISTINCT user_id), min(id) FROM query WHERE {OPEN} "
        f"GROUP BY database_id, md5(sql) HAVING count(*) >= {diagnosis.IDENTICAL} ORDER BY 1 DESC LIMIT {TOLD}"
    )
    for count, users, oldest in rows:
        yield diagnosis.Same(int(count), int(users), int(oldest))


def _largest(topology: Topology, connection: Connection) -> list[diagnosis.Result]:
    """The largest results in Redis of those with most rows; empty where they are elsewhere, or Redis does not answer."""
    rows = connection.exec_driver_sql(
        "SELECT q.id, COALESCE(u.username, ''), q.results_key FROM query q "
        "LEFT JOIN ab_user u ON u.id = q.user_id WHERE q.results_key IS NOT NULL "
        "AND q.end_time > (extract(epoch from now()) - %s) * 1000 ORDER BY q.rows DESC NULLS LAST LIMIT %s",
        (topology.caching.query_results_ttl_seconds, LOOKED_AT),
    ).fetchall()
    database = redis_databases.database(topology, secrets.read(topology, os.environ), "query_results")
    try:
        pipeline = client(database).pipeline(transaction=False)
        for row in rows:
            pipeline.strlen(f"{database.prefix}{row[2]}")
        sizes = pipeline.execute()
    except RedisError:
        return []
    found = [diagnosis.Result(int(row[0]), str(row[1]), int(size)) for row, size in zip(rows, sizes, strict=True) if size]
    return sorted(found, key=lambda each: -each.stored_bytes)[:TOLD]
