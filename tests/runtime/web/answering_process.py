"""A small application for the web server's tests: what holds a thread, and what a client reads slowly."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """`/who` says whose address and scheme the proxies tell, `/held` waits until the file RELEASE exists, `/echo` says the length
    of its body, `/large` has 64 MB; others say their path.
    """
    path = environ["PATH_INFO"]
    body = path.encode()
    if path == "/held":
        while not Path(os.environ["RELEASE"]).exists():
            time.sleep(0.02)
    elif path == "/echo":
        body = str(len(environ["wsgi.input"].read())).encode()
    elif path == "/who":
        body = f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']} {environ['HTTP_HOST']}".encode()
    elif path == "/large":
        body = bytes(64 * 1024 * 1024)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def behind_proxies() -> Any:
    """The same as Superset has it of the platform's settings (`superset.initialization`, 6.1.0)."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    settings = json.loads(os.environ["PROXY_FIX"])
    return ProxyFix(application, **settings["PROXY_FIX_CONFIG"]) if settings["ENABLE_PROXY_FIX"] else application
