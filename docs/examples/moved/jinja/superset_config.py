"""Before: functions of a team's own in datasets and in SQL Lab."""

import datetime

FEATURE_FLAGS = {"ENABLE_TEMPLATE_PROCESSING": True}
CACHE_DEFAULT_TIMEOUT = 86400
SECRET_KEY = "not-a-secret"
WTF_CSRF_EXEMPT_LIST = ["acme.pages"]


def fiscal_year(year):
    return f"FY{year + 1}"


JINJA_CONTEXT_ADDONS = {"fiscal_year": fiscal_year, "today": datetime.date.today}
