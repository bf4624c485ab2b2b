"""The web application, made and warmed once in gunicorn's parent process (`--preload`) and shared by its workers.

A fresh Superset process imports and configures much of itself during its first requests, and concurrent first requests
meet that half done: synchronous SQL Lab calls were seen to fail. So it is done here, before a worker exists.
"""

from __future__ import annotations

from flask import Flask

from runtime.superset.application import create, warm


def application_factory() -> Flask:
    """Superset's application, warm."""
    app = create()
    warm(app)
    return app
