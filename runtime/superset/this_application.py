"""The one Flask application of this process.

A second one takes Flask-AppBuilder's and Celery's global objects from the first, whose log-in page then fails: importing
`superset.tasks.celery_app` in a web process makes one (Superset 6.1.0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

_made: list[Flask] = []


def remember(app: Flask) -> None:
    """`app` is this process's, where it is its first one."""
    if not _made:
        _made.append(app)


def get() -> Flask:
    """It; in a process that has not made one yet, that of Celery's tasks."""
    if not _made:
        from superset.tasks.celery_app import flask_app

        remember(flask_app)
    return _made[0]
