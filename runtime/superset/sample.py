"""The sample of the local platform: an `orders` table of 1.2 million rows, a dataset on it, and a small dashboard.

Rows are a pure function of their number, so every machine generates the same ones. Everything here runs inside Superset's
environment; its modules can be imported only within its application.

Leans on the models SqlaTable, SqlMetric, Database, Slice and Dashboard (read and tested with 6.1.0; no upstream issue
known).
"""

from __future__ import annotations

import json
from typing import Any

from runtime.environment import versions

ROWS = 1_200_000
TABLE = "orders"
DASHBOARD_SLUG = "orders"

#: Knuth's multiplicative hash spreads the row number, and each column takes other bits of it. Orders grow through the year
#: and come by day more than by night; some regions, categories and customers have far more of them than others.
_CREATE = (
    f"""
CREATE TABLE {TABLE} AS
SELECT n AS order_id,
       timestamp '2026-01-01'
           + make_interval(days => (334 * power(n::float8 / {ROWS}, 0.8))::int, hours => (h / 8 % 12 + h / 128 % 12)::int)
           + make_interval(secs => h % 3600) AS ordered_at,
       (string_to_array('online online online online north north west west south east', ' '))[1 + (h / 16) % 10] AS region,
       (string_to_array('books books books toys toys music games games garden kitchen office sport sport', ' '))
           [1 + (h / 64) % 13] AS category,
       1 + (power((h / 1024 % 10000)::float8 / 10000, 3) * 20000)::int AS customer_id,
       (1 + (h / 4096) % 4 * ((h / 32768) % 3))::int AS quantity,
       round((3 + power((h / 16384 % 1000)::float8 / 1000, 2) * 180)::numeric, 2) AS unit_price
FROM (SELECT n, (n * 2654435761) % 4294967296 AS h FROM generate_series(1::bigint, {ROWS}) AS n) AS numbers
""",
    f"ALTER TABLE {TABLE} ADD PRIMARY KEY (order_id)",
    f"CREATE INDEX orders_ordered_at ON {TABLE} (ordered_at)",
)

#: Name, kind, what the page shows of it, and the query that it makes of that.
_CHARTS: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    (
        "Revenue",
        "big_number_total",
        {"metric": "revenue", "y_axis_format": "SMART_NUMBER"},
        {"columns": [], "metrics": ["revenue"]},
    ),
    (
        "Revenue by week",
        "echarts_timeseries_bar",
        {
            "x_axis": "ordered_at",
            "time_grain_sqla": "P1W",
            "metrics": ["revenue"],
            "groupby": ["region"],
            "row_limit": 10000,
            "stack": "Stack",
            "show_legend": True,
        },
        {
            "columns": [
                {
                    "columnType": "BASE_AXIS",
                    "expressionType": "SQL",
                    "label": "ordered_at",
                    "sqlExpression": "ordered_at",
                    "timeGrain": "P1W",
                },
                "region",
            ],
            "metrics": ["revenue"],
            "orderby": [["revenue", False]],
            "row_limit": 10000,
        },
    ),
    (
        "Revenue by category",
        "pie",
        {"groupby": ["category"], "metric": "revenue", "row_limit": 100, "show_labels": True},
        {"columns": ["category"], "metrics": ["revenue"], "orderby": [["revenue", False]], "row_limit": 100},
    ),
    (
        "Regions",
        "table",
        {
            "query_mode": "aggregate",
            "groupby": ["region"],
            "metrics": ["revenue", "orders", "customers"],
            "row_limit": 100,
        },
        {
            "columns": ["region"],
            "metrics": ["revenue", "orders", "customers"],
            "orderby": [["revenue", False]],
            "row_limit": 100,
        },
    ),
)


def ensure_table(uri: str) -> bool:
    """Create the table with its rows and indexes unless it is there; returns whether it was created."""
    from sqlalchemy import create_engine, inspect, text  # pyright: ignore[reportUnknownVariableType]
    from sqlalchemy.pool import NullPool

    engine = create_engine(uri, poolclass=NullPool)
    if inspect(engine).has_table(TABLE):
        return False
    with engine.begin() as connection:
        for statement in _CREATE:
            connection.execute(text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM (ANALYZE) {TABLE}"))
    return True


def ensure_dashboard(database_name: str, owner_name: str) -> int:
    """Create the dataset, its charts and the dashboard unless they are there; returns the dataset's id.

    Runs inside an application context.
    """
    from superset.connectors.sqla.models import SqlaTable, SqlMetric
    from superset.extensions import db, security_manager
    from superset.models.core import Database
    from superset.models.dashboard import Dashboard
    from superset.models.slice import Slice

    versions.require(__name__)
    session = db.session
    database = session.query(Database).filter_by(database_name=database_name).one()
    owner = security_manager.find_user(owner_name)
    dataset = session.query(SqlaTable).filter_by(table_name=TABLE, database_id=database.id).one_or_none()
    if dataset is None:
        dataset = SqlaTable(
            table_name=TABLE, catalog=database.get_default_catalog(), schema="public", database=database, owners=[owner]
        )
        session.add(dataset)
        dataset.fetch_metadata()
        dataset.main_dttm_col = "ordered_at"
        dataset.metrics = [
            SqlMetric(metric_name="revenue", expression="sum(quantity * unit_price)", verbose_name="Revenue"),
            SqlMetric(metric_name="orders", expression="count(*)", verbose_name="Orders"),
            SqlMetric(metric_name="customers", expression="count(distinct customer_id)", verbose_name="Customers"),
        ]
        session.flush()
    if dataset.catalog is None:
        # Of a version that left it out: SQL Lab looks for access to a table of the default catalog.
        dataset.catalog = catalog = database.get_default_catalog()
        dataset.catalog_perm = security_manager.get_catalog_perm(database.database_name, catalog)
        dataset.schema_perm = security_manager.get_schema_perm(database.database_name, catalog, dataset.schema)
    for chart in session.query(Slice).filter_by(datasource_type="table", datasource_id=dataset.id, query_context=None):
        if found := _query_context(str(chart.slice_name), str(chart.viz_type), dataset.id):
            chart.query_context = found
    if session.query(Dashboard).filter_by(slug=DASHBOARD_SLUG).one_or_none() is None:
        charts = [
            Slice(
                slice_name=name,
                viz_type=viz_type,
                datasource_type="table",
                datasource_id=dataset.id,
                datasource_name=TABLE,
                owners=[owner],
                params=json.dumps(_form(viz_type, dataset.id, form)),
                query_context=_query_context(name, viz_type, dataset.id),
            )
            for name, viz_type, form, _ in _CHARTS
        ]
        session.add_all(charts)
        session.flush()
        layout = dashboard_layout("Orders", [(chart.id, str(chart.slice_name)) for chart in charts])
        session.add(
            Dashboard(
                dashboard_title="Orders",
                slug=DASHBOARD_SLUG,
                slices=charts,
                owners=[owner],
                published=True,
                position_json=json.dumps(layout),
            )
        )
    session.commit()
    return int(dataset.id)


def _form(viz_type: str, dataset_id: int, form: dict[str, Any]) -> dict[str, Any]:
    return {"viz_type": viz_type, "datasource": f"{dataset_id}__table", "adhoc_filters": []} | form


def _query_context(name: str, viz_type: str, dataset_id: int) -> str | None:
    """What Superset's page saves beside a chart, so that the chart can be computed without the page; None for another chart."""
    for each, kind, form, query in _CHARTS:
        if (each, kind) == (name, viz_type):
            context = {
                "datasource": {"id": dataset_id, "type": "table"},
                "force": False,
                "queries": [{"filters": [], "extras": {}, **query}],
                "form_data": _form(viz_type, dataset_id, form),
                "result_format": "json",
                "result_type": "full",
            }
            return json.dumps(context)
    return None


def dashboard_layout(title: str, charts: list[tuple[int, str]]) -> dict[str, Any]:
    """Superset's position JSON of a dashboard with two charts a row, each half as wide as the page."""
    pairs = [charts[start : start + 2] for start in range(0, len(charts), 2)]
    rows = [f"ROW-{number}" for number, _ in enumerate(pairs)]
    layout: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "HEADER_ID": {"type": "HEADER", "id": "HEADER_ID", "meta": {"text": title}},
        "GRID_ID": {"type": "GRID", "id": "GRID_ID", "children": rows, "parents": ["ROOT_ID"]},
    }
    for row, pair in zip(rows, pairs, strict=True):
        parents = ["ROOT_ID", "GRID_ID"]
        layout[row] = {
            "type": "ROW",
            "id": row,
            "children": [f"CHART-{chart_id}" for chart_id, _ in pair],
            "parents": parents,
            "meta": {"background": "BACKGROUND_TRANSPARENT"},
        }
        for chart_id, name in pair:
            layout[f"CHART-{chart_id}"] = {
                "type": "CHART",
                "id": f"CHART-{chart_id}",
                "children": [],
                "parents": [*parents, row],
                "meta": {"chartId": chart_id, "sliceName": name, "width": 6, "height": 50},
            }
    return layout
