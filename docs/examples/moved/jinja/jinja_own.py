"""What is no data: the functions. What a function says is of the moment: a chart's data is kept as long as the cache keeps it."""

import datetime


def fiscal_year(year):
    """{{ fiscal_year(2026) }}."""
    return f"FY{year + 1}"


JINJA_CONTEXT_ADDONS = {"fiscal_year": fiscal_year, "today": lambda: datetime.datetime.now(tz=datetime.UTC).date()}
