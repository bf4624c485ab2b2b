"""What Superset itself keeps in its metadata database: its schema, roles, administrator and registered databases.

Leans on Superset's migrations, its security manager, `superset.models.core.Database` and
`superset.commands.database.sync_permissions` (read and tested with 6.1.0).

(No upstream issue known.)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, cast

from runtime.environment import steps, versions
from runtime.environment.steps import InitError
from runtime.queries import migrations, session_guard
from runtime.superset import application, writable_roles
from runtime.superset.statement_timeout import engine_params
from topology.model import AnalyticDatabase, Topology

if TYPE_CHECKING:
    from flask import Flask
    from superset.app import SupersetApp
    from superset.models.core import Database

logger = logging.getLogger(__name__)

Report = Callable[[str], None]
#: Names of the steps with the administrator's name, and with those of the databases that the stack has declared.
ADMINISTRATOR, DATABASES = "administrator", "databases"
#: What a line begins with that is for the person who starts the stack.
WARNING = "warning: "


@contextmanager
def superset_app() -> Generator[Flask]:
    """Superset's Flask application, started once, with its context pushed."""
    versions.require(__name__)
    app = application.create()
    # Alembic tells every index that it makes; a failure comes as an exception that names its migration.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with app.app_context():
        yield app


def migrate(app: Flask, report: Report) -> bool:
    """Bring the metadata schema to this Superset's version; False where it was there already."""
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from flask_migrate import upgrade
    from superset.extensions import APP_DIR, db

    config = Config()
    config.set_main_option("script_location", "superset:migrations")
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    session = db.session
    context = MigrationContext.configure(session.connection())
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
    upgrade(directory=f"{APP_DIR}/migrations")
    # What Superset does at its start, but only on a schema that is up to date.
    cast("SupersetApp", app).sync_config_to_db()
    return True


def sync_roles(app: Flask, report: Report) -> bool:
    """Superset's permissions and built-in roles; False where this Superset with these features has done it before."""
    from superset.extensions import appbuilder, db, feature_flag_manager, security_manager

    digest = _digest(
        {
            "versions": {name: metadata.version(name) for name in ("apache-superset", "flask-appbuilder")},
            "features": feature_flag_manager.get_feature_flags(),
            "public": app.config["PUBLIC_ROLE_LIKE"],
            "security_manager": f"{security_manager.__class__.__module__}.{security_manager.__class__.__qualname__}",
        }
    )
    if _done("roles") == digest and all(security_manager.find_role(role) for role in ("Admin", "Alpha", "Gamma", "sql_lab")):
        return False
    report("writing permissions and roles")
    session = db.session()
    # Some thousand small commits: only the last one needs to wait for the disk, which then has all before it too, and none
    # needs to read again what it has just written.
    session.execute("SET synchronous_commit TO off")
    session.expire_on_commit = False
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    session.execute("SET synchronous_commit TO DEFAULT")
    session.commit()
    session.expire_on_commit = True
    session.expire_all()
    record("roles", digest)
    return True


def look_for_roles(app: Flask, topology: Topology, report: Report) -> None:
    """Warn of a role that the sign-on gives and nobody has made."""
    del app
    from superset.extensions import security_manager

    sign_on = topology.superset.sign_on
    given = {role for roles in sign_on.roles.values() for role in roles} if sign_on else set[str]()
    if sign_on and sign_on.registration_role:
        given.add(sign_on.registration_role)
    for role in sorted(given):
        if not security_manager.find_role(role):
            report(f"warning: role {role!r} of superset.sign_on does not exist: make it, or its users get nothing by it")


#: What the embedded dashboard asks for beside what Superset gives who only looks at dashboards: how its charts ended, and
#: who its guest is.
_GUESTS_MORE = frozenset({("can_list", "AsyncEventsRestApi")})


def ensure_guest_role(app: Flask, topology: Topology, report: Report) -> bool:
    """Give the guests' role what it needs to look at the dashboards of its tokens; False where that was done before.

    What an administrator adds to the role stays, and what is taken from it, until another version needs something else. It has
    no data of its own: a guest sees what the dashboards that his token names show.
    """
    del app
    from superset.extensions import db, security_manager

    embedding = topology.superset.embedding
    if embedding is None:
        return False
    wanted = sorted({*security_manager.PUBLIC_ROLE_PERMISSIONS, *_GUESTS_MORE})
    digest = _digest([embedding.role, wanted])
    if _done("guests") == digest and security_manager.find_role(embedding.role):
        return False
    report(f"giving role {embedding.role!r} what guests need")
    role = security_manager.add_role(embedding.role)
    for permission, view in wanted:
        # None for a view that this Superset has with other features only.
        if (found := security_manager.find_permission_view_menu(permission, view)) is not None:
            security_manager.add_permission_role(role, found)
    db.session.commit()
    record("guests", digest)
    return True


def ensure_admin(app: Flask, username: str, password: str, report: Report) -> bool:
    """Make the administrator if there is none of that name; the password of one that exists is never touched.

    The administrator that an earlier run made is renamed with `admin_username`: otherwise there would be two, one of them with a
    password that nobody looks after. Where somebody else has the new name, the earlier one can no longer log in.
    """
    del app
    from superset.extensions import db, security_manager

    made = _done(ADMINISTRATOR)
    if made == username:
        return False
    exists = security_manager.find_user(username=username) is not None
    earlier = security_manager.find_user(username=made) if made else None
    if earlier and not exists:
        report(f"administrator {made!r} is called {username!r} now, with the same password")
        earlier.username, earlier.email = username, f"{username}@localhost"
        db.session.commit()
    elif earlier:
        report(f"{WARNING}administrator {made!r} can log in no more: the stack names {username!r}, who exists")
        earlier.active = False
        db.session.commit()
    elif not exists:
        report(f"creating administrator {username!r}")
        role = security_manager.find_role("Admin")
        if not security_manager.add_user(username, "Admin", "User", f"{username}@localhost", role, password=password):
            raise InitError(f"administrator {username!r} could not be created; Superset's log above says why")
    record(ADMINISTRATOR, username)
    return not exists


def register_databases(app: Flask, topology: Topology, env: Mapping[str, str], report: Report) -> dict[str, int]:
    """Register or update every declared analytic database; the id of each by name.

    One that cannot be reached yet is a warning, since it may start later than Superset.
    """
    del app
    from superset.extensions import db
    from superset.models.core import Database

    session = db.session
    ids: dict[str, int] = {}
    for declared in topology.databases:
        wanted = {**_columns(declared), **_uri_columns(Database, _uri_of(declared, env))}
        database = session.query(Database).filter_by(database_name=declared.name).one_or_none()
        if database is None:
            report(f"registering database {declared.name!r}")
            database = Database(database_name=declared.name, **wanted)
            session.add(database)
        elif changed := {key: value for key, value in wanted.items() if getattr(database, key) != value}:
            report(f"updating database {declared.name!r}: {', '.join(sorted(changed))}")
            for key, value in changed.items():
                setattr(database, key, value)
        session.commit()
        ids[declared.name] = cast(int, database.id)
        _sync_schemas(database, topology.admin_username, report)
        # That of the sample has made it: nobody is to make another for data that are generated.
        if not declared.sample:
            _look_for_writable_role(database, report)
        engine = database.db_engine_spec.engine
        if engine not in session_guard.ENGINES:
            report(
                f"{WARNING}database {declared.name!r}: the platform sets no limit in sessions of {engine!r} and does not keep "
                "them from writing. Give its role a limit and only the rights that queries need"
            )
    _retire_databases(ids, report)
    return ids


def _retire_databases(declared: Mapping[str, int], report: Report) -> None:
    """Take away what an earlier run registered and the stack no longer declares: nobody may go on querying it unseen.

    One without datasets is deleted; from one with datasets SQL Lab and asynchronous queries are taken, and their owners' charts
    stay until a person decides.
    """
    from superset.connectors.sqla.models import SqlaTable
    from superset.extensions import db
    from superset.models.core import Database

    session = db.session
    before: set[str] = set(json.loads(_done(DATABASES) or "[]"))
    for name in sorted(before - declared.keys()):
        database = session.query(Database).filter_by(database_name=name).one_or_none()
        if database is None:
            continue
        datasets = session.query(SqlaTable).filter_by(database_id=database.id).count()
        database.expose_in_sqllab = False
        if datasets:
            report(
                f"{WARNING}database {name!r} is no longer in the stack: SQL Lab does not offer it, and {datasets} datasets of it "
                "stay. Delete them and the database in Superset, or declare it again"
            )
        else:
            report(f"database {name!r} is no longer in the stack, and no dataset is of it: deleted")
            session.delete(database)
        session.commit()
    kept = {name for name in before - declared.keys() if session.query(Database).filter_by(database_name=name).count()}
    record(DATABASES, json.dumps(sorted({*declared, *kept})))


def _sync_schemas(database: Database, username: str, report: Report) -> None:
    """Permissions on the database's catalog and schemas, once it can be reached; until then only on all of it at once."""
    from superset.commands.database.sync_permissions import SyncPermissionsCommand
    from superset.extensions import db

    step, digest = f"schemas of {database.database_name}", _digest(database.sqlalchemy_uri)
    if _done(step) == digest:
        return
    try:
        SyncPermissionsCommand(database.id, username, db_connection=database).run()
        db.session.commit()
    except Exception as error:
        db.session.rollback()
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        report(f"warning: database {database.database_name!r} is registered, but could not be read yet: {reason}")
    else:
        record(step, digest)


def _look_for_writable_role(database: Database, report: Report) -> None:
    """Warn of a role that could write where it shall not; one that cannot be asked was told before."""
    try:
        told = writable_roles.warning(database)
    except Exception:
        logger.debug("the role of database %r could not be asked", database.database_name, exc_info=True)
        return
    if told:
        report(f"{WARNING}{told}")


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
                "engine_params": engine_params(
                    declared.statement_timeout_seconds, read_only=not declared.allow_dml, keep=declared.keep_connections
                ),
                "metadata_params": {},
                "metadata_cache_timeout": {},
                "schemas_allowed_for_file_upload": [],
            },
            sort_keys=True,
        ),
    }


def _uri_columns(model: type[Database], uri: str) -> dict[str, object]:
    """The columns in which Superset keeps a URI: with the password masked, and the password by itself, encrypted."""
    from sqlalchemy.engine import make_url

    scratch = model()
    scratch.set_sqlalchemy_uri(uri)
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


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _done(step: str) -> str | None:
    from superset.extensions import db

    found = steps.done(db.session.connection(), step)
    db.session.commit()
    return found


def record(step: str, digest: str) -> None:
    """Write down that the init job has done `step`."""
    from superset.extensions import db

    steps.record(db.session.connection(), step, digest)
    db.session.commit()


def migrate_own_tables(report: Report) -> bool:
    """Bring this project's tables to this version; False where they were there already. InitError for those of a newer one."""
    from superset.extensions import db

    try:
        before = migrations.upgrade(db.session.connection())
    except migrations.UnknownRevisionError as error:
        raise InitError(str(error)) from None
    db.session.commit()
    if before == migrations.HEAD:
        return False
    report(f"migrated this project's tables from {before or 'nothing'} to {migrations.HEAD}")
    return True
