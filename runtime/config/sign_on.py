"""How users log in: Flask-AppBuilder's settings of an identity provider, a directory, a proxy in front, or its own passwords."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.environment.process_topology import role
from runtime.environment.secrets import ConfigurationError
from topology.commands import LDAP_CA_FILE, SIGN_ON_SECRET_ENV
from topology.model import Topology
from topology.settings.sign_on import Ldap, Oidc, SignOn

#: Flask-AppBuilder's numbers of ways to log in.
AUTH_DB, AUTH_LDAP, AUTH_REMOTE_USER, AUTH_OAUTH = 1, 2, 3, 4
_ICONS = {"google": "fa-google", "entra": "fa-windows", "okta": "fa-circle-o", "keycloak": "fa-key", "oidc": "fa-sign-in"}


def settings(topology: Topology, env: Mapping[str, str]) -> dict[str, object]:
    """The settings of the stack's sign-on; none where users log in by Superset's own passwords.

    The secret is the web tier's alone: ConfigurationError where that lacks it. Nobody logs in anywhere else.
    """
    sign_on = topology.superset.sign_on
    if sign_on is None:
        return {}
    secret = env.get(SIGN_ON_SECRET_ENV, "")
    if sign_on.needs_secret and not secret and role(env) == "web":
        raise ConfigurationError(
            f"stack {topology.stack!r}: {SIGN_ON_SECRET_ENV} is not set. Give it the secret of superset.sign_on"
        )
    common: dict[str, object] = {
        "AUTH_USER_REGISTRATION": sign_on.registration_role is not None,
        "AUTH_USER_REGISTRATION_ROLE": sign_on.registration_role or "Public",
        "AUTH_ROLES_MAPPING": {group: [*roles] for group, roles in sign_on.roles.items()},
        "AUTH_ROLES_SYNC_AT_LOGIN": sign_on.sync_roles and bool(sign_on.oidc or sign_on.ldap),
    }
    if sign_on.oidc:
        return {**common, "AUTH_TYPE": AUTH_OAUTH, "OAUTH_PROVIDERS": [provider(sign_on.oidc, secret)]}
    # The log-in page of Superset 6.1 asks for it where users are registered but by OAuth, and breaks where it is not set.
    common["RECAPTCHA_PUBLIC_KEY"] = ""
    if sign_on.ldap:
        return {**common, "AUTH_TYPE": AUTH_LDAP, **_ldap(sign_on.ldap, secret)}
    if sign_on.remote_user:
        variable = "HTTP_" + sign_on.remote_user.header.upper().replace("-", "_")
        return {**common, "AUTH_TYPE": AUTH_REMOTE_USER, "AUTH_REMOTE_USER_ENV_VAR": variable}
    return {**_database(sign_on), "AUTH_TYPE": AUTH_DB}


def _database(sign_on: SignOn) -> dict[str, object]:
    # Whoever could open the page would make an account: an administrator makes them.
    return {"AUTH_USER_REGISTRATION": False}


def provider(oidc: Oidc, secret: str) -> dict[str, object]:
    """Flask-AppBuilder's description of an identity provider: all that it can do is in its issuer's own configuration."""
    return {
        "name": oidc.provider,
        "icon": _ICONS[oidc.provider],
        "token_key": "access_token",
        "remote_app": {
            "client_id": oidc.client_id,
            "client_secret": secret,
            "server_metadata_url": f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration",
            # Whoever takes the code from the browser cannot use it.
            "client_kwargs": {"scope": " ".join(oidc.scopes), "code_challenge_method": "S256"},
        },
    }


def _ldap(ldap: Ldap, password: str) -> dict[str, object]:
    ca_file = LDAP_CA_FILE if ldap.ca_secret_name else ldap.ca_file
    return {
        "AUTH_LDAP_SERVER": ldap.server,
        "AUTH_LDAP_USE_TLS": ldap.start_tls,
        "AUTH_LDAP_ALLOW_SELF_SIGNED": False,
        "AUTH_LDAP_TLS_DEMAND": True,
        **({"AUTH_LDAP_TLS_CACERTFILE": ca_file} if ca_file else {}),
        "AUTH_LDAP_SEARCH": ldap.search,
        "AUTH_LDAP_SEARCH_FILTER": ldap.search_filter or "",
        "AUTH_LDAP_UID_FIELD": ldap.uid_field,
        "AUTH_LDAP_BIND_USER": ldap.bind_user,
        "AUTH_LDAP_BIND_PASSWORD": password,
        "AUTH_LDAP_GROUP_FIELD": ldap.group_field,
        "AUTH_LDAP_FIRSTNAME_FIELD": ldap.first_name_field,
        "AUTH_LDAP_LASTNAME_FIELD": ldap.last_name_field,
        "AUTH_LDAP_EMAIL_FIELD": ldap.email_field,
    }
