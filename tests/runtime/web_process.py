"""Run in Superset's environment as a web process of the multi-tenant stack: submits queries over HTTP and says what happened.

Alice's tenant has no worker, so that her messages stay to be looked at; Bob's has one.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from typing import Any, cast

import jwt
from flask import g, request

from runtime.tenants.identity import current_tenant_id
from tests.waiting import until

PASSWORD = "for-this-test"
#: Carol is of a tenant's role; Dave is of no tenant.
NAMES = ("alice", "bob", "carol", "dave")
#: What an administrator may see, beside usage.
LIVE = ("queues", "workers", "queries", "doctor", "slow", "checklist?users=5")
#: What would let a session write, or run longer, in a database without DML.
LIFTING = (
    "SET default_transaction_read_only=off; COMMIT; SELECT 3 AS x INTO lifted",
    "COMMIT; BEGIN READ WRITE; SELECT 1 AS a INTO lifted; COMMIT; SELECT 1",
    "PREPARE d AS SELECT 1 AS a INTO lifted; EXECUTE d",
    "SET statement_timeout=0; SELECT slow(60)",
)


def main() -> None:
    """Print everything as one line of JSON."""
    from superset.app import create_app

    app: Any = create_app()
    with app.app_context():
        from superset import extensions

        sm: Any = extensions.security_manager
        celery = extensions.celery_app
        finance = [sm.find_role("Admin"), sm.add_role("Finance")]
        for name in NAMES:
            roles = finance if name == "carol" else [sm.find_role("Admin")]
            sm.add_user(name, name, name, f"{name}@localhost", roles, password=PASSWORD)
        sm.add_user(
            "analyst", "a", "a", "analyst@localhost", [sm.find_role("Alpha"), sm.find_role("sql_lab")], password=PASSWORD
        )
        users = {name: sm.find_user(username=name).id for name in NAMES}
        database_id, warehouse_id = (
            app.appbuilder.session.execute(f"SELECT id FROM dbs WHERE database_name = '{name}'").scalar()
            for name in ("analytics", "warehouse")
        )
        answer: dict[str, Any] = {
            "worker_conf": celery.control.inspect(timeout=10).conf(),
            "web_conf": {name: celery.conf[name] for name in app.config["CELERY_CONFIG"]},
            "undeclared_limit": _limit_of_an_undeclared_database(),
        }
        # A chart of Alice's, through Superset's own function.
        manager = extensions.async_query_manager
        manager.submit_chart_data_job("channel", {"datasource": "1__table"}, users["alice"])
        # As the end of a request does: until then nothing else of Alice's is counted.
        extensions.db.session.remove()
        answer["tenants"] = {name: _tenant_of(app, sm.get_user_by_id(users[name])) for name in NAMES}
        answer["tenants"]["guest"] = _as_guest(app)
    alice, bob = Browser(app, "alice", database_id), Browser(app, "bob", database_id)
    answer["alice"] = alice.submit("SELECT 1 AS one")
    answer["carol"] = Browser(app, "carol", database_id).submit("SELECT 'of carol'")
    dave = Browser(app, "dave", database_id)
    answer["dave"] = [
        dave.submit("SELECT 'of dave'"),
        dave.submit("SELECT 'urgent'", asynchronous=True, **{"X-Superset-Async-Urgent": "1"}),
    ]
    answer["warehouse"] = Browser(app, "dave", warehouse_id).follow("SELECT 2 AS two")
    answer["bob"] = bob.follow("SELECT 1 AS one")
    answer["slow"] = bob.follow("SELECT slow(8)")
    answer["guarded"] = {sql: [bob.follow(sql), bob.submit(sql, asynchronous=False)] for sql in LIFTING}
    answer["usage"] = {
        "admin": bob.get("/api/v1/superset_async/usage?by=tenant&hours=2"),
        "wrong": bob.get("/api/v1/superset_async/usage?by=colour&hours=0"),
        "analyst": Browser(app, "analyst", database_id).get("/api/v1/superset_async/usage"),
    }
    analyst = Browser(app, "analyst", database_id)
    until(lambda: _is_idle(bob), 60, "the worker tells that it has nothing to do")
    answer["live"] = {what: [one.get(f"/api/v1/superset_async/{what}") for one in (bob, analyst)] for what in LIVE}
    of_alice = answer["live"]["queries"][0]["json"]["result"][-1]["id"]
    answer["place"] = [one.get(f"/api/v1/superset_async/place/{of_alice}") for one in (alice, bob, analyst)]
    with app.app_context():
        extensions.async_query_manager.update_job({"channel_id": "c", "job_id": "j"}, "done")
    answer["channels"] = [_channel(app, subject) for subject in (None, "7")]
    answer["dataset"] = bob.new_dataset("SELECT 1 AS one")
    answer["audited"] = _audited(app, bob, dave, answer["dave"][1]["json"]["query"]["id"], database_id)
    answer["log_in"] = _form(app)
    answer["tampering"] = _tampering()
    answer["guesses"] = _guesses(app)
    print(json.dumps(answer, default=repr))


def _is_idle(administrator: Browser) -> bool:
    (worker,) = administrator.get("/api/v1/superset_async/workers")["json"]["result"]
    return bool(worker["state"] == "idle")


def _limit_of_an_undeclared_database() -> dict[str, str]:
    """What a connection has of a database that someone added in Superset's pages, without and with options of their own."""
    from superset.extensions import db
    from superset.models.core import Database

    declared = db.session.query(Database).filter_by(database_name="analytics").one()
    found: dict[str, str] = {}
    for name, extra in {
        "none": {},
        "stricter": {"engine_params": {"connect_args": {"options": "-c statement_timeout=2s"}}},
        "endless": {"engine_params": {"connect_args": {"options": "-c statement_timeout=0"}}},
        "longer than a task": {"engine_params": {"connect_args": {"options": "-c statement_timeout=1d"}}},
    }.items():
        database = Database(database_name="undeclared", extra=json.dumps(extra))
        database.set_sqlalchemy_uri(declared.sqlalchemy_uri_decrypted)
        with database.get_raw_connection() as connection:
            cursor = cast(Any, connection).cursor()
            cursor.execute("SHOW statement_timeout")
            found[name] = cursor.fetchone()[0]
    return found


def _tenant_of(app: Any, user: Any) -> dict[str, str]:
    """Whom this process takes `user` for, and the limit of their connections to a database without one of its own."""
    from superset.extensions import db
    from superset.models.core import Database

    declared = db.session.query(Database).filter_by(database_name="analytics").one()
    database = Database(database_name="undeclared")
    database.set_sqlalchemy_uri(declared.sqlalchemy_uri_decrypted)
    with app.test_request_context():
        g.user = user
        tenant = current_tenant_id()
        with database.get_raw_connection() as connection:
            cursor = cast(Any, connection).cursor()
            cursor.execute("SHOW statement_timeout")
            return {"tenant": tenant, "limit": cursor.fetchone()[0]}


def _as_guest(app: Any) -> dict[str, str]:
    """The same of an embedded guest who calls itself bob, after it has asked for a chart."""
    from superset import extensions

    token = {"user": {"username": "bob"}, "org": "acme-2", "resources": [], "rls_rules": []}
    guest = extensions.security_manager.get_guest_user_from_token(cast(Any, token))
    with app.test_request_context():
        g.user = guest
        extensions.async_query_manager.submit_chart_data_job("channel", {"datasource": {"id": 1, "type": "table"}}, None)
        extensions.db.session.remove()
    return _tenant_of(app, guest)


def _channel(app: Any, subject: str | None) -> str:
    """The channel that Superset reads from a cookie as it gives it to `subject`: None for a guest."""
    from superset.extensions import async_query_manager

    secret = app.config["GLOBAL_ASYNC_QUERIES_JWT_SECRET"]
    token = jwt.encode({"channel": "of-this-browser", "sub": subject}, secret, algorithm="HS256")
    name = app.config["GLOBAL_ASYNC_QUERIES_JWT_COOKIE_NAME"]
    with app.test_request_context(headers={"Cookie": f"{name}={token}"}):
        return async_query_manager.parse_channel_id_from_request(request)


def _form(app: Any) -> list[Any]:
    """What the log-in page answers to somebody who logs in, after all that this process has done: status, and where to."""
    app.config["WTF_CSRF_ENABLED"] = False
    answer = app.test_client().post("/login/", data={"username": "bob", "password": PASSWORD})
    return [answer.status_code, answer.headers.get("Location")]


def _guesses(app: Any) -> dict[str, Any]:
    """The answers to ten wrong log-ins in a moment: malformed, so that no time goes into hashing; and when to try again."""
    app.config["WTF_CSRF_ENABLED"] = False
    client = app.test_client()
    answers = {
        "form": [client.post("/login/", data={}) for _ in range(10)],
        "api": [client.post("/api/v1/security/login", json={}) for _ in range(10)],
    }
    return {
        **{way: [answer.status_code for answer in given] for way, given in answers.items()},
        "retry_after": {way: given[-1].headers.get("Retry-After") for way, given in answers.items()},
    }


def _audited(app: Any, bob: Browser, dave: Browser, waiting: str, database_id: int) -> dict[str, Any]:
    """What the audit trail has to tell: an administrator's changes, a stopped query, an export, and what is refused."""
    done = bob.follow("SELECT 5 AS five")["query"]
    role = bob.get("/api/v1/security/roles/?q=(filters:!((col:name,opr:eq,value:Finance)))")["json"]["ids"][0]
    eve = {"username": "eve", "first_name": "e", "last_name": "e", "email": "eve@localhost", "active": True, "roles": [role]}
    wrong = {"username": "alice", "password": "a-wrong-one", "provider": "db", "refresh": False}
    guest = {"user": {"username": "visitor"}, "resources": [], "rls": []}
    return {
        "done": done["id"],
        "answers": [
            dave.send("POST", "/api/v1/query/stop", {"client_id": waiting}),
            bob.send("GET", f"/api/v1/sqllab/export/{done['client_id']}/"),
            bob.send("POST", "/api/v1/security/users/", {**eve, "password": "of-eve-alone"}),
            bob.send("POST", f"/api/v1/security/roles/{role}/permissions", {"permission_view_menu_ids": [1, 2]}),
            bob.send("PUT", f"/api/v1/database/{database_id}", {"allow_ctas": True}),
            bob.send("POST", "/api/v1/security/guest_token/", guest),
            app.test_client().post("/api/v1/security/login", json=wrong).status_code,
            app.test_client().post("/api/v1/security/login", json={**wrong, "username": "nobody"}).status_code,
        ],
    }


def _tampering() -> dict[str, str]:
    """What comes of it when this process tries to change what it has written to the audit trail."""
    attempts: dict[str, Callable[[], object]] = {
        "write at the begin": lambda: os.pwrite(1, b"{}", 0),
        "go back": lambda: os.lseek(1, 0, os.SEEK_SET),
        "cut": lambda: os.ftruncate(1, 0),
    }
    found: dict[str, str] = {}
    for name, attempt in attempts.items():
        try:
            found[name] = repr(attempt())
        except OSError as error:
            found[name] = errno.errorcode[error.errno or 0]
    return found


class Browser:
    """A logged-in user of Superset's HTTP API."""

    def __init__(self, app: Any, user: str, database_id: int) -> None:
        self._client = app.test_client()
        self._database_id = database_id
        login = {"username": user, "password": PASSWORD, "provider": "db", "refresh": False}
        token = self._client.post("/api/v1/security/login", json=login).json["access_token"]
        self._headers = {"Authorization": f"Bearer {token}"}
        token = self._client.get("/api/v1/security/csrf_token/", headers=self._headers).json["result"]
        self._headers["X-CSRFToken"] = token

    def submit(self, sql: str, *, asynchronous: bool = True, **headers: str) -> dict[str, Any]:
        """Submit a query: status, JSON and seconds."""
        started = time.monotonic()
        body = {
            "database_id": self._database_id,
            "sql": sql,
            "runAsync": asynchronous,
            "client_id": f"{time.monotonic_ns() % 10**10}",
            "schema": "public",
        }
        answer = self._client.post("/api/v1/sqllab/execute/", json=body, headers=self._headers | headers)
        return {"status": answer.status_code, "json": answer.json, "seconds": time.monotonic() - started}

    def get(self, path: str) -> dict[str, Any]:
        """Status and JSON of a GET."""
        answer = self._client.get(path, headers=self._headers)
        return {"status": answer.status_code, "json": answer.json}

    def send(self, method: str, path: str, body: Any = None) -> int:
        """The status of a request."""
        return self._client.open(path, method=method, json=body, headers=self._headers).status_code

    def new_dataset(self, sql: str) -> dict[str, Any]:
        """Status and JSON of a dataset made of a statement, whose columns Superset asks the database for."""
        body = {"database": self._database_id, "schema": "public", "table_name": "made", "sql": sql}
        answer = self._client.post("/api/v1/dataset/", json=body, headers=self._headers)
        return {"status": answer.status_code, "json": answer.json}

    def follow(self, sql: str) -> dict[str, Any]:
        """Submit and poll until the query has ended: the query as the API shows it, seconds, and rows where there are."""
        started = time.monotonic()
        submitted = self.submit(sql)
        if submitted["status"] != 202:
            return submitted
        query: dict[str, Any] = {"status": "pending"}
        while query["status"] not in ("success", "failed", "stopped", "timed_out") and time.monotonic() - started < 60:
            time.sleep(0.1)
            url = f"/api/v1/query/{submitted['json']['query']['queryId']}"
            query = self._client.get(url, headers=self._headers).json["result"]
        answer = {"query": query, "seconds": time.monotonic() - started, "error_message": query.get("error_message")}
        if query["status"] == "success":
            url = f"/api/v1/sqllab/results/?q=(key:'{query['results_key']}')"
            answer["rows"] = self._client.get(url, headers=self._headers).json["data"]
        return answer


if __name__ == "__main__":
    main()
