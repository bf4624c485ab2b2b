"""Whom the pods of a stack reach outside of it: the peers that its stack file names, each with its networks and ports.

A NetworkPolicy knows no host names. A peer's networks are those that the stack says; of an IP address, that address; of a Service
of the cluster, the pods of its namespace. `rules` refuses a peer of which nothing is known.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from topology.model import Peer, PodGroup, Topology
from topology.problems import Problem
from topology.settings import Settings
from topology.settings.databases import DatabaseSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Networks that end at the node, with the metadata and the credentials of the machine (RFC 3927, RFC 4291; AWS's own in IPv6).
LINK_LOCAL = ("169.254.0.0/16", "fd00:ec2::/32", "fe80::/10")
#: Where the nodes, the Services and the pods of other namespaces are (RFC 1918, RFC 6598, RFC 4193).
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
#: The ports of SQLAlchemy's dialects where a URI has none.
_PORTS = {
    "cockroachdb": 26257,
    "mariadb": 3306,
    "mssql": 1433,
    "mysql": 3306,
    "oracle": 1521,
    "postgresql": 5432,
    "redshift": 5439,
}


@dataclass(frozen=True)
class _Named:
    """A peer as the stack file has it: what is not known of it is None, or empty."""

    key: str
    pods: tuple[PodGroup, ...]
    host: str | None
    ports: tuple[int, ...]
    cidrs: tuple[str, ...] | None

    @property
    def peer(self) -> Peer:
        """Closed where nothing is known."""
        namespace = None if self.cidrs is not None else _namespace(self.host)
        cidrs = self.cidrs if self.cidrs is not None else _address(self.host)
        return Peer(key=self.key, pods=self.pods, ports=self.ports, cidrs=cidrs, namespace=namespace)


def peers(settings: Settings) -> tuple[Peer, ...]:
    """Everything outside that the stack file names, in its order; what it says too little of is left closed."""
    return tuple(each.peer for each in _named(settings) if each.ports)


def excluded(cidr: str) -> tuple[str, ...]:
    """The networks inside of `cidr` that stay closed: what ends at the node, and in the whole Internet also private ones."""
    whole = ipaddress.ip_network(cidr).prefixlen == 0
    return _closed((*LINK_LOCAL, *(PRIVATE if whole else ())), cidr)


def at_the_node(cidr: str) -> tuple[str, ...]:
    """The networks inside of `cidr` that end at the node."""
    return _closed(LINK_LOCAL, cidr)


def peers_are_known(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A peer without a network and a port could only be let through to anywhere."""
    for each in _named(settings):
        if not each.peer.cidrs and each.peer.namespace is None:
            said = f"{each.host!r} is one" if each.host else "its URI is a secret"
            yield Problem(
                f"{each.key}.cidrs",
                "missing" if each.cidrs is None else "[]",
                f"must be given: a NetworkPolicy knows no host names, and {said}",
                "Name its networks, as in [10.20.0.0/16]; [0.0.0.0/0] is the whole Internet without private networks",
                also=(each.key, f"{each.key}.uri", "platform"),
            )
        if not each.ports:
            yield Problem(
                f"{each.key}.ports",
                "missing",
                "must be given: the URI says none, and its dialect has none that is known here",
                "Say it, as in [8443]",
                also=(each.key, f"{each.key}.uri", "platform"),
            )


def nodes_stay_closed(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """The metadata service gives a pod the machine's own credentials."""
    for each in _named(settings):
        for cidr in each.cidrs or ():
            network = ipaddress.ip_network(cidr)
            if any(is_inside(network, ipaddress.ip_network(closed)) for closed in LINK_LOCAL):
                yield Problem(
                    f"{each.key}.cidrs",
                    cidr,
                    "ends at the node, where the metadata and the credentials of the machine are",
                    "Take it out; resolvers are network.dns and network.dns_cidrs",
                    also=("platform",),
                )


def _named(settings: Settings) -> Iterator[_Named]:
    superset: tuple[PodGroup, ...] = ("superset",)
    for name, database in settings.databases.items():
        if not database.sample:
            yield _of_database(f"databases.{name}", database)
    for key, server in settings.redis.servers().items():
        if existing := server.existing:
            # The exporter counts what is in the broker.
            pods: tuple[PodGroup, ...] = ("superset", "exporter") if server is settings.redis.broker else superset
            yield _Named(f"{key}.existing", pods, existing.host, (existing.port,), existing.cidrs)
    if settings.postgres.kind == "existing":
        yield _Named("postgres", superset, settings.postgres.host, (settings.postgres.port,), settings.postgres.cidrs)
    sign_on = settings.superset.sign_on
    if sign_on and sign_on.peer:
        host, port = sign_on.peer
        yield _Named("superset.sign_on", ("web",), host, (port,), sign_on.cidrs)
    if collector := settings.tracing.peer:
        host, port = collector
        yield _Named("tracing", superset, host, (port,), settings.tracing.cidrs)
    for name, given in settings.network.egress.items():
        yield _Named(f"network.egress.{name}", (given.pods,), None, given.ports, given.cidrs)


def _of_database(key: str, database: DatabaseSettings) -> _Named:
    parts = urlsplit(database.uri) if database.uri else None
    port = (parts.port or _PORTS.get(parts.scheme.partition("+")[0])) if parts else None
    ports = database.ports or ((port,) if port else ())
    return _Named(key, ("superset",), parts.hostname if parts else None, ports, database.cidrs)


def _address(host: str | None) -> tuple[str, ...]:
    try:
        return (str(ipaddress.ip_network(host)),) if host else ()
    except ValueError:
        return ()


def _namespace(host: str | None) -> str | None:
    """Of a Service, by the name that the cluster's DNS has for it from everywhere: `service.namespace.svc`."""
    labels = (host or "").removesuffix(".").removesuffix(".cluster.local").split(".")
    return labels[1] if len(labels) == 3 and labels[2] == "svc" else None


def _closed(networks: Sequence[str], cidr: str) -> tuple[str, ...]:
    wide = ipaddress.ip_network(cidr)
    return tuple(str(each) for each in _outermost(networks) if is_inside(each, wide) and each != wide)


def _outermost(cidrs: Sequence[str]) -> Iterator[Network]:
    """The networks without those that are inside of another."""
    networks = [ipaddress.ip_network(each) for each in cidrs]
    for each in networks:
        if not any(is_inside(each, other) for other in networks if other != each):
            yield each


def is_inside(one: Network, other: Network) -> bool:
    """Whether every address of `one` is one of `other`; False for networks of two families."""
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.subnet_of(other)
    return isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network) and one.subnet_of(other)
