"""What this project adds to Superset's Flask application, once its own views are there."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from runtime import logins
from runtime.commands import ROLE_ENV


def extend(app: Any) -> None:
    """Superset's FLASK_APP_MUTATOR, called in every process that makes the application."""
    logins.limit(app)
    # Not above: these read the configuration, of which this function is a part.
    import_module("runtime.caching.charts").install()
    if os.environ.get(ROLE_ENV) == "web":
        import_module("runtime.resilience.submission").install(app)
        import_module("runtime.usage_api").install(app)
