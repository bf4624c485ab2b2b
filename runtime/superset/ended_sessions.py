"""A log-out ends the session on the server: a copy of its cookie is worth nothing afterwards.

As shipped (Superset 6.1) the session is its cookie alone: who has copied it is logged in until PERMANENT_SESSION_LIFETIME ends,
whatever its user does. Here each log-in has a name in the cookie, and a log-out has that name ended: in this process at once, in
the others with their next request a second later. A cookie without a name is of before, or of another platform with the same
secret key: its user logs in again.

Listens to Flask-Login's signals, and asks before each request that has a session (read and tested with Superset 6.1.0; no
upstream issue known).
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from runtime.environment import versions
from runtime.environment.ended_names import EndedNames
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from flask import Flask

#: What a session's cookie calls the log-in, and the user whom Flask-Login found in it.
LOGIN = "_login"
USER = "_user_id"
#: Between two questions of a process whether another has logged somebody out.
ASK_SECONDS = 1.0


def install(app: Flask) -> None:
    """Name and end log-ins in this process, where it is a web process."""
    from flask_login import user_logged_in, user_logged_out

    versions.require(__name__)
    if os.environ.get(ROLE_ENV) != "web":
        return
    ended = EndedNames("logins", app.permanent_session_lifetime.total_seconds(), ASK_SECONDS)
    os.register_at_fork(after_in_child=ended.forget)
    # Kept by the application: a signal holds its receivers only weakly.
    app.extensions[__name__] = listeners = _Listeners(ended)
    user_logged_in.connect(listeners.logged_in, app)
    user_logged_out.connect(listeners.logged_out, app)
    # Before Flask-AppBuilder asks who the user is.
    app.before_request_funcs.setdefault(None, []).insert(0, listeners.before_request)


class _Listeners:
    def __init__(self, ended: EndedNames) -> None:
        self._ended = ended

    def logged_in(self, _app: object, **_: Any) -> None:
        from flask import session

        session[LOGIN] = secrets.token_urlsafe(16)

    def logged_out(self, _app: object, **_: Any) -> None:
        from flask import session

        if name := session.pop(LOGIN, None):
            self._ended.end(name)

    def before_request(self) -> None:
        from flask import session

        if USER in session and (LOGIN not in session or self._ended.has(session[LOGIN])):
            session.clear()
