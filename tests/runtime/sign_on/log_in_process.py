"""Run in Superset's environment: logs in to the real Superset of each environment, and prints what each user then is.

Usage: python -m tests.runtime.sign_on.log_in_process FILE, where FILE holds {name: environment of a web process}; TRIED of each
is JSON: [[user, password], ...]. As in probe_process, each environment is a fork.
"""

from __future__ import annotations

import json
import os
from typing import Any

from tests.runtime.config import probe_process


def logged_in() -> list[dict[str, Any]]:
    """Of each that is tried: whether the form and the API let it in, and as whom."""
    from superset.app import create_app

    app: Any = create_app()
    # The form's token is the browser's part; whether the password is right is the directory's.
    app.config["WTF_CSRF_ENABLED"] = False
    return [_tried(app, *each) for each in json.loads(os.environ["TRIED"])]


def _tried(app: Any, user: str, password: str) -> dict[str, Any]:
    body = {"username": user, "password": password, "provider": "ldap"}
    answered = app.test_client().post("/api/v1/security/login", json=body)
    browser = app.test_client()
    browser.post("/login/", data={"username": user, "password": password})
    me = browser.get("/api/v1/me/")
    if me.status_code != 200:
        return {"api": answered.status_code, "form": me.status_code}
    roles = browser.get("/api/v1/me/roles/").get_json()["result"]["roles"]
    known = me.get_json()["result"]
    return {
        "api": answered.status_code,
        "form": 200,
        "user": [known[name] for name in ("username", "first_name", "last_name", "email")],
        "roles": sorted(roles),
    }


if __name__ == "__main__":
    probe_process.main(logged_in)
