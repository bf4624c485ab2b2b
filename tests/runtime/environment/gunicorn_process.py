"""A web application without Superset, for gunicorn: it says who asked, and about which query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.environment import json_logs


def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    """Answer anything."""
    environ[json_logs.USER], environ[json_logs.QUERY] = "ann", "7"
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


#: gunicorn's configuration, of this module as its file.
logconfig_dict = json_logs.gunicorn_config()
access_log_format = "%(m)s %(U)s %(s)s"
