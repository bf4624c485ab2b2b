"""How users log in: with an identity provider (OpenID Connect), LDAP, a proxy that knows them, or Superset's own passwords."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from topology.settings.section import Section
from topology.settings.values import Cidr, ObjectName, matching

Provider = Literal["oidc", "okta", "entra", "google", "keycloak"]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SCHEME_PORTS = {"https": 443, "http": 80, "ldaps": 636, "ldap": 389}


def _is_issuer(value: str) -> str:
    """Refuse what no client may take for an issuer: tokens come from there over HTTPS, but for one on this machine."""
    way_out = "Write it as in https://login.example.com/realms/acme, as the provider's own configuration has it"
    url = _split(value, way_out)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
        raise ValueError(f"must be an https URL|{way_out}")
    if url.query or url.fragment or url.username:
        raise ValueError(f"must have no user, query and fragment|{way_out}")
    return value.removesuffix("/.well-known/openid-configuration")


def _is_ldap(value: str) -> str:
    way_out = "Write it as in ldaps://ldap.example.com:636"
    if _split(value, way_out).scheme not in ("ldap", "ldaps"):
        raise ValueError(f"must be an ldaps or ldap URL|{way_out}")
    return value


def _split(value: str, way_out: str) -> SplitResult:
    try:
        url = urlsplit(value)
        url.port  # noqa: B018 read for its check
    except ValueError as error:
        raise ValueError(f"is no URL: {error}|{way_out}") from None
    if not url.hostname:
        raise ValueError(f"names no host|{way_out}")
    return url


#: Each with its way out.
Issuer = Annotated[str, AfterValidator(_is_issuer)]
LdapUrl = Annotated[str, AfterValidator(_is_ldap)]
Claim = Annotated[
    str, matching(r"[^.\s]+(\.[^.\s]+)*", "must be a claim, or a dotted path|Write it as in realm_access.roles")
]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class SecretKey(Section):
    """One value of a Secret that exists in the stack's namespace."""

    secret_name: ObjectName = Field(validation_alias="secret", description="name of the Secret")
    key: Annotated[str, matching(r"[-._a-zA-Z0-9]{1,253}", "must be a key of a Secret|Give the name that it has")] = Field(
        description="key in it"
    )


class Oidc(Section):
    """An identity provider that speaks OpenID Connect; what it can do is read from its issuer's own configuration."""

    provider: Provider = Field(default="oidc", description="which make of provider, for defaults: oidc is any")
    issuer: Issuer = Field(description="URL of the issuer, without /.well-known/openid-configuration")
    client_id: str = Field(description="id of this client at the provider")
    client_secret: SecretKey | None = Field(
        default=None, description="where the client's secret is: an existing Secret; null: superset-async:sign_on_secret"
    )
    scopes: Names = Field(default=("openid", "email", "profile"), description="what is asked for; openid is needed")
    username_claim: Claim | None = Field(
        default=None, description="claim that is the user's name; default: preferred_username, with google email"
    )
    groups_claim: Claim = Field(
        default="groups", description="claim with the user's groups, a dotted path such as realm_access.roles"
    )
    required_claims: dict[str, str] = Field(
        default={}, description="claims that a token must have with just this value, such as hd: example.com with google"
    )
    end_session: bool = Field(
        default=True, description="log-out ends the session at the provider too, where it has an end_session_endpoint"
    )


class Ldap(Section):
    """A directory that checks passwords: Superset finds the user with an account of its own, then logs in as the user."""

    server: LdapUrl = Field(description="URL of the server: ldaps, or ldap with start_tls")
    start_tls: bool = Field(default=False, description="speak TLS on a port that begins without")
    search: str = Field(description="where users are, such as ou=people,dc=example,dc=com")
    search_filter: str | None = Field(default=None, description="which of them may log in, such as (objectClass=person)")
    uid_field: str = Field(
        default="uid", description="attribute that is the user's name; sAMAccountName in Active Directory"
    )
    bind_user: str = Field(description="DN of the account that looks users up")
    bind_password: SecretKey | None = Field(
        default=None, description="where its password is: an existing Secret; null: superset-async:sign_on_secret"
    )
    group_field: str = Field(default="memberOf", description="attribute with the user's groups")
    first_name_field: str = Field(default="givenName", description="attribute")
    last_name_field: str = Field(default="sn", description="attribute")
    email_field: str = Field(default="mail", description="attribute")
    ca_secret_name: ObjectName | None = Field(
        default=None,
        validation_alias="ca_secret",
        description="Secret with the authority of the server's certificate (ca.crt); null: those of the system",
    )
    ca_file: Annotated[str, matching(r"/.+", "must be an absolute path|Write it as in /etc/ssl/ldap-ca.pem")] | None = Field(
        default=None, description="local: file with that authority; null: those of the system"
    )


class RemoteUser(Section):
    """A proxy in front has logged the user in, and says in a header who it is."""

    header: Annotated[str, matching(r"[A-Za-z][A-Za-z0-9-]*", "must be a header|Write it as in X-Forwarded-User")] = Field(
        default="X-Forwarded-User", description="header with the user's name"
    )
    proxies: Annotated[tuple[Cidr, ...], Field(min_length=1)] = Field(
        strict=False, description="networks of the proxies: the header of anybody else is dropped"
    )


class SignOn(Section):
    """Of the first three at most one; with none users log in by the passwords that Superset keeps."""

    oidc: Oidc | None = Field(default=None, description="an identity provider")
    ldap: Ldap | None = Field(default=None, description="a directory")
    remote_user: RemoteUser | None = Field(default=None, description="a proxy in front")
    roles: dict[str, Names] = Field(
        default={}, description="Superset roles of the members of each group (LDAP: its DN); several groups add up"
    )
    registration_role: str | None = Field(
        default="Public", description="role of a user who logs in for the first time; null: only users that exist log in"
    )
    sync_roles: bool = Field(
        default=True, description="roles are taken from the groups at each log-in; false: only at the first"
    )
    cidrs: tuple[Cidr, ...] | None = Field(
        default=None,
        strict=False,
        description="on a cluster: networks of the issuer or directory, where web pods may reach its port; null: the address, or "
        "the Service's namespace, that its host is",
    )

    @property
    def secret_ref(self) -> SecretKey | None:
        """The existing Secret with the client's secret or the directory's password."""
        return self.oidc.client_secret if self.oidc else self.ldap.bind_password if self.ldap else None

    @property
    def needs_secret(self) -> bool:
        """Whether it has a secret at all."""
        return self.oidc is not None or self.ldap is not None

    @property
    def peer(self) -> tuple[str, int] | None:
        """Host and port of the issuer or directory; None for a sign-on that connects to nobody."""
        url = self.oidc.issuer if self.oidc else self.ldap.server if self.ldap else None
        if url is None:
            return None
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or _SCHEME_PORTS[parts.scheme]


def username_claim(oidc: Oidc) -> str:
    """The claim that is the user's name."""
    return oidc.username_claim or ("email" if oidc.provider == "google" else "preferred_username")
