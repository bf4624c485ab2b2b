"""Run in Superset's environment as a web process: polls of many users for queries in all states, and what changes of rights do.

Prints as JSON: `polls`, for each user how often an answer was that of the shipped view, and those where it was not; `rights`,
what a user was answered at each moment of a clock that is moved; `log`, what is in the action log; `sessions`, what copies of a
session's cookie are answered.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from runtime.environment import counters
from runtime.environment.kept_answers import KeptAnswers
from runtime.environment.shared_version import SharedVersion

PASSWORD = "for-this-test"
#: Columns of queries, by their client's id: each state, text that JSON must escape, numbers with fractions, and nothing at all.
QUERIES: dict[str, dict[str, Any]] = {
    "pending": {"status": "pending", "extra_json": "{}"},
    "running": {
        "status": "running",
        "progress": 42,
        "extra_json": '{"progress": "Running block 1 out of 1", "cancel_query": 7}',
    },
    "success": {
        "status": "success",
        "progress": 100,
        "rows": 3,
        "results_key": "b2c0e0a8-0001",
        "executed_sql": "SELECT 'é\"\\\n' AS a LIMIT 1001",
        "end_time": 1764230400123.456789,
        "limiting_factor": "QUERY",
        "extra_json": '{"columns": [{"name": "a", "type": "STRING", "is_dttm": false}], "progress": null}',
    },
    "failed": {
        "status": "failed",
        "error_message": "no such table: <b>ü</b>",
        "extra_json": '{"errors": [{"message": "x"}]}',
    },
    "stopped": {"status": "stopped", "error_message": None},
    "timed_out": {"status": "timed_out", "tracking_url": "http://tracker/1?a=b&c"},
    "scheduled": {"status": "scheduled", "extra_json": "no json"},
    "fetching": {
        "status": "fetching",
        "extra_json": None,
        "limit": None,
        "schema": "s",
        "catalog": "c",
        "sql_editor_id": "9",
    },
    "ctas": {
        "status": "success",
        "select_as_cta": True,
        "select_as_cta_used": True,
        "tmp_table_name": "t",
        "tmp_schema_name": "s",
        "select_sql": "SELECT 1",
        "tab_name": "Tab",
    },
}


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def main() -> None:
    """Print everything as one line of JSON."""
    from runtime.superset import event_log, known_users

    clock = Clock()
    kept = KeptAnswers(SharedVersion("users", known_users.ASK_SECONDS, clock=clock), known_users.KEPT_SECONDS, clock=clock)
    known_users.kept = kept
    from superset.app import create_app

    app: Any = create_app()
    event_log.batches._every_seconds = counters.later._every_seconds = 3600.0
    with app.app_context():
        users = _users(app)
        ids = _queries(users)
    app.config["WTF_CSRF_ENABLED"] = False
    clients = {name: _client(app, name) for name in ("admin", "analyst", "reader", "nobody")}
    print(
        json.dumps(
            {
                "polls": _polls(app, clients, ids),
                "log": _log(app, clients["analyst"], ids),
                "counted": _counted(clients["analyst"], ids),
                "rights": _rights(app, clock, ids),
                "sessions": _sessions(app, clock),
            }
        )
    )


def _counted(analyst: Any, ids: list[int]) -> dict[str, float]:
    """What three polls, and paths that there are not, add to the counters; the names of what is counted have no identifier."""
    from runtime.environment import coordination

    def counted() -> Counter[str]:
        counters.later.flush()
        found = coordination.client().hgetall(coordination.key(counters.COUNTERS))
        # Seconds differ.
        return Counter({name.decode(): float(value) for name, value in found.items() if b"_sum" not in name})

    client, headers = analyst
    before = counted()
    for path in (*(f"/api/v1/query/{number}" for number in (ids[0], ids[1], 0)), "/no/such/page", "/nor/this"):
        client.get(path, headers=headers)
    added = counted() - before
    return {
        name: by
        for name, by in added.items()
        if name.startswith('["superset_web_requests') or "+Inf" in name or "stats" in name
    }


def _users(app: Any) -> dict[str, int]:
    from superset.extensions import db

    sm: Any = app.appbuilder.sm
    roles = {"admin": ["Admin"], "analyst": ["Gamma", "sql_lab"], "reader": ["Alpha"], "nobody": []}
    for name, of_user in roles.items():
        given = [sm.find_role(role) for role in of_user] or [sm.add_role("Nothing")]
        sm.add_user(f"polled-{name}", "Né", name, f"polled-{name}@localhost", given, password=PASSWORD)
    found = {name: sm.find_user(username=f"polled-{name}").id for name in roles}
    db.session.remove()
    return found


def _queries(users: dict[str, int]) -> list[int]:
    """Queries of two users and of none, each in each state; their ids."""
    from superset.extensions import db
    from superset.models.sql_lab import Query

    session: Any = db.session
    database_id = session.execute("SELECT id FROM dbs ORDER BY id LIMIT 1").scalar()
    defaults = {"database_id": database_id, "sql": "SELECT 1 AS é", "limit": 1000, "start_time": 1764230400000.000123}
    for number, (client_id, columns) in enumerate(QUERIES.items()):
        for owner, user_id in (("a", users["admin"]), ("b", users["analyst"]), ("n", None)):
            values = {**defaults, **columns, "client_id": f"{owner}{number}{client_id}"[:11], "user_id": user_id}
            session.execute(Query.__table__.insert().values(**values))
    session.commit()
    ids = [row[0] for row in session.execute("SELECT id FROM query ORDER BY id")]
    session.remove()
    return ids


def _client(app: Any, name: str) -> tuple[Any, dict[str, str]]:
    client = app.test_client()
    login = {"username": f"polled-{name}", "password": PASSWORD, "provider": "db", "refresh": False}
    token = client.post("/api/v1/security/login", json=login).json["access_token"]
    return client, {"Authorization": f"Bearer {token}"}


def _polls(app: Any, clients: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """Each poll answered by this project's look-up and by the shipped one."""
    from superset.daos.query import QueryDAO
    from superset.queries.api import QueryRestApi

    from runtime.superset import status

    fast = Counter[str]()
    made: Any = status.Row

    class Seen(made):
        def __init__(self, row: Any) -> None:
            fast["rows"] += 1
            super().__init__(row)

    status.Row = Seen
    replaced: tuple[Any, Any] = (QueryRestApi.datamodel.get, QueryDAO.get_queries_changed_after)
    shipped = (replaced[0].__wrapped__, replaced[1].__wrapped__)

    def look_up(ways: tuple[Any, Any]) -> None:
        QueryRestApi.datamodel.get = ways[0]
        setattr(QueryDAO, "get_queries_changed_after", staticmethod(ways[1]))  # noqa: B010

    nobody = (app.test_client(), {})
    paths = [
        *(f"/api/v1/query/{number}" for number in (*ids, 0, 10**6)),
        f"/api/v1/query/{ids[2]}?q=(columns:!(id,status,database.id))",
        f"/api/v1/query/{ids[2]}?q=(columns:!(password))",
        "/api/v1/query/updated_since?q=(last_updated_ms:0)",
        "/api/v1/query/updated_since?q=(last_updated_ms:99999999999999)",
        "/api/v1/query/updated_since",
        "/api/v1/query/updated_since?q=(last_updated_ms:x)",
    ]
    same, different = Counter[str](), list[Any]()
    for name, (client, headers) in {**clients, "anonymous": nobody}.items():
        for path in paths:
            for language in ("en", "fr"):
                asked = {**headers, "Accept-Language": language}
                look_up(replaced)
                ours = client.get(path, headers=asked)
                look_up(shipped)
                theirs = client.get(path, headers=asked)
                if (ours.status_code, ours.data) == (theirs.status_code, theirs.data):
                    same[f"{name} {ours.status_code}"] += 1
                else:
                    different.append([name, path, ours.status_code, ours.text, theirs.status_code, theirs.text])
    look_up(replaced)
    status.Row = made
    return {"same": same, "different": different, "rows": fast["rows"]}


def _log(app: Any, analyst: Any, ids: list[int]) -> dict[str, list[str]]:
    """Actions in the log after a poll and a request that says who did what, before and after a batch is written."""
    from superset.extensions import db

    from runtime.superset import event_log

    event_log.batches.flush()
    client, headers = analyst

    def actions() -> list[str]:
        with app.app_context():
            found = [row[0] for row in db.session.execute("SELECT action FROM logs ORDER BY id")]
            db.session.remove()
        return found

    before = len(actions())
    client.get(f"/api/v1/query/{ids[1]}", headers=headers)
    client.get("/api/v1/query/updated_since?q=(last_updated_ms:0)", headers=headers)
    client.get("/api/v1/query/?q=(page_size:1)", headers=headers)
    answered = actions()[before:]
    event_log.batches.flush()
    return {"answered": answered, "flushed": actions()[before:]}


def _rights(app: Any, clock: Clock, ids: list[int]) -> list[Any]:
    """Status of a poll by a user of SQL Lab, at each step: [what was done, seconds since the last step, status]."""
    from superset.extensions import db

    from runtime.superset import known_users

    client, headers = _client(app, "analyst")
    sm: Any = app.appbuilder.sm
    seen: list[Any] = []

    def poll(what: str, seconds: float) -> None:
        clock.now += seconds
        seen.append([what, seconds, client.get(f"/api/v1/query/{ids[1]}", headers=headers).status_code])

    def by_sql(*statements: str) -> None:
        """As somebody does past Superset: this process is told nothing."""
        with app.app_context(), db.engine.connect() as connection:
            raw: Any = connection.connection
            for statement in statements:
                raw.cursor().execute(statement)
            raw.commit()

    def by_orm(change: Any) -> None:
        with app.app_context():
            user = sm.find_user(username="polled-analyst")
            change(user)
            db.session.commit()
            db.session.remove()

    role = "(SELECT id FROM ab_role WHERE name = 'sql_lab')"
    gamma = "(SELECT id FROM ab_role WHERE name = 'Gamma')"
    user = "(SELECT id FROM ab_user WHERE username = 'polled-analyst')"
    taken = f"DELETE FROM ab_user_role WHERE user_id = {user} AND role_id IN ({role}, {gamma})"
    given = f"INSERT INTO ab_user_role (id, user_id, role_id) SELECT nextval('ab_user_role_id_seq'), {user}, {role}"

    clock.now += 100
    poll("at first", 0)
    by_sql(taken)
    poll("taken by SQL", known_users.KEPT_SECONDS - 0.1)
    poll("taken by SQL", 0.2)
    by_sql(given)
    poll("given by SQL", known_users.KEPT_SECONDS + 0.1)
    # Another process takes it, and says so.
    by_sql(taken)
    SharedVersion("users", 1.0).change()
    poll("taken by another process", known_users.ASK_SECONDS + 0.1)
    by_orm(lambda found: found.roles.append(sm.find_role("sql_lab")))
    poll("given here", 0)
    by_orm(lambda found: setattr(found, "roles", [sm.find_role("Nothing")]))
    poll("taken here", 0)
    by_orm(lambda found: setattr(found, "roles", [sm.find_role("sql_lab")]))
    poll("given here", 0)
    by_orm(lambda found: setattr(found, "active", False))
    poll("user made inactive here", 0)
    by_orm(lambda found: setattr(found, "active", True))
    poll("user made active here", 0)
    with app.app_context():
        held = sm.find_role("sql_lab")
        permission = sm.find_permission_view_menu("can_read", "Query")
        held.permissions.remove(permission)
        db.session.commit()
        db.session.remove()
    poll("permission taken from the role here", 0)
    with app.app_context():
        sm.add_permission_role(sm.find_role("Public"), sm.find_permission_view_menu("can_read", "Query"))
        db.session.remove()
    poll("permission given to the public here", 0)
    return seen


def _sessions(app: Any, clock: Clock) -> dict[str, list[int]]:
    """The answers to three browsers of one user and to copies of their cookies, as each is logged out."""
    from runtime.environment.ended_names import EndedNames
    from runtime.superset import ended_sessions

    app.extensions[ended_sessions.__name__]._ended._clock = clock
    browsers = [_logged_in(app) for _ in range(3)]
    copies = [_with_cookie(app, browser) for browser in browsers]

    def asked() -> list[int]:
        return [each.get("/api/v1/me/").status_code for each in (*browsers, *copies)]

    seen = {"logged in": asked()}
    browsers[0].get("/logout/")
    seen["the first logged out here"] = asked()
    with browsers[1].session_transaction() as session:
        login = session[ended_sessions.LOGIN]
    EndedNames("logins", 1000.0, 1.0).end(login)
    clock.now += ended_sessions.ASK_SECONDS + 0.1
    seen["the second in another process"] = asked()
    with copies[2].session_transaction() as session:
        del session[ended_sessions.LOGIN]
    seen["the third copy of before"] = asked()
    return seen


def _logged_in(app: Any) -> Any:
    browser = app.test_client()
    browser.post("/login/", data={"username": "polled-reader", "password": PASSWORD})
    return browser


def _with_cookie(app: Any, browser: Any) -> Any:
    copy = app.test_client()
    copy.set_cookie("session", browser.get_cookie("session").value)
    return copy


if __name__ == "__main__":
    main()
