"""The rate of log-ins from one address, where it takes effect.

Superset 6.1 puts its limit (AUTH_RATE_LIMIT) on a view that only shows the page; the view that checks the password, and the
API's, have none.

Leans on the names of Flask-AppBuilder's blueprints and on the limiter of its security manager (read and tested with Superset
6.1.0 and Flask-AppBuilder 5.0.2; no upstream issue known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.environment import versions

if TYPE_CHECKING:
    from flask import Flask
    from flask_appbuilder import AppBuilder

#: Blueprints of Flask-AppBuilder whose POST checks a password: the form's and the API's.
BLUEPRINTS = ("AuthDBView", "AuthLDAPView", "SecurityApi")


def limit(app: Flask) -> None:
    """Superset's FLASK_APP_MUTATOR: called with the application once its security views are there."""
    versions.require(__name__)
    if not app.config["AUTH_RATE_LIMITED"]:
        return
    appbuilder: AppBuilder = app.extensions["appbuilder"]
    for name in BLUEPRINTS:
        if blueprint := app.blueprints.get(name):
            appbuilder.sm.limiter.limit(app.config["AUTH_RATE_LIMIT"], methods=["POST"])(blueprint)
