"""Certificates of the servers that this project runs: where they come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from topology.settings.section import Section
from topology.settings.values import ObjectName

CertificateKind = Literal["secret", "cert-manager", "generated"]


class ServerCertificate(Section):
    """Where servers that this project runs have their certificate from; with one they speak only TLS."""

    kind: CertificateKind = Field(
        description="secret (one that is there), cert-manager (an issuer of the cluster's), generated (an authority that the "
        "stack keeps among its secrets)"
    )
    secret_name: ObjectName | None = Field(
        default=None, validation_alias="secret", description="kind secret: Secret with tls.crt, tls.key and ca.crt"
    )
    issuer: ObjectName | None = Field(
        default=None,
        description="kind cert-manager: name of an issuer that gives its authority (ca.crt), as a private one does",
    )
    issuer_kind: Literal["Issuer", "ClusterIssuer"] = Field(default="Issuer", description="kind cert-manager: what it is")
