"""A real nginx that has logged the user in: whose word the real Superset takes for who the user is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.runtime.conftest import PROJECT, Prepared
from tests.runtime.stacks import topology
from tests.runtime.web.nginx import NEEDED, nginx
from tests.waiting import free_port, until
from topology import commands

pytestmark = [pytest.mark.superset, NEEDED]

SECONDS = 60
HEADER = "X-Forwarded-User"
#: Where the proxy connects from; everybody else of this machine is a stranger.
PROXY = "127.0.0.9"


@pytest.fixture(scope="module")
def superset(prepared: Prepared) -> Iterator[str]:
    """The URL at which the web tier itself is reached."""
    port = free_port()
    plan = prepared.services.on_loopback(
        topology(
            "enterprise",
            web={"proxies": 1},
            superset={
                "sign_on": {"remote_user": {"header": HEADER, "proxies": [f"{PROXY}/32"]}, "registration_role": "Alpha"}
            },
        )
    )
    tier = plan.web.model_copy(update={"processes": 1, "bind": "127.0.0.1", "port": port})
    plan = plan.model_copy(update={"web": tier})
    env = prepared.services.process_environment(plan, "web", "remote-user")
    log = prepared.services.folder / "remote-user.log"
    with log.open("wb") as written:
        process = subprocess.Popen(commands.web(plan), env=env, cwd=PROJECT, stdout=written, stderr=written)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: process.poll() is not None or _healthy(url), 120, "the web tier answers")
            assert process.poll() is None, log.read_text()[-4000:]
            yield url
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def proxy(superset: str, prepared: Prepared) -> Iterator[str]:
    """The URL of an nginx that asks for a password, and says whose it was."""
    users = prepared.services.folder / "htpasswd"
    users.write_text("ann:{PLAIN}of-ann\nbob:{PLAIN}of-bob\nadmin:{PLAIN}of-a-stranger\n")
    users.chmod(0o644)
    directives = ("auth_basic superset", f"auth_basic_user_file {users}", f"proxy_bind {PROXY}")
    upstream = int(superset.rpartition(":")[2])
    with nginx(prepared.services.folder / "nginx", upstream, *directives, X_Forwarded_User="$remote_user") as port:
        yield f"http://127.0.0.1:{port}"


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=SECONDS).status_code == 200
    except httpx.TransportError:
        return False


def browser(url: str, user: str | None = None, **headers: str) -> httpx.Client:
    auth = (user, f"of-{user}") if user in ("ann", "bob") else (user, "of-a-stranger") if user else None
    # The cookies of a stack behind a proxy are for HTTPS alone: what the browser holds is sent as it stands.
    return httpx.Client(
        base_url=url, auth=auth, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=SECONDS
    )


def log_in(client: httpx.Client) -> httpx.Response:
    """Open the log-in page, and keep the session that it gives."""
    answer = client.get("/login/")
    for cookie in answer.headers.get_list("set-cookie"):
        if cookie.startswith("session="):
            client.headers["Cookie"] = cookie.partition(";")[0]
    return answer


def name(client: httpx.Client) -> Any:
    """Whom Superset takes the client for; None for nobody."""
    answer = client.get("/api/v1/me/")
    return answer.json()["result"]["username"] if answer.status_code == 200 else None


def test_the_proxys_user_is_logged_in_with_the_role_of_those_who_come_first(proxy: str) -> None:
    with browser(proxy, "ann") as client:
        assert log_in(client).status_code == 302
        assert name(client) == "ann"
        assert set(client.get("/api/v1/me/roles/").json()["result"]["roles"]) == {"Alpha"}


def test_a_user_of_the_proxy_cannot_say_that_he_is_another(proxy: str) -> None:
    with browser(proxy, "bob", X_Forwarded_User="ann") as client:
        log_in(client)
        assert name(client) == "bob"


@pytest.mark.parametrize("headers", [{}, {"X_Forwarded_For": PROXY}])
def test_the_header_of_a_stranger_is_dropped(superset: str, proxy: str, headers: dict[str, str]) -> None:
    with browser(proxy, "ann") as client:
        log_in(client)
        assert name(client) == "ann"
    with browser(superset, X_Forwarded_User="ann", **headers) as client:
        answer = log_in(client)
        assert name(client) is None
        # No circle of redirections, but what is wrong.
        assert answer.status_code == 401
        assert "named no user who may log in" in answer.text


def test_the_administrators_name_is_nobodys_at_the_proxy(proxy: str) -> None:
    with browser(proxy, "admin") as client:
        assert log_in(client).status_code == 401
        assert name(client) is None


def test_the_next_user_of_a_browser_is_not_the_last_one(proxy: str) -> None:
    with browser(proxy, "ann") as client:
        log_in(client)
        assert name(client) == "ann"
        session = client.headers["Cookie"]
    with browser(proxy, "bob", Cookie=session) as client:
        assert name(client) is None
        log_in(client)
        assert name(client) == "bob"
