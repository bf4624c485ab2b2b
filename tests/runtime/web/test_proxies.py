"""A real nginx before the web server, one and two deep: who the user is, and what is let through."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from components.route import allowances
from runtime.config import render
from tests.runtime.stacks import environment, topology
from tests.runtime.web.nginx import NEEDED, nginx
from tests.runtime.web.server import ANSWERED, running

pytestmark = [pytest.mark.superset, NEEDED]


@contextmanager
def proxied(folder: Path, deep: int, proxies: int) -> Generator[int]:
    """The port of the first of `deep` proxies before a web server whose stack says that there are `proxies`."""
    with ExitStack() as stack:
        port = stack.enter_context(running(folder, application="behind_proxies()", PROXY_FIX=_settings(proxies))).port
        for depth in range(deep):
            port = stack.enter_context(nginx(folder / f"nginx-{depth}", port))
        yield port


def _settings(proxies: int) -> str:
    plan = topology("enterprise", web={"proxies": proxies})
    rendered = render(plan, environment(plan))
    return json.dumps({name: rendered[name] for name in ("ENABLE_PROXY_FIX", "PROXY_FIX_CONFIG")})


def who(port: int, address: str) -> list[str]:
    """Whom the web server takes a user at `address` for, who says that he is another."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERED, source_address=(address, 0))
    try:
        connection.request("GET", "/who", headers={"X-Forwarded-For": "203.0.113.9", "Host": "superset.example.com"})
        return connection.getresponse().read().decode().split()
    finally:
        connection.close()


@pytest.mark.parametrize("deep", [1, 2])
def test_each_user_has_his_own_address_behind_as_many_proxies_as_the_stack_says(deep: int, tmp_path: Path) -> None:
    with proxied(tmp_path, deep, proxies=deep) as port:
        for address in ("127.0.0.2", "127.0.0.3"):
            assert who(port, address) == [address, "https", "superset.example.com"]


def test_without_proxies_nobodys_word_counts(tmp_path: Path) -> None:
    with proxied(tmp_path, 0, proxies=0) as port:
        assert who(port, "127.0.0.2") == ["127.0.0.2", "http", "superset.example.com"]


def test_as_much_passes_as_the_stack_allows(tmp_path: Path) -> None:
    """Through nginx's own limit an import of 1.5 MB does not come."""
    told = allowances(topology("enterprise").web)
    names = ("client-max-body-size", "proxy-read-timeout", "proxy-send-timeout")
    directives = [f"{name.replace('-', '_')} {told[f'nginx.org/{name}']}" for name in names]
    body = bytes(1_500_000)
    with (
        running(tmp_path) as server,
        nginx(tmp_path / "untold", server.port) as untold,
        nginx(tmp_path / "told", server.port, *directives) as knowing,
    ):
        assert (_post(untold, body), _post(knowing, body)) == (413, 200)


def _post(port: int, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERED)
    try:
        connection.request("POST", "/echo", body)
        return connection.getresponse().status
    finally:
        connection.close()
