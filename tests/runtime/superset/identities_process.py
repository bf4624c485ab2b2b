"""Run in Superset's environment as a web process: the names under which charts' data is kept, in worlds that it is told.

Reads a line of JSON, {"impersonation", "rules", "changes", "dataset", "askers"}, and answers with the names of each asker, and
when the dataset was changed. A rule is [table, clause, role]; an asker is a user's name, or [name, clauses] of a guest.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from runtime.superset.application import create
from tests.runtime import answers
from tests.runtime.superset.identity_process import JOINED, Charts

#: What a dataset's SQL may be: of plain tables, with a template that asks for the user, and one that no parser reads.
DATASETS = {
    "both": JOINED,
    "asking": f"{JOINED} WHERE '{{{{ current_username() }}}}' <> ''",
    "unreadable": f"{JOINED} {{% if true %}} WHERE f.one > 0 {{% endif %}}",
}


NAMES = ("nina", "sam", "oda", "alice", "north-too")


class Worlds(Charts):
    """A world is made in one transaction, by the first of the processes that are told of it, and asked by all."""

    def __init__(self, app: Any) -> None:
        from superset.connectors.sqla.models import RowLevelSecurityFilter, SqlaTable
        from superset.extensions import db, security_manager
        from superset.models.core import Database

        self.first = security_manager.find_role("north") is None
        if not self.first:
            self.app, self.db, self.sm = app, db, security_manager
            self.names = NAMES
            self._models = SqlaTable, Database, RowLevelSecurityFilter
            return
        super().__init__(app)
        # Alice has a tenant of her own.
        for user in ("alice", "north-too"):
            role = self.roles[0] if user == "north-too" else self.sm.find_role("Gamma")
            self.sm.add_user(user, user, user, f"{user}@localhost", role, password="of-no-use")
        self.names = NAMES
        table = self._models[0]
        from superset.connectors.sqla.models import TableColumn

        analytics = self.database()
        for name, sql in DATASETS.items():
            if name != "both":
                made = table(table_name=name, catalog="analytics", schema="public", database=analytics, sql=sql)
                made.columns = [TableColumn(column_name="one", type="INTEGER")]
                self.db.session.add(made)
        self.db.session.commit()

    def made(self, impersonation: bool, rules: list[list[str]], changes: int) -> None:
        """Make the world."""
        for rule in self.db.session.query(self._models[2]):
            self.db.session.delete(rule)
        self.db.session.flush()
        for number, (table, clause, role) in enumerate(rules):
            rule = self._models[2](
                name=f"rule {number}",
                filter_type="Regular",
                tables=[self.table(table)],
                roles=[self.sm.find_role(role)],
                clause=clause,
            )
            self.db.session.add(rule)
        self.database().impersonate_user = impersonation
        for name in DATASETS:
            self.table(name).description = str(changes)
        self.db.session.commit()


def main() -> None:
    """Answer until the input ends."""
    out = answers.alone()
    app = create()
    with app.app_context():
        from superset.extensions import feature_flag_manager

        feature_flag_manager._feature_flags["ENABLE_TEMPLATE_PROCESSING"] = True
        worlds = Worlds(app)
        print(json.dumps("ready"), file=out, flush=True)
        for line in sys.stdin:
            told = json.loads(line)
            if worlds.first:
                worlds.made(told["impersonation"], told["rules"], told["changes"])
            # Nothing of an earlier world is in its session.
            worlds.db.session.remove()
            names = [
                worlds.keys(
                    (lambda a=asker: worlds.users()[a])
                    if isinstance(asker, str)
                    else (lambda a=asker: worlds.guest(a[0], *a[1])),
                    told["dataset"],
                )
                for asker in told["askers"]
            ]
            changed = str(worlds.table(told["dataset"]).changed_on)
            print(json.dumps({"names": names, "changed": changed}), file=out, flush=True)


if __name__ == "__main__":
    main()
