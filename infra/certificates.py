"""What the provider `tls` makes, for renders that ask for real secrets: keys and certificates, from the inputs that it gets."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.aws_answers import PLACEHOLDER

KEY: Final = "tls:index/privateKey:PrivateKey"
REQUEST: Final = "tls:index/certRequest:CertRequest"
SELF_SIGNED: Final = "tls:index/selfSignedCert:SelfSignedCert"
SIGNED: Final = "tls:index/locallySignedCert:LocallySignedCert"
#: The output of each that others take.
OUTPUTS = {KEY: "privateKeyPem", REQUEST: "certRequestPem", SELF_SIGNED: "certPem", SIGNED: "certPem"}
#: Ends the name of what stands for a private key; the name of its resource stands for a certificate.
KEY_SUFFIX = "-key"
Inputs = Mapping[str, Any]


def mark(name: str) -> str:
    """What stands for the certificate of the resource `name` where none is made."""
    return f"{PLACEHOLDER}-{name}-certificate"


class Issuer:
    """Answers for the provider; what `known` has for a mark is kept, keys under that of their placeholder."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known

    def answer(self, kind: str, name: str, inputs: Inputs) -> str:
        """The output (PEM) of a resource of type `kind`; KeyError for another type."""
        match kind:
            case "tls:index/privateKey:PrivateKey":
                return self._known.get(f"{PLACEHOLDER}-{name}{KEY_SUFFIX}") or _key()
            case "tls:index/certRequest:CertRequest":
                return _request(inputs)
            case "tls:index/selfSignedCert:SelfSignedCert":
                return self._known.get(mark(name)) or _authority(inputs)
            case "tls:index/locallySignedCert:LocallySignedCert":
                return self._known.get(mark(name)) or _signed(inputs)
            case _:
                raise KeyError(kind)


def is_current(certificate: str, names: set[str], hours: int) -> bool:
    """Whether `certificate` (PEM) is of these DNS names, and valid for at least so many hours more."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    shown = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    return set(shown) == names and found.not_valid_after_utc > _now() + datetime.timedelta(hours=hours)


def _key() -> str:
    made = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _load(pem: str) -> ec.EllipticCurvePrivateKey:
    return cast("ec.EllipticCurvePrivateKey", serialization.load_pem_private_key(pem.encode(), None))


def _name(inputs: Inputs) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, inputs["subject"]["commonName"])])


def _request(inputs: Inputs) -> str:
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in inputs["dnsNames"]])
    built = x509.CertificateSigningRequestBuilder().subject_name(_name(inputs)).add_extension(names, critical=False)
    return built.sign(_load(inputs["privateKeyPem"]), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _authority(inputs: Inputs) -> str:
    key, name = _load(inputs["privateKeyPem"]), _name(inputs)
    builder = _builder(inputs, name, name, key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _signed(inputs: Inputs) -> str:
    authority = x509.load_pem_x509_certificate(inputs["caCertPem"].encode())
    request = x509.load_pem_x509_csr(inputs["certRequestPem"].encode())
    key = _load(inputs["caPrivateKeyPem"])
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    builder = (
        _builder(inputs, request.subject, authority.subject, cast("ec.EllipticCurvePublicKey", request.public_key()))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _builder(
    inputs: Inputs, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now())
        .not_valid_after(_now() + datetime.timedelta(hours=inputs["validityPeriodHours"]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
