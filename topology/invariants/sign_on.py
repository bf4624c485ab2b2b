"""Rules about how users log in."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings

_KEY = "superset.sign_on"


def one_way_to_sign_on(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Users log in in one way; groups have a meaning only where the sign-on says them."""
    sign_on = settings.superset.sign_on
    ways = [] if sign_on is None else [name for name in ("oidc", "ldap", "remote_user") if getattr(sign_on, name)]
    if len(ways) > 1:
        yield Problem(_KEY, ", ".join(ways), "must have one way to log in", "Keep one of them")
    with_groups = sign_on is not None and bool(sign_on.oidc or sign_on.ldap)
    if sign_on is not None and sign_on.roles and not with_groups:
        fix = "Take it out; such users have the registration role, and what an administrator gives them"
        yield Problem(f"{_KEY}.roles", "…", "needs groups, which only oidc and ldap say", fix)
    for tenant_id, tenant in settings.tenants.items():
        if tenant.groups and not with_groups:
            yield Problem(
                f"tenants.{tenant_id}.groups",
                ", ".join(tenant.groups),
                "needs a sign-on that says a user's groups",
                f"Set {_KEY}.oidc or {_KEY}.ldap, or recognise the tenant by users or roles",
                also=(_KEY, "superset"),
            )
        elif tenant.groups and sign_on is not None and not sign_on.sync_roles:
            yield Problem(
                f"{_KEY}.sync_roles",
                "false",
                f"would leave users in tenant {tenant_id!r} after they have left its groups",
                "Set it to true, or recognise the tenant by users or roles",
                also=(f"tenants.{tenant_id}.groups", "tenants"),
            )


def sign_on_is_safe(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """No password travels in clear, nobody's account of everybody's provider is let in, and tokens are of this client."""
    sign_on = settings.superset.sign_on
    if sign_on is None:
        return
    if sign_on.ldap:
        scheme = urlsplit(sign_on.ldap.server).scheme
        if (scheme == "ldap") != sign_on.ldap.start_tls:
            yield Problem(
                f"{_KEY}.ldap.start_tls",
                str(sign_on.ldap.start_tls).lower(),
                "would send passwords in clear" if scheme == "ldap" else "is for ldap:// alone: ldaps:// speaks TLS at once",
                "Set it to true, or use ldaps://" if scheme == "ldap" else "Set it to false",
                also=(f"{_KEY}.ldap.server",),
            )
    if sign_on.oidc:
        if "openid" not in sign_on.oidc.scopes:
            yield Problem(f"{_KEY}.oidc.scopes", ", ".join(sign_on.oidc.scopes), "must have openid", "Add it")
        if sign_on.oidc.provider == "google" and sign_on.registration_role and not sign_on.oidc.required_claims:
            yield Problem(
                f"{_KEY}.oidc.required_claims",
                "none",
                "would let in whoever has an account with Google",
                "Add hd: and your domain, or set registration_role to null",
                also=(f"{_KEY}.registration_role",),
            )


def secrets_are_where_the_platform_looks(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A Secret of Kubernetes is none on this machine, and a file of this machine is none in a pod."""
    given = settings.superset
    local = settings.platform == "local"
    names = {f"superset.env.{name}.secret": each.secret_name for name, each in given.env.items()}
    if given.sign_on:
        kind = "oidc.client_secret" if given.sign_on.oidc else "ldap.bind_password"
        names[f"{_KEY}.{kind}"] = given.sign_on.secret_ref.secret_name if given.sign_on.secret_ref else None
        if given.sign_on.ldap:
            names[f"{_KEY}.ldap.ca_secret"] = given.sign_on.ldap.ca_secret_name
            if given.sign_on.ldap.ca_file and not local:
                fix = "Name a Secret with ca.crt as ca_secret"
                yield Problem(f"{_KEY}.ldap.ca_file", given.sign_on.ldap.ca_file, "is for platform local only", fix)
    for key, name in names.items():
        if name is not None and local:
            fix = "Leave it out: on this machine the value comes from the environment of make up"
            yield Problem(key, name, "is not for platform local", fix, also=("platform",))
