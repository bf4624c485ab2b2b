"""The certificate of servers that this project runs, in a Secret with `tls.crt`, `tls.key` and `ca.crt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import pulumi
import pulumi_tls
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core import v1 as core

from components.common import Scope, metadata, name_of
from topology.model import ServerTls
from topology.settings.tls import ServerCertificate
from topology.valkey_conf import AUTHORITY, CERTIFICATE, KEY

#: Hours for which an authority and a certificate of the stack's own are valid, and before whose end an `up` makes the next one:
#: a certificate of the last year, an authority whose certificates would outlive it. A stack without an `up` for four years must
#: have one. The next authority has the key and the name of the former one, so that each verifies what the other signed.
AUTHORITY_HOURS, AUTHORITY_EARLY_HOURS = 20 * 8766, 6 * 8766
CERTIFICATE_HOURS, CERTIFICATE_EARLY_HOURS = 5 * 8766, 8766
CURVE = "P256"


def service_names(service: str, namespace: str, *, pods: bool = False) -> list[str]:
    """DNS names that a certificate must have for clients of a Service, wherever they ask from, and of its `pods` one by one."""
    return [service, f"{service}.{namespace}.svc", *([f"*.{service}-nodes.{namespace}.svc"] if pods else [])]


def server_volumes(tls: ServerTls | None) -> list[core.VolumeArgs]:
    """The volume `tls` of a server: certificate, key and authority, which its group alone may read; none without TLS."""
    if tls is None:
        return []
    items = [core.KeyToPathArgs(key=key, path=key) for key in (CERTIFICATE, KEY, AUTHORITY)]
    source = core.SecretVolumeSourceArgs(secret_name=tls.secret_name, items=items, default_mode=0o440)
    return [core.VolumeArgs(name="tls", secret=source)]


def server_mounts(tls: ServerTls | None, folder: str) -> list[core.VolumeMountArgs]:
    """That volume in a container, at `folder`."""
    return [core.VolumeMountArgs(name="tls", mount_path=folder, read_only=True)] if tls else []


@dataclass(frozen=True)
class CertificateArgs:
    """What a certificate needs."""

    scope: Scope
    tls: ServerTls
    #: DNS names of the servers.
    names: pulumi.Input[Sequence[str]]
    #: Labels of what is made for it.
    labels: dict[str, str]


class Certificate(pulumi.ComponentResource):
    """The Secret that servers and their clients mount: one that is there, cert-manager's, or the stack's own.

    A renewed certificate is written to the same Secret, and so into the pods that run; servers take it without a restart.
    """

    #: Name of the Secret.
    secret: pulumi.Input[str]

    def __init__(self, name: str, args: CertificateArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:certificate:Certificate", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        wanted, secret = args.tls.certificate, args.tls.secret_name
        if wanted is None or secret is None:
            raise ValueError(f"{name}: the server is somebody else's, and so is its certificate")
        self.secret = secret
        match wanted.kind:
            case "secret":
                pass
            case "cert-manager":
                _issued(name, args, wanted, secret, child)
            case "generated":
                self.secret = _generated(name, args, secret, child)
            case _ as never:
                assert_never(never)
        self.register_outputs({"secret": self.secret})


def _issued(name: str, args: CertificateArgs, wanted: ServerCertificate, secret: str, opts: pulumi.ResourceOptions) -> None:
    """cert-manager's Certificate: valid for its default of 90 days, and renewed in the last third."""
    CustomResource(
        name,
        api_version="cert-manager.io/v1",
        kind="Certificate",
        metadata=metadata(args.scope, name, args.labels),
        spec={
            "secretName": secret,
            # CloudNativePG looks at a Secret again that has this label.
            "secretTemplate": {"labels": {**args.labels, "cnpg.io/reload": "true"}},
            "dnsNames": args.names,
            "usages": ["server auth"],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"group": "cert-manager.io", "kind": wanted.issuer_kind, "name": wanted.issuer},
        },
        opts=opts,
    )


def _generated(name: str, args: CertificateArgs, secret: str, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """The stack's own: an authority for these servers alone, and their certificate. Both keys are secrets of the state."""
    authority_key = pulumi_tls.PrivateKey(f"{name}-ca", algorithm="ECDSA", ecdsa_curve=CURVE, opts=opts)
    authority = pulumi_tls.SelfSignedCert(
        f"{name}-ca",
        private_key_pem=pulumi.Output.secret(authority_key.private_key_pem),
        subject=pulumi_tls.SelfSignedCertSubjectArgs(common_name=f"{name} authority"),
        is_ca_certificate=True,
        set_subject_key_id=True,
        allowed_uses=["cert_signing", "crl_signing"],
        validity_period_hours=AUTHORITY_HOURS,
        early_renewal_hours=AUTHORITY_EARLY_HOURS,
        opts=opts,
    )
    key = pulumi_tls.PrivateKey(name, algorithm="ECDSA", ecdsa_curve=CURVE, opts=opts)
    request = pulumi_tls.CertRequest(
        name,
        private_key_pem=pulumi.Output.secret(key.private_key_pem),
        subject=pulumi_tls.CertRequestSubjectArgs(common_name=name),
        dns_names=args.names,
        opts=opts,
    )
    signed = pulumi_tls.LocallySignedCert(
        name,
        cert_request_pem=request.cert_request_pem,
        ca_private_key_pem=pulumi.Output.secret(authority_key.private_key_pem),
        ca_cert_pem=authority.cert_pem,
        allowed_uses=["digital_signature", "key_agreement", "server_auth"],
        set_subject_key_id=True,
        validity_period_hours=CERTIFICATE_HOURS,
        early_renewal_hours=CERTIFICATE_EARLY_HOURS,
        opts=opts,
    )
    made = core.Secret(
        name,
        metadata=metadata(args.scope, secret, args.labels),
        type="kubernetes.io/tls",
        string_data={
            CERTIFICATE: signed.cert_pem,
            KEY: pulumi.Output.secret(key.private_key_pem),
            AUTHORITY: authority.cert_pem,
        },
        opts=opts,
    )
    return name_of(made.metadata, secret)
