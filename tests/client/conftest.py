"""A small real HTTP server that plays Superset 6.1: recorded answers, in the order that a test gives them."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

USER, PASSWORD = "ada", "correct horse"


@dataclass(frozen=True)
class Answer:
    """What the server says; `drop` closes the connection instead. `before` runs when the request has come."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    drop: bool = False
    before: Callable[[], None] | None = None


DROP = Answer(drop=True)


@dataclass(frozen=True)
class Request:
    """What came: names of headers in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Playing:
    """Answers by method and path: each is given once, the last one of a path for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._answers: dict[tuple[str, str], list[Answer]] = defaultdict(list)
        self._lock = threading.Lock()
        self.on("POST", "/api/v1/security/login", Answer({"access_token": "a-token"}))
        self.on(
            "GET",
            "/api/v1/security/csrf_token/",
            Answer({"result": "a-csrf"}, headers={"Set-Cookie": "session=one; Path=/"}),
        )

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self._answers[method, path] = list(answers)

    def query(self, *records: dict[str, Any], submitted: Answer | None = None) -> None:
        """Play query 7: its submission, and a record for each time its state is asked for."""
        self.on("POST", "/api/v1/sqllab/execute/", submitted or Answer({"query": {"queryId": 7, "id": "x"}}, 202))
        self.on("GET", "/api/v1/query/7", *[Answer({"id": 7, "result": one}) for one in records])

    def asked(self, method: str, path: str) -> list[Request]:
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            left = self._answers[request.method, request.path]
            if not left:
                return Answer({"message": "Not found"}, 404)
            return left.pop(0) if len(left) > 1 else left[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    playing: Playing

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query)),
            {name.lower(): value for name, value in self.headers.items()},
            json.loads(raw) if raw else None,
        )
        answer = self.playing.answer(request)
        if answer.before:
            answer.before()
        if answer.drop:
            self.close_connection = True
            return
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        payload = text.encode()
        # A client that was interrupted does not listen any more.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(answer.status)
            kind = "text/html" if isinstance(answer.body, str) else "application/json"
            for name, value in ({"Content-Type": kind, "Content-Length": str(len(payload))} | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

    do_GET = do_POST = _serve

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def superset() -> Iterator[Playing]:
    class Bound(Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    Bound.playing = Playing(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Bound.playing
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def record(status: str = "success", **changes: Any) -> dict[str, Any]:
    """`result` of `GET /api/v1/query/7`, as Superset 6.1 gave it for `select 1 as n, null as x`."""
    finished = status not in ("pending", "running")
    return {
        "changed_on": "2026-11-23T05:06:30.721250",
        "client_id": "hsooznbmgrb",
        "database": {"id": 1},
        "end_result_backend_time": None,
        "end_time": "1795410390702.611800" if finished else None,
        "error_message": None,
        "executed_sql": "SELECT\n  1 AS n,\n  NULL AS x\nLIMIT 100001",
        "id": 7,
        "limit": 100000,
        "progress": 100 if finished else 0,
        "results_key": "4e461c84-b606-41a5-b90a-b29c853f16a1" if status == "success" else None,
        "rows": 1 if status == "success" else None,
        "schema": None,
        "select_as_cta": False,
        "select_as_cta_used": False,
        "select_sql": None,
        "sql": "select 1 as n, null as x",
        "sql_editor_id": "superset-async",
        "start_running_time": None if status == "pending" else "1795410390628.727000",
        "start_time": "1795410390606.257800",
        "status": status,
        "tab_name": "superset-async",
        "tmp_schema_name": None,
        "tmp_table_name": None,
        "tracking_url": None,
    } | changes


def result(rows: list[dict[str, Any]] | None = None, limiting_factor: str = "NOT_LIMITED") -> dict[str, Any]:
    """Superset 6.1's answer with rows, by default those of `select 1 as n, null as x`."""
    rows = [{"n": 1, "x": None}] if rows is None else rows
    columns = [
        {"column_name": name, "name": name, "type": "STRING", "type_generic": 1, "is_dttm": False}
        for name in (rows or [{}])[0]
    ]
    query = {"queryId": 7, "limitingFactor": limiting_factor, "state": "success", "rows": len(rows)}
    return {
        "query_id": 7,
        "status": "success",
        "data": rows,
        "columns": columns,
        "selected_columns": columns,
        "query": query,
    }


def refusal(status: int, message: str, kind: str | None) -> Answer:
    """Superset's list of errors."""
    error = {"message": message, "level": "error", "extra": {}} | ({"error_type": kind} if kind else {})
    return Answer({"errors": [error]}, status)
