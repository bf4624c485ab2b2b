"""What a client of a server over TLS mounts: the authority of the server's certificate, and nothing else of its Secret."""

from __future__ import annotations

from pathlib import PurePosixPath

from pulumi_kubernetes.core import v1 as core

from topology.model import ServerTls
from topology.valkey_conf import AUTHORITY


def authority_volumes(server: str, tls: ServerTls | None) -> list[core.VolumeArgs]:
    """The volume with the authority of the certificate of `server`, where it is not one of the system's or the image's."""
    if tls is None or tls.secret_name is None:
        return []
    # Of the Secret of a server that this project runs, clients get no more than this.
    items = [core.KeyToPathArgs(key=AUTHORITY, path=AUTHORITY)]
    return [
        core.VolumeArgs(name=f"{server}-ca", secret=core.SecretVolumeSourceArgs(secret_name=tls.secret_name, items=items))
    ]


def authority_mounts(server: str, tls: ServerTls | None) -> list[core.VolumeMountArgs]:
    """Where a container has that volume: where the topology says that the file is."""
    if tls is None or tls.secret_name is None or tls.ca_file is None:
        return []
    return [core.VolumeMountArgs(name=f"{server}-ca", mount_path=str(PurePosixPath(tls.ca_file).parent), read_only=True)]
