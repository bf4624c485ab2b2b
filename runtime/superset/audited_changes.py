"""Administrators' changes in the audit trail: users, roles, groups, databases, datasets and what may be seen of them.

They are taken from SQLAlchemy's session, and so recorded by whatever way they come: a page, the API, a sign-on that gives roles,
the init job, Superset's own commands. A record is written before the transaction commits: there is no change without one. Where
the commit then fails, another one says so (`change.undone`).

Leans on Superset's and Flask-AppBuilder's models and on SQLAlchemy's events after_flush, before_commit, after_commit and
after_rollback (read and tested with Superset 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known). Statements that go around the
session have none: Superset itself makes permissions so, where a database or dataset is made, which has a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flask import g, has_app_context, has_request_context, request

from runtime.environment import audit_trail, versions
from runtime.environment.audit_records import Value
from runtime.superset import principals

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy.orm import Session

#: Keys of a session's `info`: records that wait for the commit, and the ids of those that were written for it.
WAITING, WRITTEN = "superset_async_audit_waiting", "superset_async_audit_written"
#: What each log-in, and each change of any kind, writes beside.
BESIDE = frozenset(
    {
        "last_login",
        "login_count",
        "fail_login_count",
        "changed_on",
        "changed_by",
        "changed_by_fk",
        "created_on",
        "created_by",
    }
) | {"created_by_fk", "uuid"}


@dataclass(frozen=True)
class Kind:
    """A class whose changes are recorded: what it is called, what names one, which fields' values are told, and which lists'."""

    name: str
    named: str
    values: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    #: Whether changes of any other field are recorded too, by the field's name.
    others: bool = True


def _kinds() -> dict[type, Kind]:
    from flask_appbuilder.security.sqla.models import Group, PermissionView, Role, User
    from superset.connectors.sqla.models import RowLevelSecurityFilter, SqlaTable
    from superset.databases.ssh_tunnel.models import SSHTunnel
    from superset.models.core import Database
    from superset.models.dashboard import Dashboard
    from superset.models.embedded_dashboard import EmbeddedDashboard

    exposed = {"database_name", "expose_in_sqllab", "allow_run_async", "allow_dml", "allow_ctas", "allow_cvas"}
    exposed |= {"allow_file_upload", "impersonate_user", "cache_timeout"}
    return {
        User: Kind("user", "username", frozenset({"username", "active", "email"}), frozenset({"roles", "groups"})),
        Role: Kind("role", "name", frozenset({"name"}), frozenset({"permissions", "user", "groups"})),
        Group: Kind("group", "name", frozenset({"name"}), frozenset({"users", "roles"})),
        PermissionView: Kind("permission", "", frozenset(), frozenset({"role"})),
        Database: Kind("database", "database_name", frozenset(exposed)),
        SSHTunnel: Kind("ssh_tunnel", "server_address"),
        SqlaTable: Kind(
            "dataset",
            "table_name",
            frozenset({"table_name", "schema", "catalog", "perm", "schema_perm", "catalog_perm", "database_id"}),
            frozenset({"owners"}),
        ),
        RowLevelSecurityFilter: Kind(
            "row_level_security", "name", frozenset({"name", "filter_type", "group_key"}), frozenset({"roles", "tables"})
        ),
        Dashboard: Kind(
            "dashboard", "dashboard_title", frozenset({"published"}), frozenset({"roles", "owners"}), others=False
        ),
        EmbeddedDashboard: Kind("embedded_dashboard", "dashboard_id", frozenset({"allow_domain_list"})),
    }


class Listener:
    """Collects what a session changes, and writes it before the commit."""

    def __init__(self, kinds: Mapping[type, Kind]) -> None:
        self._kinds = kinds

    def after_flush(self, session: Session, _context: object) -> None:
        """SQLAlchemy's event: what is written to the database now."""
        waiting = cast("list[dict[str, Value]]", session.info.setdefault(WAITING, []))
        for action, rows in (("create", session.new), ("update", session.dirty), ("delete", session.deleted)):
            for row in list(rows):
                kind = next((self._kinds[each] for each in type(row).__mro__ if each in self._kinds), None)
                if kind is None or (action == "create" and not kind.others):
                    continue
                changed = dict(_changed(row, kind)) if action != "delete" else {}
                if changed or action != "update":
                    name = str(getattr(row, kind.named, "") if kind.named else row)
                    about: dict[str, Value] = {"kind": kind.name, "object_id": str(getattr(row, "id", "")), "name": name}
                    waiting.append({"action": f"change.{action}", **about, **changed})

    def before_commit(self, session: Session) -> None:
        """SQLAlchemy's event: what a nested transaction has changed waits for the outer one."""
        if session.in_nested_transaction():
            return
        session.flush()
        waiting = cast("list[dict[str, Value]]", session.info.pop(WAITING, []))
        for record in waiting:
            action = str(record.pop("action"))
            audit_trail.write(action, "ok", **_who(), **record)
        if waiting:
            session.info[WRITTEN] = [f"{each['kind']} {each['object_id']}" for each in waiting]

    def after_commit(self, session: Session) -> None:
        """SQLAlchemy's event: what was written holds."""
        session.info.pop(WRITTEN, None)

    def after_rollback(self, session: Session) -> None:
        """SQLAlchemy's event: of what waited nothing has happened, nor of what was written."""
        session.info.pop(WAITING, None)
        if written := session.info.pop(WRITTEN, None):
            audit_trail.write("change.undone", "failed", **_who(), objects=cast("list[str]", written))


def _changed(row: object, kind: Kind) -> Iterator[tuple[str, Value]]:
    from sqlalchemy import inspect

    named: list[str] = []
    for attribute in cast(Any, inspect(row)).attrs:
        history, key = attribute.history, str(attribute.key)
        if not history.has_changes() or key in BESIDE:
            continue
        if key in kind.lists:
            for what, rows in (("added", history.added), ("removed", history.deleted)):
                if rows:
                    yield f"{key}.{what}", sorted(_name(each) for each in rows)
        elif key in kind.values:
            before, after = (next(iter(rows or ()), None) for rows in (history.deleted, history.added))
            if before != after:
                yield f"{key}.before", None if before is None else str(before)
                yield f"{key}.after", None if after is None else str(after)
        elif kind.others and key in attribute.state.mapper.column_attrs:
            named.append(key)
    if named:
        yield "fields", sorted(named)


def _name(row: Any) -> str:
    return str(getattr(row, "username", None) or getattr(row, "table_name", None) or row)


def _who() -> dict[str, Value]:
    """Of a request; a process of its own (the init job, a command) has no user."""
    if not has_request_context():
        return {"user": str(getattr(g.get("user"), "username", "") or "") if has_app_context() else ""}
    return {"user": principals.username(), "address": request.remote_addr}


def install(app: Flask) -> None:
    """Record in this process, where the stack has a trail; UntestedVersionError for a Superset of another version."""
    from sqlalchemy import event
    from superset.extensions import db

    versions.require(__name__, "apache-superset", "sqlalchemy")
    if not audit_trail.is_kept() or __name__ in app.extensions:
        return
    app.extensions[__name__] = listener = Listener(_kinds())
    for name in ("after_flush", "before_commit", "after_commit", "after_rollback"):
        event.listen(db.session, name, getattr(listener, name))
