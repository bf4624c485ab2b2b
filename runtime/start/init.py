"""`python -m runtime.start.init`: everything that must be in the metadata database before web and workers start.

One process and one start-up of Superset do the migrations, roles and permissions, the administrator and the declared
databases. A second run changes nothing that is as it should be; of several at once, one works and the others wait for it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from tenacity import Retrying, wait_fixed

from runtime.broker import queues, server_check
from runtime.config import render
from runtime.environment import metadata_database
from runtime.environment import redis_databases as redis_config
from runtime.environment import secrets as stack_secrets
from runtime.environment.process_topology import load_topology
from runtime.environment.redis_clients import client
from runtime.environment.secrets import ConfigurationError
from runtime.environment.steps import InitError
from runtime.start.ready import prepared_step
from runtime.superset import preparation
from topology.model import Topology

if TYPE_CHECKING:
    from flask import Flask

ADMIN_PASSWORD_ENV = "ADMIN_PASSWORD"  # noqa: S105
#: Seconds to wait for PostgreSQL and Redis, which may start at the same time as this.
WAIT_SECONDS = 120
#: Key of the advisory lock that one init holds.
LOCK = 0x5355_5053
#: What its connections are called in pg_stat_activity.
LOCKING = "superset-init"

Report = Callable[[str], None]


def say(line: str) -> None:
    """Print a line of progress at once."""
    print(line, flush=True)


def wait_for_services(topology: Topology, env: Mapping[str, str], seconds: float = WAIT_SECONDS) -> None:
    """Return as soon as PostgreSQL and every Redis answer with our credentials; InitError after `seconds`."""
    known = stack_secrets.read(topology, env)

    def postgres_answers() -> None:
        metadata_database.connect(topology, env, LOCKING, connect_timeout=3).close()

    def redis_answers(instance_name: str) -> None:
        number = next(each for each in topology.redis_databases if each.instance == instance_name)
        connection = client(redis_config.database(topology, known, number.purpose))
        try:
            connection.ping()
        finally:
            connection.close()

    checks: dict[str, Callable[[], None]] = {
        f"PostgreSQL at {topology.postgres.host}:{topology.postgres.port}": postgres_answers
    }
    for instance in topology.redis:
        checks[f"Redis {instance.name} at {instance.host}:{instance.port}"] = lambda name=instance.name: redis_answers(name)
    deadline = time.monotonic() + seconds
    for what, check in checks.items():
        _until(deadline, seconds, what, check)


def _until(deadline: float, seconds: float, what: str, check: Callable[[], None]) -> None:
    # All services share one deadline.
    waiting = Retrying(stop=lambda _: time.monotonic() >= deadline, wait=wait_fixed(0.3), reraise=True)
    try:
        waiting(check)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InitError(
            f"{what} did not answer within {seconds:.0f} s: {reason}. Start it, or correct its host, port and "
            "password, and run this again"
        ) from error


def look_at_existing(topology: Topology, env: Mapping[str, str], report: Report = say) -> None:
    """Refuse Redis servers, run by someone else, that would lose tasks or do not let their user work; warn where they may."""
    try:
        found = server_check.check(topology, stack_secrets.read(topology, env))
    except RedisError as error:
        raise InitError(
            f"an existing Redis server stopped answering while it was looked at: {error}. Run this again"
        ) from error
    for finding in found:
        if finding.warning:
            report(f"warning: {finding}")
    problems = [str(finding) for finding in found if not finding.warning]
    if problems:
        listed = "".join(f"\n  {number}. {problem}" for number, problem in enumerate(problems, 1))
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise InitError(f"{count} with the Redis servers that exist; nothing was changed:{listed}")


@contextmanager
def exclusive(topology: Topology, env: Mapping[str, str]) -> Generator[None]:
    """Hold PostgreSQL's advisory lock: a second init waits here until the first one is done.

    The lock is a transaction's: behind a pooler in transaction mode one of a session would stay with a connection of the
    pooler's, and nobody could give it back.
    """
    connection = metadata_database.connect(topology, env, LOCKING)
    try:
        with connection.cursor() as cursor:
            # The transaction waits while Superset works on connections of its own.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,))
            if cursor.fetchone() != (True,):
                say("another init is at work: waiting for it to end")
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        yield
    finally:
        connection.close()


def prepare(app: Flask, topology: Topology, env: Mapping[str, str], report: Report = say) -> dict[str, int]:
    """Migrations, own tables, roles, administrator and declared databases, in a started Superset; the databases' ids by name."""
    password = env.get(ADMIN_PASSWORD_ENV)
    if not password:
        raise InitError(f"{ADMIN_PASSWORD_ENV} is not set: the administrator needs a password")
    preparation.migrate(app, report)
    preparation.migrate_own_tables(report)
    declare_queues(topology, env, report)
    preparation.sync_roles(app, report)
    preparation.look_for_roles(app, topology, report)
    preparation.ensure_guest_role(app, topology, report)
    preparation.ensure_admin(app, topology.admin_username, password, report)
    ids = preparation.register_databases(app, topology, env, report)
    # What web, workers and beat wait for.
    preparation.record(prepared_step(), "")
    return ids


def declare_queues(topology: Topology, env: Mapping[str, str], report: Report = say) -> Mapping[str, int]:
    """Tell the queues of the topology from those that were there before, and empty those into the default one.

    What is sent to them later, by processes that do not know it yet, beat's job moves within a minute.
    """
    broker = queues.of(topology, env)
    broker.declare(topology.celery.queues)
    moved = broker.empty_retired(topology.celery.default_queue)
    for queue, count in moved.items():
        report(f"queue {queue!r} is gone: its {count} waiting queries are in queue {topology.celery.default_queue!r} now")
    return moved


def main() -> int:
    """Make the metadata database ready; the exit code of the job."""
    parser = argparse.ArgumentParser(prog="python -m runtime.start.init", description=main.__doc__)
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for PostgreSQL and Redis")
    wait: float = parser.parse_args().wait
    started = time.monotonic()
    try:
        topology = load_topology(os.environ)
        render(topology, os.environ)
        wait_for_services(topology, os.environ, wait)
        look_at_existing(topology, os.environ)
        with exclusive(topology, os.environ), preparation.superset_app() as app:
            say(f"Superset started in {time.monotonic() - started:.1f} s")
            prepare(app, topology, os.environ)
    except (ConfigurationError, InitError) as error:
        print(f"superset-async init: {error}", file=sys.stderr, flush=True)
        return 1
    say(f"ready after {time.monotonic() - started:.1f} s on {socket.gethostname()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
