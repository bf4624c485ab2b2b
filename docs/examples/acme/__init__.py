"""An own module, as superset.config_module names it: what is no plain data. `stacks/Pulumi.own.yaml` of the docs uses it.

Superset's processes load it last. A name in upper case becomes a setting; what the platform decides is refused by name.
"""

from __future__ import annotations

import os

from acme.pages import pages
from acme.security import AcmeSecurityManager
from acme.sql import connect_as, fiscal_year, mark_query, tracked

CUSTOM_SECURITY_MANAGER = AcmeSecurityManager
SQL_QUERY_MUTATOR = mark_query
DB_CONNECTION_MUTATOR = connect_as
TRACKING_URL_TRANSFORMER = tracked
JINJA_CONTEXT_ADDONS = {"fiscal_year": fiscal_year}
BLUEPRINTS = [pages]
# A secret is a variable of superset.env, and never in this file.
ACME_BILLING_TOKEN = os.environ["ACME_BILLING_TOKEN"]


def FLASK_APP_MUTATOR(app):
    """Called with the application, after the platform's own."""
    app.config["ACME_STARTED"] = True
