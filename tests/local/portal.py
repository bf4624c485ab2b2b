"""A site of somebody else's with a dashboard of Superset's in a frame: the public SDK in its page, and a back end for tokens."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from client.superset_client import SupersetClient
from tests.local.conftest import PROJECT

#: Made by `make sdk`.
SDK = PROJECT / "tools/embedding/node_modules/@superset-ui/embedded-sdk/bundle/index.js"
PAGE = """<!doctype html>
<title>Acme</title>
<style>
  body {{ margin: 0; font: 15px sans-serif; background: #e8eef2; color: #123 }}
  header {{ padding: 14px 20px; background: #14506e; color: white; font-size: 20px }}
  p {{ margin: 12px 20px }}
  iframe {{ box-sizing: border-box; width: calc(100% - 40px); height: 920px; margin: 0 20px; border: 1px solid #9ab }}
</style>
<header>Acme · customer portal</header>
<p>Your orders, from Superset:</p>
<div id="dashboard"></div>
<script src="/sdk.js"></script>
<script>
  supersetEmbeddedSdk.embedDashboard({{
    id: "{dashboard}",
    supersetDomain: "{superset}",
    mountPoint: document.getElementById("dashboard"),
    fetchGuestToken: () => fetch("/token").then((answer) => answer.text()),
  }});
</script>
"""
#: All that the portal's account may do.
PERMISSIONS = (("can_grant_guest_token", "SecurityRestApi"), ("can_read", "SecurityRestApi"))
PASSWORD = "for-this-test"


def account(client: SupersetClient, name: str) -> None:
    """Make the portal's own user, who may make guests' tokens and nothing else."""
    call = client._session.call  # pyright: ignore[reportPrivateUsage]
    role = call("POST", "/api/v1/security/roles/", body={"name": name}).json()["id"]
    wanted: list[int] = []
    for page in range(100):
        found = call("GET", f"/api/v1/security/permissions-resources/?q=(page_size:100,page:{page})").json()["result"]
        wanted += [each["id"] for each in found if (each["permission"]["name"], each["view_menu"]["name"]) in PERMISSIONS]
        if not found or len(wanted) == len(PERMISSIONS):
            break
    call("POST", f"/api/v1/security/roles/{role}/permissions", body={"permission_view_menu_ids": wanted})
    user = {
        **{"username": name, "first_name": name, "last_name": name, "email": f"{name}@localhost"},
        **{"password": PASSWORD, "active": True, "roles": [role]},
    }
    call("POST", "/api/v1/security/users/", body=user)


def embedded(client: SupersetClient, slug: str) -> str:
    """Let a dashboard be embedded; what it is called there."""
    call = client._session.call  # pyright: ignore[reportPrivateUsage]
    return str(call("POST", f"/api/v1/dashboard/{slug}/embedded", body={"allowed_domains": []}).json()["result"]["uuid"])


@dataclass
class BackEnd:
    """The portal's part that knows a password: it makes a token for who has logged in to the portal."""

    url: str
    username: str
    dashboard: str

    def token(self, guest: str) -> str:
        """A token for a guest of the portal, who sees this one dashboard."""
        with httpx.Client(base_url=self.url) as http:
            login = {"username": self.username, "password": PASSWORD, "provider": "db", "refresh": False}
            bearer = http.post("/api/v1/security/login", json=login).raise_for_status().json()["access_token"]
            http.headers["Authorization"] = f"Bearer {bearer}"
            csrf = http.get("/api/v1/security/csrf_token/").raise_for_status().json()["result"]
            body = {
                "user": {"username": guest},
                "resources": [{"type": "dashboard", "id": self.dashboard}],
                "rls": [],
            }
            made = http.post("/api/v1/security/guest_token/", json=body, headers={"X-CSRFToken": csrf})
            return str(made.raise_for_status().json()["token"])


@contextmanager
def serving(back_end: BackEnd, superset: str) -> Generator[int]:
    """The port on which the portal answers, with a frame of `superset`'s."""
    page = PAGE.format(dashboard=back_end.dashboard, superset=superset)
    answers = {"/": ("text/html", lambda: page), "/sdk.js": ("text/javascript", SDK.read_text)}
    answers["/token"] = ("text/plain", lambda: back_end.token("visitor"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = answers.get(self.path, ("text/plain", lambda: ""))
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
