"""What this project adds to Superset's Flask application, once its own views are there."""

from __future__ import annotations

from typing import Any

from runtime import logins


def extend(app: Any) -> None:
    """Superset's FLASK_APP_MUTATOR, called in every process that makes the application."""
    logins.limit(app)
