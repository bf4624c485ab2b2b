"""Users of an identity provider, a directory or a proxy become Superset's: name, roles and tenant from what that says of them.

One way for every OpenID provider: the claims of the ID token, whose signature, issuer, audience and nonce the client (Authlib)
has checked, and the user's information where a claim is not in it. As shipped, Flask-AppBuilder has a way of its own for each
make of provider, keeps the access token in the session's cookie, which anybody with the browser can read, lets whoever is
called like the stack's administrator at the provider be the administrator, searches a directory with the name unescaped, sends a
browser whose user the proxy does not name round and round, and leaves the next user of that browser in the last one's session.

A subclass of Superset's security manager, or of the team's own: what that says of a user is laid over what the claims say.
Replaces, of `flask_appbuilder.security.manager.BaseSecurityManager` (5.0.2): `get_oauth_user_info`, `set_oauth_session`,
`auth_user_oauth`, `auth_user_ldap`, `auth_user_remote_user`, `auth_roles_mapping`, `get_roles_from_keys`, `load_user` and
`_search_ldap`, and of its views `AuthOAuthView.logout` and `AuthRemoteUserView.login`
(read and tested with Superset 6.1.0); no upstream issue known.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from runtime.environment import process_topology, versions
from topology.model import Topology
from topology.plan import tenant_role
from topology.settings.sign_on import Oidc, SignOn, username_claim

logger = logging.getLogger(__name__)

#: A longer ID token would not fit into the session's cookie (4 KiB with all else).
MOST_ID_TOKEN = 2400
ID_TOKEN = "sign_on_id_token"  # noqa: S105 a key's name
#: What a browser is told whose user the proxy does not name, or names as one who may not log in.
NO_USER = (
    "This Superset takes its users from the proxy in front, which has named no user who may log in. "
    "Open it at the proxy's address, or ask its administrator."
)


def with_manager(topology: Topology, settings: dict[str, object]) -> dict[str, object]:
    """`settings` with a security manager for the stack's sign-on, made of the team's own where there is one."""
    sign_on = topology.superset.sign_on
    if sign_on is None or not (sign_on.oidc or sign_on.ldap or sign_on.remote_user):
        return settings
    versions.require(__name__, "apache-superset", "flask-appbuilder")
    made: dict[str, object] = {
        "CUSTOM_SECURITY_MANAGER": manager(topology, sign_on, settings.get("CUSTOM_SECURITY_MANAGER"))
    }
    if sign_on.remote_user:
        proxies = [ipaddress.ip_network(cidr) for cidr in sign_on.remote_user.proxies]
        variable = str(settings["AUTH_REMOTE_USER_ENV_VAR"])

        def trusted(app: Callable[..., Any]) -> TrustedHeader:
            return TrustedHeader(app, variable, proxies)

        made["ADDITIONAL_MIDDLEWARE"] = [*cast("list[Any]", settings.get("ADDITIONAL_MIDDLEWARE") or []), trusted]
    return {**settings, **made}


class TrustedHeader:
    """WSGI: drops a header that says who the user is, unless a proxy of these networks has sent it."""

    def __init__(self, app: Callable[..., Any], variable: str, proxies: Iterable[Any]) -> None:
        self._app, self._variable, self._proxies = app, variable, tuple(proxies)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """The application's answer."""
        if self._variable in environ and not self._is_proxy(environ):
            del environ[self._variable]
        return self._app(environ, start_response)

    def _is_proxy(self, environ: dict[str, Any]) -> bool:
        # Who is really connected, whatever X-Forwarded-For says.
        original = cast("dict[str, Any]", environ.get("werkzeug.proxy_fix.orig") or {})
        try:
            peer = ipaddress.ip_address(original.get("REMOTE_ADDR") or environ.get("REMOTE_ADDR") or "")
        except ValueError:
            return False
        return any(peer in network for network in self._proxies)


def tenants_roles(topology: Topology) -> dict[str, list[str]]:
    """The role of each tenant that its groups give, by group."""
    found: dict[str, list[str]] = {}
    for tenant in topology.tenants:
        for group in tenant.groups:
            found.setdefault(group, []).append(tenant_role(tenant.id))
    return found


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """What stands in `claims` under a name, or else under a dotted path; None for nothing."""
    if path in claims:
        return claims[path]
    node: Any = claims
    for part in path.split("."):
        if not isinstance(node, dict):
            return None
        node = cast("dict[str, Any]", node).get(part)
    return node


def user_info(oidc: Oidc, claims: Mapping[str, Any]) -> dict[str, Any]:
    """A user as Flask-AppBuilder takes one; empty, with the reason in the log, where the claims do not let them in."""
    for name, value in oidc.required_claims.items():
        if str(claim(claims, name)) != value:
            logger.warning("sign-on refused: claim %s is %r, and must be %r", name, claim(claims, name), value)
            return {}
    name = username_claim(oidc)
    username = claim(claims, name)
    if not isinstance(username, str) or not username:
        logger.warning("sign-on refused: no claim %s. Ask for the scope that has it, or set username_claim", name)
        return {}
    if name == "email" and claims.get("email_verified") is False:
        logger.warning("sign-on refused: the provider has not verified the address %s", username)
        return {}
    groups = claim(claims, oidc.groups_claim)
    return {
        "username": username,
        "email": claims.get("email") or "",
        "first_name": claims.get("given_name") or claims.get("name") or "",
        "last_name": claims.get("family_name") or "",
        "role_keys": [groups] if isinstance(groups, str) else [str(group) for group in groups or ()],
    }


def manager(topology: Topology, sign_on: SignOn, base: Any) -> type:
    """The class of the security manager: `base`, or Superset's own, with this sign-on."""
    from flask import has_request_context, make_response, request, session, url_for
    from flask_appbuilder import expose
    from flask_appbuilder.security.manager import BaseSecurityManager
    from flask_appbuilder.security.views import AuthOAuthView, AuthRemoteUserView
    from flask_login import current_user
    from superset.security import SupersetSecurityManager

    parent: Any = base or SupersetSecurityManager
    said_by_team = parent.get_oauth_user_info is not BaseSecurityManager.get_oauth_user_info

    class OAuthView(AuthOAuthView):
        """Logs out at the provider too."""

        @expose("/logout/")
        def logout(self) -> Any:
            hint, provider = session.pop(ID_TOKEN, None), session.pop("oauth_provider", None)
            answer = super().logout()
            remotes: dict[str, Any] = self.appbuilder.sm.oauth_remotes or {}
            remote = remotes.get(str(provider))
            if remote is None or not (sign_on.oidc and sign_on.oidc.end_session):
                return answer
            try:
                if "end_session_endpoint" not in remote.load_server_metadata():
                    return answer
                back = url_for(f"{self.endpoint}.login", _external=True)
                return remote.logout_redirect(
                    post_logout_redirect_uri=back, id_token_hint=hint, client_id=sign_on.oidc.client_id
                )
            except Exception:
                # The session here has ended whatever the provider does.
                logger.exception("the provider's session could not be ended")
                return answer

    class RemoteUserView(AuthRemoteUserView):
        """Says who is not let in, where the page that asks for a user would send the browser back to here."""

        @expose("/login/")
        def login(self) -> Any:
            answer = super().login()
            if current_user.is_authenticated:
                return answer
            session.pop("_flashes", None)
            return make_response(NO_USER, 401, {"Content-Type": "text/plain; charset=utf-8"})

    class SecurityManager(parent):
        authoauthview = OAuthView
        authremoteuserview = RemoteUserView
        # Superset's page would stand before the proxy's user.
        register_superset_auth_view = sign_on.remote_user is None and parent.register_superset_auth_view

        @property
        def auth_roles_mapping(self) -> dict[str, list[str]]:
            """The stack's roles of groups, and the role of each tenant: a new tenant's without a restart."""
            mapping: dict[str, list[str]] = {group: [*roles] for group, roles in super().auth_roles_mapping.items()}
            for group, roles in tenants_roles(process_topology.current()).items():
                mapping[group] = [*mapping.get(group, []), *roles]
            return mapping

        def get_roles_from_keys(self, role_keys: list[str]) -> set[Any]:
            """The roles of groups; one of a tenant is made with its first user, who need not wait for an administrator."""
            known = tenants_roles(process_topology.current())
            for role in {role for key in role_keys for role in known.get(key, [])}:
                if self.find_role(role) is None:
                    self.add_role(role)
            return super().get_roles_from_keys(role_keys)

        def set_oauth_session(self, provider: str, oauth_response: dict[str, Any]) -> None:
            """Keep what log-out needs, and no access token: the cookie is signed, but not encrypted."""
            session["oauth_provider"] = provider
            token = oauth_response.get("id_token") or ""
            if len(token) <= MOST_ID_TOKEN:
                session[ID_TOKEN] = token

        def get_oauth_user_info(self, provider: str, resp: dict[str, Any]) -> dict[str, Any]:
            """The user of an ID token, with what the team's own manager says of them laid over it."""
            if sign_on.oidc is None:
                return super().get_oauth_user_info(provider, resp)
            info = user_info(sign_on.oidc, self._claims(provider, resp, sign_on.oidc))
            if info and said_by_team:
                return {**info, **super().get_oauth_user_info(provider, resp)}
            return info

        def _claims(self, provider: str, resp: dict[str, Any], oidc: Oidc) -> dict[str, Any]:
            token = cast("dict[str, Any] | None", resp.get("userinfo"))
            if not token:
                raise ValueError("the provider gave no ID token: ask for the scope openid")
            wanted = (username_claim(oidc), oidc.groups_claim, "email", "given_name", *oidc.required_claims)
            remote: Any = self.oauth_remotes[provider]
            if all(claim(token, name) is not None for name in wanted) or not remote.load_server_metadata().get(
                "userinfo_endpoint"
            ):
                return dict(token)
            more: dict[str, Any] = dict(remote.userinfo(token=resp))
            if more.get("sub") != token.get("sub"):
                raise ValueError("the provider's user information is of another user than its ID token")
            return {**more, **token}

        def auth_user_oauth(self, userinfo: dict[str, Any]) -> Any:
            """The user, registered or with new roles as the stack says; None: not let in."""
            if _is_administrator(topology, userinfo.get("username") or userinfo.get("email")):
                return None
            return super().auth_user_oauth(userinfo)

        def auth_user_ldap(self, username: str, password: str) -> Any:
            """The same of a directory."""
            # An empty password is no log-in to a directory, but an anonymous one, which succeeds.
            if _is_administrator(topology, username) or not password:
                return None
            return super().auth_user_ldap(username, password)

        def auth_user_remote_user(self, username: str) -> Any:
            """The same of a proxy."""
            return None if _is_administrator(topology, username) else super().auth_user_remote_user(username)

        def load_user(self, pk: int) -> Any:
            """The user of a session; nobody where the proxy says that the browser is another's now."""
            user = super().load_user(pk)
            if user is None or sign_on.remote_user is None or not has_request_context():
                return user
            named = request.environ.get(self.auth_remote_user_env_var)
            # A token is of whoever has it.
            is_session = session.get("_user_id") == str(pk)
            return None if is_session and named and named.casefold() != user.username.casefold() else user

        def _search_ldap(self, ldap: Any, con: Any, username: str) -> Any:
            from ldap.filter import escape_filter_chars  # pyright: ignore - only an image for directories has it

            return super()._search_ldap(ldap, con, escape_filter_chars(username))

    return SecurityManager


def _is_administrator(topology: Topology, username: str | None) -> bool:
    if username != topology.admin_username:
        return False
    logger.warning("sign-on refused: %r is the stack's administrator, who logs in by password alone", username)
    return True
