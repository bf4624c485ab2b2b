"""Who comes with a bearer token is who it says, also on what everybody may see.

As shipped (Flask-AppBuilder 5.0) a view that the role Public may see is answered before anybody looks at the token: with one
permission of Public's an administrator's client is told there what a stranger is told. Here the token is looked at first, and a
wrong one is refused, as everywhere else.

Replaces `is_item_public` of Flask-AppBuilder's security manager, and leans on `verify_jwt_in_request` of Flask-JWT-Extended (read
and tested with Superset 6.1.0 and Flask-AppBuilder 5.0.2; no upstream issue known).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flask import g, has_request_context, request

from runtime.environment import hooks, versions
from topology.commands import ROLE_ENV


def install() -> None:
    """Have this web process look at tokens first; UntestedVersionError for another version."""
    from flask_appbuilder.security.manager import BaseSecurityManager

    if os.environ.get(ROLE_ENV) != "web":
        return
    versions.require(__name__, "apache-superset", "flask-appbuilder")
    hooks.replace(BaseSecurityManager, "is_item_public", __name__, _is_item_public)


def _is_item_public(shipped: Callable[..., bool]) -> Callable[..., bool]:
    def is_item_public(self: Any, permission_name: str, view_name: str) -> bool:
        public = shipped(self, permission_name, view_name)
        if public and _has_bearer_token() and not getattr(g.get("user"), "is_authenticated", False):
            from flask_jwt_extended import verify_jwt_in_request

            verify_jwt_in_request()
        return public

    return is_item_public


def _has_bearer_token() -> bool:
    return has_request_context() and request.headers.get("Authorization", "").startswith("Bearer ")
