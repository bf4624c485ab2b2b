"""How clients verify the servers of a stack over TLS. Pure."""

from __future__ import annotations

from topology.model import ServerTls
from topology.settings.tls import ServerCertificate

#: Where containers have the authority of a server's certificate: the key `ca.crt` of its Secret, in a folder of the server's.
CA_FILE = "/etc/server-ca/{server}/ca.crt"


def of_ours(server: str, certificate: ServerCertificate, *, authority: str | None = None) -> ServerTls:
    """TLS of a server that this project runs: its Secret is given, or made under a name of the server's.

    `authority` is the Secret with the authority alone, where that is another one than the server's.
    """
    secret = authority or certificate.secret_name or f"{server}-tls"
    return ServerTls(secret_name=secret, ca_file=CA_FILE.format(server=server), certificate=certificate)


def is_given(tls: ServerTls | None) -> bool:
    """Whether a server of this project's shows a certificate that somebody else puts into its Secret."""
    return bool(tls and tls.certificate and tls.certificate.kind == "secret")


def libpq_options(tls: ServerTls) -> dict[str, str]:
    """Parameters of PostgreSQL's own client library, by which a server is refused that is not the one meant.

    It reads the file at each connection.
    """
    return {"sslmode": "verify-full", "sslrootcert": tls.ca_file or "system"}


def of_others(server: str, ca_secret: str | None) -> ServerTls:
    """TLS of a server that somebody else runs, by the authority in `ca_secret`; None: by those of the system."""
    return ServerTls(secret_name=ca_secret, ca_file=CA_FILE.format(server=server) if ca_secret else None)
