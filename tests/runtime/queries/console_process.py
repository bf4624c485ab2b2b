"""Run in Superset's environment: a web process of the multi-tenant stack that does what it is told, a line of JSON at a time.

Messages go to the queue of Bob's tenant. `ledger` is a database that lets him write, `library` one with read-only sessions, and
`harbour` the same behind a port where nobody listens at first.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

from sqlalchemy.engine import make_url

from runtime.superset.statement_timeout import engine_params
from tests.runtime import answers

PASSWORD = "for-this-test"


class Console:
    """Superset's application, its API as Bob sees it, and its Celery tasks."""

    def __init__(self, harbour_port: int) -> None:
        from superset.app import create_app

        self.app: Any = create_app()
        with self.app.app_context():
            from superset import extensions

            sm: Any = extensions.security_manager
            if not sm.find_user(username="bob"):
                sm.add_user("bob", "bob", "bob", "bob@localhost", sm.find_role("Admin"), password=PASSWORD)
            self.user_id = sm.find_user(username="bob").id
            self.databases = self._databases(extensions.db.session, harbour_port)
        self.client: Any = self.app.test_client()
        login = {"username": "bob", "password": PASSWORD, "provider": "db", "refresh": False}
        token = self.client.post("/api/v1/security/login", json=login).json["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}
        self.members: dict[str, Any] = {}
        self.headers["X-CSRFToken"] = self.client.get("/api/v1/security/csrf_token/", headers=self.headers).json["result"]
        self.members["bob"] = (self.client, self.headers)

    def _databases(self, session: Any, harbour_port: int) -> dict[str, int]:
        from superset.models.core import Database

        analytics = session.query(Database).filter_by(database_name="analytics").one()
        url = make_url(analytics.sqlalchemy_uri_decrypted)
        for name, port in (("ledger", url.port), ("library", url.port), ("harbour", harbour_port)):
            writes = name == "ledger"
            database = Database(
                database_name=name,
                allow_dml=writes,
                allow_run_async=True,
                extra=json.dumps({"engine_params": engine_params(60, read_only=not writes)}),
            )
            database.set_sqlalchemy_uri(url.set(port=port).render_as_string(hide_password=False))
            session.add(database)
        session.commit()
        return {database.database_name: database.id for database in session.query(Database)}

    def row(self, sql: str, database: str, status: str = "pending") -> int:
        """Write a query's row, and send nothing; the query's id."""
        with self.app.app_context():
            from superset.extensions import db
            from superset.models.sql_lab import Query

            session = db.session
            query = Query(
                client_id=uuid.uuid4().hex[:11],
                database_id=self.databases[database],
                user_id=self.user_id,
                sql=sql,
                status=status,
                start_time=time.time() * 1000,
            )
            session.add(query)
            session.commit()
            return query.id

    def query(self, query_id: int) -> dict[str, Any]:
        """A query as the API shows it."""
        return self.client.get(f"/api/v1/query/{query_id}", headers=self.headers).json["result"]

    def stop(self, query_id: int) -> int:
        """Stop a query as a browser does; the status of the answer."""
        body = {"client_id": self.query(query_id)["client_id"]}
        return self.client.post("/api/v1/query/stop", json=body, headers=self.headers).status_code

    def member(self, name: str, permissions: tuple[list[str], ...] = ()) -> None:
        """Make a user who may use SQL Lab and every database, with `permissions` besides, and log in."""
        with self.app.app_context():
            from superset import extensions

            sm: Any = extensions.security_manager
            role = sm.add_role(f"role of {name}")
            for permission, view in (["all_database_access", "all_database_access"], *permissions):
                sm.add_permission_role(role, sm.add_permission_view_menu(permission, view))
            roles = [sm.find_role("Gamma"), sm.find_role("sql_lab"), role]
            sm.add_user(name, name, name, f"{name}@localhost", roles, password=PASSWORD)
        client = self.app.test_client()
        login = {"username": name, "password": PASSWORD, "provider": "db", "refresh": False}
        headers = {"Authorization": f"Bearer {client.post('/api/v1/security/login', json=login).json['access_token']}"}
        headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/", headers=headers).json["result"]
        self.members[name] = (client, headers)

    def stop_as(self, name: str, query_id: int) -> int:
        """Stop a query as somebody else; the status of the answer."""
        client, headers = self.members[name]
        return client.post(
            "/api/v1/query/stop", json={"client_id": self.query(query_id)["client_id"]}, headers=headers
        ).status_code

    def export(self, name: str, query_id: int, streaming: bool = False) -> dict[str, Any]:
        """A query's rows as CSV: status and text of the answer."""
        client, headers = self.members[name]
        client_id = self.query(query_id)["client_id"]
        if streaming:
            answer = client.post("/api/v1/sqllab/export_streaming/", data={"client_id": client_id}, headers=headers)
        else:
            answer = client.get(f"/api/v1/sqllab/export/{client_id}/", headers=headers)
        return {"status": answer.status_code, "text": answer.get_data(as_text=True)}

    def results(self, name: str, query_id: int) -> dict[str, Any]:
        """A query's rows as SQL Lab reads them by their key: the status of the answer, and its rows."""
        client, headers = self.members[name]
        asked = f"/api/v1/sqllab/results/?q=(key:'{self.query(query_id)['results_key']}')"
        answer = client.get(asked, headers=headers)
        return {"status": answer.status_code, "data": answer.json.get("data")}

    def lose(self, query_id: int) -> None:
        """Have a query's result not kept any more."""
        with self.app.app_context():
            from superset import results_backend

            results_backend.delete(self.query(query_id)["results_key"])

    def cookie(self) -> str:
        """The session of Bob's browser, as the login form begins one; its signature is that of every web process of the stack."""
        client = self.app.test_client()
        self.app.config["WTF_CSRF_ENABLED"] = False
        try:
            client.post("/login/", data={"username": "bob", "password": PASSWORD})
        finally:
            self.app.config["WTF_CSRF_ENABLED"] = True
        return client.get_cookie("session").value

    def dataset(self, sql: str, database: str = "library") -> int:
        """A virtual dataset of `sql` with the column `one`; its id."""
        with self.app.app_context():
            from superset import extensions
            from superset.connectors.sqla.models import SqlaTable, TableColumn

            name = f"dataset-{uuid.uuid4().hex[:8]}"
            dataset = SqlaTable(table_name=name, sql=sql, database_id=self.databases[database], schema="public")
            dataset.columns = [TableColumn(column_name="one", type="INTEGER")]
            extensions.db.session.add(dataset)
            extensions.db.session.commit()
            return int(dataset.id)

    def chart(self, sql: str, database: str = "library", **options: Any) -> dict[str, Any]:
        """Send the task of a chart of a virtual dataset with `sql`, with Celery's `options`; the job's metadata."""
        number = self.dataset(sql, database)
        with self.app.app_context():
            from superset import extensions

            manager = extensions.async_query_manager
            job = manager.init_job(f"channel-{number}-{uuid.uuid4().hex[:8]}", self.user_id)
            form = {
                "datasource": {"id": number, "type": "table"},
                "queries": [{"columns": ["one"], "metrics": [], "row_limit": 10}],
                "result_format": "json",
                "result_type": "full",
                "force": False,
            }
            task: Any = extensions.celery_app.tasks["load_chart_data_into_cache"]
            task.apply_async((job, form), **({"task_id": job["job_id"], "queue": "tenant-b"} | options))
        return job

    def send(self, query_id: int, sql: str, **options: Any) -> None:
        """Send the message of a query of SQL Lab, with Celery's `options`."""
        with self.app.app_context():
            from superset.extensions import celery_app

            task: Any = celery_app.tasks["sql_lab.get_sql_results"]
            kwargs = {"return_results": False, "store_results": True, "username": "bob", "start_time": time.time() * 1000}
            task.apply_async((query_id, sql), kwargs, **({"queue": "tenant-b"} | options))

    def restore(self) -> int:
        """Put every message that was delivered and not acknowledged back, as the broker's clients do after an hour."""
        with self.app.app_context():
            from superset.extensions import celery_app

            with celery_app.connection_for_write() as connection:
                channel: Any = connection.default_channel
                tags = [tag.decode() for tag in channel.client.hkeys("unacked")]
                for tag in tags:
                    channel.qos.restore_by_tag(tag)
        return len(tags)

    def events(self, channel: str) -> list[dict[str, Any]]:
        """The events of a channel."""
        with self.app.app_context():
            from superset.extensions import async_query_manager

            return [event for event in async_query_manager.read_events(channel, None) if event is not None]


def main() -> None:
    """Answer each line of `{"do": name, …}` with one of JSON."""
    out = answers.alone()
    console = Console(int(sys.argv[1]))
    print(json.dumps("ready"), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(console, asked.pop("do"))(**asked), default=repr), file=out, flush=True)


if __name__ == "__main__":
    main()
