"""Dashboards inside of pages of other sites: which sites, and what their guests are."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from topology.settings.section import Section

#: Browsers take a page of this machine for safe without TLS.
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
#: Superset's own roles: what guests need would be given to all of their users, and on Public it is everybody's.
BUILT_IN_ROLES = ("Admin", "Alpha", "Gamma", "Public", "sql_lab")
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*|\[[0-9a-f:]+\]")
_WRITE = "Write scheme, host and, where it is not the scheme's, port, as in https://portal.example.com"


def _origin(value: str) -> str:
    """`value`, where a browser would send just this as an Origin; ValueError with the rule ("rule|way out")."""
    if "*" in value:
        raise ValueError(f"must name one site: a wildcard would let in whoever gets a host name there|{_WRITE}")
    try:
        parts = urlsplit(value)
        host, port = parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}"), parts.port
    except ValueError:
        raise ValueError(f"must be the origin of a page|{_WRITE}") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError(
            f"must begin with https://: who is between could change the page around (http: this machine's)|{_WRITE}"
        )
    if parts.path or parts.query or parts.fragment or value.endswith(("?", "#")):
        raise ValueError(f"must end with the host or port: a site is let in with all of its pages|{_WRITE}")
    if "@" in parts.netloc or not _HOST.fullmatch(host) or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"must have a host name in lower case, as a browser sends it|{_WRITE}")
    if port == {"https": 443, "http": 80}[parts.scheme]:
        raise ValueError(f"must leave out the port that the scheme has anyway: a browser does|{_WRITE}")
    return value


def _guests_own(role: str) -> str:
    if role in BUILT_IN_ROLES:
        raise ValueError(
            f"must be a role of the guests' own: {role} is Superset's, and others have it|Choose another name, such as Guest"
        )
    return role


Origin = Annotated[str, AfterValidator(_origin)]


class Embedding(Section):
    """Dashboards in pages of other sites, for guests with a token and without cookies: docs/embedding.md."""

    origins: Annotated[tuple[Origin, ...], Field(min_length=1)] = Field(
        strict=False,
        description="sites whose pages may have dashboards in frames, and may call the API with a guest's token, "
        "such as https://portal.example.com",
    )
    role: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_guests_own)] = Field(
        default="Guest", description="role of the guests, which the init job makes: what an administrator adds to it stays"
    )
