"""Rules about the certificates of the servers that this project runs."""

from __future__ import annotations

from collections.abc import Iterator

from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings


def certificates_are_complete(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """Each kind of certificate says what it needs, and nothing that another kind would."""
    for key, certificate in (("redis.tls", settings.redis.tls), ("postgres.tls", settings.postgres.tls)):
        if certificate is None:
            continue
        for name, value, kind, what in (
            ("secret", certificate.secret_name, "secret", "the Secret with tls.crt, tls.key and ca.crt"),
            ("issuer", certificate.issuer, "cert-manager", "the issuer of the certificate"),
        ):
            if certificate.kind == kind and value is None:
                yield Problem(f"{key}.{name}", "null", f"must name {what}", "Name it", also=(f"{key}.kind",))
            if certificate.kind != kind and value is not None:
                yield Problem(
                    f"{key}.{name}",
                    value,
                    f"is not for kind {certificate.kind}",
                    f"Remove it, or set {key}.kind: {kind}",
                    also=(f"{key}.kind",),
                )
