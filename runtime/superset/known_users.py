"""Who a user is and what their roles may, looked up once and kept for seconds.

As shipped (Superset 6.1, Flask-AppBuilder 5.0) each request reads the public role and all of its permissions twice, the user,
the user's roles and groups, and asks for each permission that it needs; after each commit, once more. Here the answers are kept
in the process, for `KEPT_SECONDS` at most, and forgotten sooner when a user, role, group or permission is changed:

- in the process that changes it, with the end of the transaction;
- in every other one with the next request, `ASK_SECONDS` after the last one that asked for the version in Redis;
- a change past Superset (in SQL), or while Redis is away, counts after `KEPT_SECONDS`.

What is kept of a user is a copy without the password's hash, which each request merges into its own session. Only the shipped
look-ups are kept: with a security manager whose own take their place nothing is.

Replaces `is_item_public` and `exist_permission_on_roles` of Flask-AppBuilder's security manager and `load_user`, and listens to
SQLAlchemy's events before_cursor_execute and after_transaction_end (read and tested with Superset 6.1.0, Flask-AppBuilder 5.0.2
and SQLAlchemy 1.4.54; no upstream issue known. A plain defect there: `protect` reads the public role twice for each request, and
`get_public_permissions` all of its rows to look for one).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from runtime.environment import hooks, versions
from runtime.environment.kept_answers import KeptAnswers
from runtime.environment.shared_version import SharedVersion
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)
versions.require(__name__, "apache-superset", "flask-appbuilder", "sqlalchemy")

#: An answer is kept for at most so long.
KEPT_SECONDS = 5.0
#: Between two questions of a process whether somebody else has changed something.
ASK_SECONDS = 1.0
#: Tables of Flask-AppBuilder, in which users, roles, groups and permissions are.
_CHANGE = re.compile(r"\s*(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+\"?ab_\w", re.IGNORECASE)
#: What a log-in writes changes nothing that is kept.
_LOGIN = re.compile(
    r"\s*UPDATE\s+ab_user\s+SET\s+((last_login|login_count|fail_login_count)=[^,]+(,\s*|\s+WHERE\b))+", re.IGNORECASE
)


#: This process's.
kept = KeptAnswers(SharedVersion("users", ASK_SECONDS), KEPT_SECONDS)
os.register_at_fork(after_in_child=kept.in_child)
#: Whether this thread's transaction has changed something.
_changes = threading.local()


def changes_users(statement: str) -> bool:
    """Whether a statement, as SQLAlchemy writes it, changes a user, role, group or permission."""
    return bool(_CHANGE.match(statement)) and not _LOGIN.match(statement)


def install(app: Flask) -> None:
    """Keep answers in this process, where it is a web process or a worker."""
    from sqlalchemy import event
    from superset.extensions import db

    if os.environ.get(ROLE_ENV) not in ("web", "worker", "beat"):
        return
    if not event.contains(db.engine, "before_cursor_execute", _executes):
        event.listen(db.engine, "before_cursor_execute", _executes)
        event.listen(db.session, "after_transaction_end", _ended)
    manager: Any = app.extensions["appbuilder"].sm
    if not is_shipped(type(manager)):
        logger.info("%s has look-ups of its own: what it answers is not kept", type(manager).__name__)
        return
    from flask_appbuilder.security.manager import BaseSecurityManager
    from flask_appbuilder.security.sqla.manager import SecurityManager

    hooks.replace(BaseSecurityManager, "is_item_public", __name__, _is_item_public)
    hooks.replace(BaseSecurityManager, "load_user", __name__, _load_user)
    hooks.replace(SecurityManager, "exist_permission_on_roles", __name__, _exist_permission_on_roles)
    # Made before, it has the shipped function.
    cast(Any, app).login_manager.user_loader(manager.load_user)


def is_shipped(manager: type) -> bool:
    """Whether a security manager's look-ups are those of Superset and Flask-AppBuilder."""
    names = (
        "is_item_public",
        "get_public_permissions",
        "get_public_role",
        "exist_permission_on_roles",
        "load_user",
        "get_user_by_id",
    )
    # The platform's own, of a sign-on, asks the shipped one first.
    ours = ("flask_appbuilder", "superset", "runtime")
    return not any(
        name in vars(kind) for kind in manager.__mro__ if kind.__module__.partition(".")[0] not in ours for name in names
    )


def _executes(_connection: object, _cursor: object, statement: str, *_: object) -> None:
    if changes_users(statement):
        _changes.made = True


def _ended(_session: Session, transaction: Any) -> None:
    """SQLAlchemy's event after_transaction_end: of a transaction that was committed others can read what it changed."""
    if transaction.parent is None and getattr(_changes, "made", False):
        _changes.made = False
        kept.changed()


def _is_item_public(shipped: Callable[..., Any]) -> Callable[..., bool]:
    del shipped

    def is_item_public(self: Any, permission_name: str, view_name: str) -> bool:
        return (permission_name, view_name) in kept.get("public", lambda: _public(self))

    return is_item_public


def _public(manager: Any) -> frozenset[tuple[str, str]]:
    return frozenset((each.permission.name, each.view_menu.name) for each in manager.get_public_permissions())


def _exist_permission_on_roles(shipped: Callable[..., Any]) -> Callable[..., bool]:
    def exist_permission_on_roles(self: Any, view_name: str, permission_name: str, role_ids: list[int]) -> bool:
        asked = ("roles", view_name, permission_name, frozenset(role_ids))
        return kept.get(asked, lambda: bool(shipped(self, view_name, permission_name, role_ids)))

    return exist_permission_on_roles


def _load_user(shipped: Callable[..., Any]) -> Callable[..., Any]:
    def load_user(self: Any, pk: int) -> Any:
        copy = kept.get(("user", int(pk)), lambda: detached(shipped(self, pk)))
        # Without a look-up: what the copy has is what the row of this session has.
        return None if copy is None else self.session.merge(copy, load=False)

    return load_user


def detached(user: Any) -> Any:
    """A copy of a user of no session, with roles and groups and without the password's hash; None for None."""
    from sqlalchemy.orm.attributes import set_committed_value

    if user is None:
        return None
    copied: dict[int, Any] = {}

    def roles(of: Any) -> list[Any]:
        for role in of.roles:
            if role.id not in copied:
                copied[role.id] = _columns(role)
        return [copied[role.id] for role in of.roles]

    copy = _columns(user, leave="password")
    set_committed_value(copy, "roles", roles(user))
    groups: list[Any] = []
    for group in user.groups:
        groups.append(_columns(group))
        set_committed_value(groups[-1], "roles", roles(group))
    set_committed_value(copy, "groups", groups)
    return copy


def _columns(row: Any, leave: str = "") -> Any:
    """A row of no session with the columns of `row`."""
    from sqlalchemy import inspect
    from sqlalchemy.orm import make_transient_to_detached
    from sqlalchemy.orm.attributes import set_committed_value

    mapper: Any = cast(Any, inspect(row)).mapper
    copy = mapper.class_manager.new_instance()
    for column in mapper.column_attrs:
        if column.key != leave:
            set_committed_value(copy, column.key, getattr(row, column.key))
    make_transient_to_detached(copy)
    return copy
