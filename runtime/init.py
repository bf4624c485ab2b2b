"""`python -m runtime.init`: everything that must be in the metadata database before web and workers start.

One process and one start-up of Superset do the migrations, roles and permissions, the administrator and the declared
databases. A second run changes nothing that is as it should be; of several at once, one works and the others wait for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any, cast

from runtime import executions, existing_redis, queues
from runtime.config import ConfigurationError, load_topology, render
from runtime.config import redis as redis_config
from runtime.config import secrets as stack_secrets
from runtime.config.metadata import libpq
from runtime.config.objects import client
from runtime.model import AnalyticDatabase, Topology
from runtime.ready import STEPS_TABLE, prepared_step
from runtime.resilience import copies, reaper
from runtime.statements import engine_params

ADMIN_PASSWORD_ENV = "ADMIN_PASSWORD"  # noqa: S105
#: Seconds to wait for PostgreSQL and Redis, which may start at the same time as this.
WAIT_SECONDS = 120
#: Key of the advisory lock that one init holds.
LOCK = 0x5355_5053

Report = Callable[[str], None]


class InitError(RuntimeError):
    """Why the metadata database could not be made ready, for the person who reads the job's log."""


def say(line: str) -> None:
    """Print a line of progress at once."""
    print(line, flush=True)


def wait_for_services(topology: Topology, env: Mapping[str, str], seconds: float = WAIT_SECONDS) -> None:
    """Return as soon as PostgreSQL and every Redis answer with our credentials; InitError after `seconds`."""
    known = stack_secrets.read(topology, env)
    psycopg2 = import_module("psycopg2")

    def postgres_answers() -> None:
        psycopg2.connect(libpq(topology, known.postgres_password), connect_timeout=3).close()

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
    while True:
        try:
            check()
        except Exception as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            if time.monotonic() >= deadline:
                raise InitError(
                    f"{what} did not answer within {seconds:.0f} s: {reason}. Start it, or correct its host, port and "
                    "password, and run this again"
                ) from error
            time.sleep(0.3)
        else:
            return


def look_at_existing(topology: Topology, env: Mapping[str, str], report: Report = say) -> None:
    """Refuse Redis servers, run by someone else, that would lose tasks or do not let their user work; warn where they may."""
    try:
        found = existing_redis.check(topology, stack_secrets.read(topology, env))
    except import_module("redis.exceptions").RedisError as error:
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
    """Hold PostgreSQL's advisory lock: a second init waits here until the first one is done."""
    psycopg2 = import_module("psycopg2")
    password = stack_secrets.read(topology, env).postgres_password
    connection = psycopg2.connect(libpq(topology, password), application_name="superset-init")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))
            if not cursor.fetchone()[0]:
                say("another init is at work: waiting for it to end")
                cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield
    finally:
        connection.close()


@contextmanager
def superset_app() -> Generator[Any]:
    """Superset's Flask application, started once, with its context pushed."""
    app = import_module("superset.app").create_app()
    # Alembic tells every index that it makes; a failure comes as an exception that names its migration.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with app.app_context():
        yield app


def migrate(app: Any, report: Report = say) -> bool:
    """Bring the metadata schema to this Superset's version; False where it was there already."""
    config = import_module("alembic.config").Config()
    config.set_main_option("script_location", "superset:migrations")
    scripts = import_module("alembic.script").ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    session = _db().session
    context = import_module("alembic.runtime.migration").MigrationContext.configure(session.connection())
    current = context.get_current_revision()
    # Alembic has a connection of its own, and waits for whatever this one has locked.
    session.rollback()
    if current == head:
        return False
    if current not in {None, *(revision.revision for revision in scripts.walk_revisions())}:
        raise InitError(
            f"the metadata database is at revision {current}, which this Superset (at {head}) does not know: a newer one made "
            "it. Run that version's image, or restore a backup from before it"
        )
    report(f"migrating the metadata database from {current or 'nothing'} to {head}")
    import_module("flask_migrate").upgrade(directory=f"{import_module('superset.extensions').APP_DIR}/migrations")
    # What Superset does at its start, but only on a schema that is up to date.
    app.sync_config_to_db()
    return True


def sync_roles(app: Any, report: Report = say) -> bool:
    """Superset's permissions and built-in roles; False where this Superset with these features has done it before."""
    security_manager = _security_manager()
    digest = _digest(
        {
            "versions": {name: metadata.version(name) for name in ("apache-superset", "flask-appbuilder")},
            "features": import_module("superset.extensions").feature_flag_manager.get_feature_flags(),
            "public": app.config["PUBLIC_ROLE_LIKE"],
            "security_manager": f"{type(security_manager).__module__}.{type(security_manager).__qualname__}",
        }
    )
    if _done("roles") == digest and all(security_manager.find_role(role) for role in ("Admin", "Alpha", "Gamma", "sql_lab")):
        return False
    report("writing permissions and roles")
    session = _db().session()
    # Some thousand small commits: only the last one needs to wait for the disk, which then has all before it too, and none
    # needs to read again what it has just written.
    session.execute("SET synchronous_commit TO off")
    session.expire_on_commit = False
    app.appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    session.execute("SET synchronous_commit TO DEFAULT")
    session.commit()
    session.expire_on_commit = True
    session.expire_all()
    _record("roles", digest)
    return True


def ensure_admin(app: Any, username: str, password: str, report: Report = say) -> bool:
    """Make the administrator if there is none of that name; the password of one that exists is never touched."""
    del app
    security_manager = _security_manager()
    if security_manager.find_user(username=username):
        return False
    report(f"creating administrator {username!r}")
    role = security_manager.find_role("Admin")
    if not security_manager.add_user(username, "Admin", "User", f"{username}@localhost", role, password=password):
        raise InitError(f"administrator {username!r} could not be created; Superset's log above says why")
    return True


def register_databases(app: Any, topology: Topology, env: Mapping[str, str], report: Report = say) -> dict[str, int]:
    """Register or update every declared analytic database; the id of each by name.

    One that cannot be reached yet is a warning, since it may start later than Superset.
    """
    del app
    session = _db().session
    model = import_module("superset.models.core").Database
    ids: dict[str, int] = {}
    for declared in topology.databases:
        wanted = {**_columns(declared), **_uri_columns(model, _uri_of(declared, env))}
        database = session.query(model).filter_by(database_name=declared.name).one_or_none()
        if database is None:
            report(f"registering database {declared.name!r}")
            database = model(database_name=declared.name, **wanted)
            session.add(database)
        elif changed := {key: value for key, value in wanted.items() if getattr(database, key) != value}:
            report(f"updating database {declared.name!r}: {', '.join(sorted(changed))}")
            for key, value in changed.items():
                setattr(database, key, value)
        session.commit()
        ids[declared.name] = cast(int, database.id)
        _sync_schemas(database, topology.admin_username, report)
    return ids


def _sync_schemas(database: Any, username: str, report: Report) -> None:
    """Permissions on the database's catalog and schemas, once it can be reached; until then only on all of it at once."""
    step, digest = f"schemas of {database.database_name}", _digest(database.sqlalchemy_uri)
    if _done(step) == digest:
        return
    command = import_module("superset.commands.database.sync_permissions").SyncPermissionsCommand
    try:
        command(database.id, username, db_connection=database).run()
        _db().session.commit()
    except Exception as error:
        _db().session.rollback()
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        report(f"warning: database {database.database_name!r} is registered, but could not be read yet: {reason}")
    else:
        _record(step, digest)


def _columns(declared: AnalyticDatabase) -> dict[str, object]:
    return {
        "allow_run_async": True,
        "allow_dml": declared.allow_dml,
        "allow_ctas": False,
        "allow_cvas": False,
        "expose_in_sqllab": True,
        # None: the stack's lifetimes of chart data and of query results hold, which are two.
        "cache_timeout": None,
        "extra": json.dumps(
            {
                "engine_params": engine_params(declared.statement_timeout_seconds, read_only=not declared.allow_dml),
                "metadata_params": {},
                "metadata_cache_timeout": {},
                "schemas_allowed_for_file_upload": [],
            },
            sort_keys=True,
        ),
    }


def _uri_columns(model: Any, uri: str) -> dict[str, object]:
    """The columns in which Superset keeps a URI: with the password masked, and the password by itself, encrypted."""
    scratch = model()
    scratch.set_sqlalchemy_uri(uri)
    make_url = import_module("sqlalchemy.engine").make_url
    given = make_url(uri).password
    if given is not None and make_url(str(make_url(uri))).password != given:
        raise InitError(
            "the password of a database's URI contains a '%' followed by two hexadecimal digits, which Superset 6.1 reads "
            "as another character. Give the role another password"
        )
    return {"sqlalchemy_uri": scratch.sqlalchemy_uri, "password": scratch.password}


def _uri_of(declared: AnalyticDatabase, env: Mapping[str, str]) -> str:
    uri = declared.uri or env.get(declared.uri_env or "")
    if not uri:
        raise InitError(f"database {declared.name!r}: {declared.uri_env} is not set. Store its URI as the stack's secret")
    return uri


def prepare(app: Any, topology: Topology, env: Mapping[str, str], report: Report = say) -> dict[str, int]:
    """Migrations, own tables, roles, administrator and declared databases, in a started Superset; the databases' ids by name."""
    password = env.get(ADMIN_PASSWORD_ENV)
    if not password:
        raise InitError(f"{ADMIN_PASSWORD_ENV} is not set: the administrator needs a password")
    migrate(app, report)
    for statements in (executions.SCHEMA, copies.SCHEMA, reaper.INDEX):
        _db().session.connection().exec_driver_sql(statements)
    _db().session.commit()
    declare_queues(topology, env, report)
    sync_roles(app, report)
    ensure_admin(app, topology.admin_username, password, report)
    ids = register_databases(app, topology, env, report)
    # What web, workers and beat wait for.
    _record(prepared_step(), "")
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


def _db() -> Any:
    return import_module("superset.extensions").db


def _security_manager() -> Any:
    return import_module("superset.extensions").security_manager


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _done(step: str) -> str | None:
    connection = _db().session.connection()
    connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {STEPS_TABLE} (name text PRIMARY KEY, digest text NOT NULL)")
    row = connection.exec_driver_sql(f"SELECT digest FROM {STEPS_TABLE} WHERE name = %s", (step,)).fetchone()
    _db().session.commit()
    return cast("str | None", row[0] if row else None)


def _record(step: str, digest: str) -> None:
    _db().session.connection().exec_driver_sql(
        f"INSERT INTO {STEPS_TABLE} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET digest = excluded.digest",
        (step, digest),
    )
    _db().session.commit()


def main() -> int:
    """Make the metadata database ready; the exit code of the job."""
    parser = argparse.ArgumentParser(prog="python -m runtime.init", description=main.__doc__)
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for PostgreSQL and Redis")
    wait: float = parser.parse_args().wait
    started = time.monotonic()
    try:
        topology = load_topology(os.environ)
        render(topology, os.environ)
        wait_for_services(topology, os.environ, wait)
        look_at_existing(topology, os.environ)
        with exclusive(topology, os.environ), superset_app() as app:
            say(f"Superset started in {time.monotonic() - started:.1f} s")
            prepare(app, topology, os.environ)
    except (ConfigurationError, InitError) as error:
        print(f"superset-async init: {error}", file=sys.stderr, flush=True)
        return 1
    say(f"ready after {time.monotonic() - started:.1f} s on {socket.gethostname()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
