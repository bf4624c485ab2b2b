"""Run in Superset's environment as a web process: the names under which one chart's data is kept, for whoever asks for it.

Prints {"name": {who: keys}}, where keys are those of a chart, and of one of the older kind, with the tenant's prefix.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import g

from runtime.superset.application import create

JOINED = "SELECT f.one FROM first f JOIN second s ON f.one = s.one"


class Charts:
    """Two users of one role each, a role-less third, and a dataset that each of them asks for."""

    def __init__(self, app: Any) -> None:
        from superset.connectors.sqla.models import RowLevelSecurityFilter, SqlaTable, TableColumn
        from superset.extensions import db, security_manager
        from superset.models.core import Database
        from superset.utils.core import DatasourceType  # noqa: F401 - completes the models

        self.app, self.db, self.sm = app, db, security_manager
        self.roles = [security_manager.add_role(name) for name in ("north", "south")]
        names = ("nina", "sam", "oda")
        for name, role in zip(names, (*self.roles, security_manager.find_role("Gamma")), strict=True):
            security_manager.add_user(name, name, name, f"{name}@localhost", role, password="of-no-use")
        self.names = names
        database = db.session.query(Database).filter_by(database_name="analytics").one()
        tables = [
            SqlaTable(table_name=name, catalog="analytics", schema="public", database=database, sql=sql)
            for name, sql in (("first", None), ("second", None), ("both", JOINED))
        ]
        for table in tables:
            table.columns = [TableColumn(column_name="one", type="INTEGER")]
        db.session.add_all(tables)
        db.session.commit()
        self._models = SqlaTable, Database, RowLevelSecurityFilter

    # Each request ends the session, so that nothing of it is kept.
    def table(self, name: str = "both") -> Any:
        """A dataset."""
        return self.db.session.query(self._models[0]).filter_by(table_name=name).one()

    def database(self) -> Any:
        """The database of all datasets."""
        return self.db.session.query(self._models[1]).filter_by(database_name="analytics").one()

    def users(self) -> dict[str, Any]:
        """All users."""
        return {name: self.sm.find_user(username=name) for name in self.names}

    def guard(self, table: str, clause: str, to: str = "north") -> None:
        """A rule of row-level security on a table, for a role."""
        role = self.sm.find_role(to)
        rule = self._models[2](
            name=f"{table} {clause} {to}", filter_type="Regular", tables=[self.table(table)], roles=[role], clause=clause
        )
        self.db.session.add(rule)

    def guest(self, name: str, *rules: str) -> Any:
        """An embedded guest whose token has these clauses."""
        token: Any = {"user": {"username": name}, "resources": [], "rls_rules": [{"clause": clause} for clause in rules]}
        return self.sm.get_guest_user_from_token(token)

    def keys(self, who: Callable[[], Any], dataset: str = "both") -> list[str]:
        """Under which names the chart is kept for the user that `who` gives."""
        from superset.common.query_context_factory import QueryContextFactory
        from superset.extensions import cache_manager
        from superset.viz import BubbleViz

        with self.app.test_request_context():
            g.user = who()
            # Superset remembers a request's rules, and these requests share one context of the application.
            g.pop("_rls_filter_cache", None)
            table = self.table(dataset)
            asked = {"columns": ["one"], "metrics": [], "row_limit": 10}
            source: Any = {"id": table.id, "type": "table"}
            context = QueryContextFactory().create(datasource=source, queries=[dict(asked)], form_data={})
            query = context.queries[0]
            query.validate()
            kept: Any = cache_manager.data_cache.cache
            store = kept.store
            older = BubbleViz(table, {})
            return [store.key(str(context.query_cache_key(query))), store.key(older.cache_key(query.to_dict()))]


def rules_of_other_tables(charts: Charts) -> None:
    """Both roles have the same rules, but for the table that one of them is of."""
    charts.guard("first", "one > 0", "south")
    charts.guard("second", "one < 9", "south")
    charts.guard("first", "one = 5", "north")
    charts.guard("second", "one = 5", "south")


def main() -> None:
    """Change one ingredient after the other, and print what each user's names are."""
    app = create()
    found: dict[str, dict[str, list[str]]] = {}
    with app.app_context():
        from superset.extensions import feature_flag_manager

        feature_flag_manager._feature_flags["ENABLE_TEMPLATE_PROCESSING"] = True
        charts = Charts(app)

        def ask(name: str, people: dict[str, Callable[[], Any]] | None = None) -> None:
            everyone = {user: partial(lambda user: charts.users()[user], user) for user in charts.names}
            found[name] = {who: charts.keys(user) for who, user in (people or everyone).items()}

        def change(name: str, step: Callable[[], object]) -> None:
            step()
            charts.db.session.commit()
            ask(name)

        def guest(name: str, *rules: str) -> Callable[[], Any]:
            return lambda: charts.guest(name, *rules)

        ask("nothing")
        ask("guests", {"one": guest("nina"), "ruled": guest("nina", "one = 1"), "other": guest("sam")})
        change("impersonation", lambda: setattr(charts.database(), "impersonate_user", True))
        ask("impersonated guest", {"nina": lambda: charts.users()["nina"], "guest": guest("nina")})
        change("no impersonation", lambda: setattr(charts.database(), "impersonate_user", False))
        change("a rule", lambda: charts.guard("first", "one > 0"))
        change("two rules", lambda: charts.guard("second", "one < 9"))
        change("changed dataset", lambda: setattr(charts.table(), "description", "changed"))
        change("rules of other tables", lambda: rules_of_other_tables(charts))
        change(
            "jinja", lambda: setattr(charts.table(), "sql", "SELECT one FROM first WHERE '{{ current_username() }}' <> ''")
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
