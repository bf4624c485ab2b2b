"""Dashboards in pages of other sites: for guests with a token, without any cookie, and in the sites alone that the stack names.

As shipped (Superset 6.1) a guest needs three cookies, which a browser keeps from a page in another site's frame: one names the
channel on which he is told that his charts are ready, one is the session of the channel, and one is what a form's token is
compared with. Without them each request has a channel of its own, and no chart is ever shown. Here a guest is known by his token
alone, which his page sends with each request:

- his channel follows from what the token says of him, without its times, since a page gets a new token every few minutes; and
  from the page, which sends a name that it has made up: so the pages of a site whose guests are all alike have their own;
- no cookie counts beside a token, and none is given: a user who is logged in elsewhere in the same browser is a guest here, and
  stays logged in there;
- a token in a header is what no other site's form can send: nothing is compared with a cookie.

Every page but the embedded dashboard's stays what no other site may have in a frame.

Replaces `EmbeddedView.embedded`, `CSRFProtect.protect` of Flask-WTF and the application's session interface, and leans on
Flask-Talisman's options of a view and on `security_manager.get_current_guest_user_if_guest` (read and tested with Superset 6.1.0;
no upstream issue known).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from flask import Request, request
from flask.sessions import SecureCookieSession, SessionInterface, SessionMixin

from runtime.environment import hooks, process_topology, versions
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from flask import Flask, Response

#: Where the view is that another site has in a frame.
PATH = "/embedded/"
#: The header in which a page of guests says which page it is, whatever it likes.
PAGE_HEADER = "X-Superset-Async-Page"
#: More than that of it is not looked at.
PAGE_CHARACTERS = 64
#: Claims of a token that say who its guest is, and not when it was made.
_TIMES = ("iat", "exp", "nbf", "jti")


def install(app: Flask) -> None:
    """Have this web process do so where the stack embeds; UntestedVersionError for a Superset of another version."""
    from flask_wtf import CSRFProtect
    from superset.embedded.view import EmbeddedView

    embedding = process_topology.started().superset.embedding
    if embedding is None or os.environ.get(ROLE_ENV) != "web":
        return
    versions.require(__name__)
    app.session_interface = GuestSessions(app.session_interface)
    hooks.replace(CSRFProtect, "protect", __name__, _protect)
    options: dict[str, object] = {
        "frame_options": None,
        "content_security_policy": framed_by(_policy(app), embedding.origins),
    }
    hooks.replace(EmbeddedView, "embedded", __name__, partial(_with_options, options))


def embeds() -> bool:
    """Whether guests of this process are known by their tokens alone."""
    return process_topology.started().superset.embedding is not None


def is_guests(asked: Request) -> bool:
    """Whether it is the request of a guest's page, or the page itself: no cookie counts there, and none is given."""
    from flask import current_app

    return current_app.config["GUEST_TOKEN_HEADER_NAME"] in asked.headers or asked.path.startswith(PATH)


def channel(secret: str, token: Mapping[str, Any], page: str) -> str:
    """The channel of a guest's page: the same with each token of the same guest, and nobody's who lacks `secret`."""
    claims = {name: value for name, value in token.items() if name not in _TIMES}
    said = json.dumps([claims, page[:PAGE_CHARACTERS]], sort_keys=True, default=str)
    return "guest-" + hmac.new(secret.encode(), said.encode(), hashlib.sha256).hexdigest()


def guests_channel(secret: str, asked: Request) -> str | None:
    """The channel of the guest of this request; None for who is none, and where guests have cookies."""
    from superset.extensions import security_manager

    if not embeds():
        return None
    guest: Any = security_manager.get_current_guest_user_if_guest()
    return None if guest is None else channel(secret, guest.guest_token, asked.headers.get(PAGE_HEADER, ""))


def without_guests(handle: Callable[[Response], Response]) -> Callable[[Response], Response]:
    """A handler of answers that leaves alone those to guests."""

    def handled(response: Response) -> Response:
        return response if embeds() and is_guests(request) else handle(response)

    return handled


class GuestSessions(SessionInterface):
    """The sessions that there are, but for guests' requests, each of which has an empty one that nobody keeps."""

    def __init__(self, others: SessionInterface) -> None:
        self._others = others

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """An empty session for a guest's request, the kept one for another."""
        return SecureCookieSession() if is_guests(request) else self._others.open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Keep it, unless it is a guest's."""
        if not is_guests(request):
            self._others.save_session(app, session, response)

    def is_null_session(self, obj: object) -> bool:
        """As the sessions that there are say."""
        return self._others.is_null_session(obj)


def _protect(shipped: Callable[..., None]) -> Callable[..., None]:
    def protect(self: Any, *args: Any, **kwargs: Any) -> None:
        if not is_guests(request):
            shipped(self, *args, **kwargs)

    return protect


def _policy(app: Flask) -> object:
    return cast("dict[str, object]", app.config["TALISMAN_CONFIG"] or {}).get("content_security_policy")


def framed_by(policy: object, origins: tuple[str, ...]) -> str | dict[str, object]:
    """A content security policy, as Talisman takes it, by which these sites and Superset's own may have the page in a frame."""
    ancestors = ["'self'", *origins]
    if isinstance(policy, str):
        kept = [part for part in policy.split(";") if part.split() and part.split()[0] != "frame-ancestors"]
        return "; ".join([*(part.strip() for part in kept), f"frame-ancestors {' '.join(ancestors)}"])
    return {**cast("dict[str, object]", policy or {}), "frame-ancestors": ancestors}


def _with_options(options: dict[str, object], shipped: Callable[..., Any]) -> Callable[..., Any]:
    def embedded(*args: Any, **kwargs: Any) -> Any:
        return shipped(*args, **kwargs)

    # Where Talisman looks for them, for each answer of the view.
    embedded.talisman_view_options = options  # type: ignore[attr-defined]
    return embedded
