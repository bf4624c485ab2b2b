"""Run in Superset's environment: starts the real Superset once for each kind of own settings, and prints what it then has.

Usage: python -m tests.runtime.config.own_process FILE, where FILE holds {name: environment of a web process}. As in
probe_process, each is a fork of one process that has done the heavy imports.
"""

from __future__ import annotations

import os
from typing import Any

from tests.runtime.config import probe_process


def started() -> dict[str, Any]:
    """What the application of this process's environment has of the team's own."""
    from superset.app import create_app

    from runtime.superset import status

    app: Any = create_app()
    config = app.config
    with app.app_context():
        from superset import is_feature_enabled
        from superset.extensions import security_manager
        from superset.jinja_context import get_template_processor
        from superset.models.core import Database

        database = Database(database_name="own", sqlalchemy_uri="postgresql://reader@127.0.0.1/none")
        manager: Any = security_manager
        rendered = None
        if config["JINJA_CONTEXT_ADDONS"]:
            with app.test_request_context():
                rendered = get_template_processor(database=database).process_template("SELECT '{{ fiscal_year(2026) }}'")
        mutator = config["DB_CONNECTION_MUTATOR"]
        _, params = mutator(database.url_object, {}, None, security_manager, None)
        client = app.test_client()
        return {
            "app_name": config["APP_NAME"],
            "smtp": config["SMTP_PASSWORD"],
            "own": config.get("ACME_REGION"),
            "guests": [config["GUEST_ROLE_NAME"], config["GUEST_TOKEN_JWT_SECRET"]],
            "token": config.get("ACME_BILLING_TOKEN"),
            "flags": [name for name in ("ENABLE_TEMPLATE_PROCESSING", "GLOBAL_ASYNC_QUERIES") if is_feature_enabled(name)],
            "manager": [kind.__name__ for kind in type(manager._get_current_object()).__mro__][:4],
            "mutated": database.mutate_sql_based_on_config("SELECT 1"),
            "connect_args": {
                name: str(getattr(value, "__name__", value)) for name, value in params.get("connect_args", {}).items()
            },
            "jinja": rendered,
            "transforms_urls": status.transforms_urls(),
            "page": client.get("/acme/health").get_data(as_text=True),
            "started": config.get("ACME_STARTED"),
            "auth_type": config["AUTH_TYPE"],
            "login": [(response := client.get("/login/")).status_code, response.headers.get("Location")],
            "provider": sorted(manager.oauth_remotes or ()),
            "usage_api": any(str(rule).startswith("/api/v1/superset_async") for rule in app.url_map.iter_rules()),
            "role": os.environ["SUPERSET_ASYNC_ROLE"],
        }


if __name__ == "__main__":
    probe_process.main(started)
