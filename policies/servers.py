"""Redis and PostgreSQL servers of a stack, as containers or as AWS resources, with the settings that they run with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from policies.graph import UNKNOWN, Graph, Resource, at, maybe
from policies.workloads import Container, containers, services_of
from topology.quantities import parse_quantity

_REDIS_PROGRAMS = frozenset({"redis-server", "valkey-server", "keydb-server"})
_REDIS_IMAGE = re.compile(r"(^|/)(redis|valkey|keydb)(-stack-server)?([:@]|$)")
_POSTGRES_IMAGE = re.compile(r"(^|/)(postgres|postgresql|timescaledb|postgis)([:@]|$)")
#: Where the official images keep their data.
_DATA = "/data"
_SIZE = re.compile(r"(?i)(\d+)(b|k|kb|m|mb|g|gb)?")
_SIZES = {"": 1, "b": 1, "k": 10**3, "kb": 2**10, "m": 10**6, "mb": 2**20, "g": 10**9, "gb": 2**30}


@dataclass(frozen=True, eq=False)
class RedisServer:
    """One Redis (or Valkey) server, with its replicas."""

    resource: Resource
    #: Directives by name, in lower case; of `save` all values together.
    settings: Mapping[str, str]
    #: Host names at which clients reach it.
    hosts: frozenset[str]
    #: The container, where it runs in a pod; None for ElastiCache.
    container: Container | None = None

    @property
    def policy(self) -> str:
        """Its eviction policy; the server's own default where nothing sets it."""
        return self.settings.get("maxmemory-policy", "noeviction" if self.container else "volatile-lru")

    @property
    def takes_plain(self) -> bool:
        """Whether clients are let in without TLS."""
        return self.settings.get("port", "6379") != "0" or "tls-port" not in self.settings

    @property
    def maxmemory(self) -> int | None:
        """Bytes; None where nothing sets it."""
        match = _SIZE.fullmatch(self.settings.get("maxmemory", ""))
        return int(match[1]) * _SIZES[(match[2] or "").lower()] or None if match else None

    @property
    def writes_to_disk(self) -> bool:
        """Whether it writes an append-only file or snapshots."""
        return self.append_only or self.snapshots

    @property
    def append_only(self) -> bool:
        """Whether it has an append-only file."""
        return self.settings.get("appendonly") == "yes"

    @property
    def snapshots(self) -> bool:
        """Whether it writes snapshots by itself."""
        return self.settings.get("save", "").strip("\"' ") != ""

    @property
    def volume(self) -> dict[str, Any]:
        """The volume of its data, as the pod has it; empty for the container's own file system."""
        return self.container.mount(self.settings.get("dir", _DATA)) if self.container else {}

    @property
    def volume_bytes(self) -> int | None:
        """Size of its claim; None where it has none of its own."""
        size = at(self.volume, "claim", "spec", "resources", "requests", "storage")
        return None if size is None else round(parse_quantity(size))

    @property
    def servers(self) -> int:
        """How many servers there are, replicas included."""
        return self.container.workload.replicas or 1 if self.container else 1


@dataclass(frozen=True, eq=False)
class PostgresServer:
    """One PostgreSQL server, with how many clients it takes (None: a formula says), and whether some of them in clear."""

    resource: Resource
    max_connections: int | None
    reserved: int
    hosts: frozenset[str] = field(default_factory=frozenset[str])
    takes_plain: bool = False


def redis_servers(graph: Graph) -> list[RedisServer]:
    """Every Redis server: in pods, and as ElastiCache replication groups or clusters."""
    found: list[RedisServer] = []
    for container in graph.derive(containers):
        with graph.unless_unknown():
            words = _server_words(container, _REDIS_PROGRAMS, _REDIS_IMAGE)
            if words is not None and "--sentinel" not in words:
                settings = _redis_settings(container, words, graph)
                found.append(RedisServer(container.resource, settings, _hosts(container, graph), container))
    for group in graph.of_type("aws:elasticache/replicationGroup:"):
        with graph.unless_unknown():
            found.append(RedisServer(group, _parameters(group, graph), frozenset(_endpoints(group))))
    for cluster in graph.of_type("aws:elasticache/cluster:"):
        with graph.unless_unknown():
            if cluster.get("engine", default="redis") != "memcached" and cluster.get("replicationGroupId") is None:
                found.append(RedisServer(cluster, _parameters(cluster, graph), frozenset(_endpoints(cluster))))
    return found


def sentinels(graph: Graph) -> list[Container]:
    """Containers that run a Sentinel."""
    found: list[Container] = []
    for container in graph.derive(containers):
        with graph.unless_unknown():
            words = {PurePosixPath(word).name for command in container.commands for word in command}
            if not container.prepares and words & {"redis-sentinel", "valkey-sentinel", "--sentinel"}:
                found.append(container)
    return found


def postgres_servers(graph: Graph) -> list[PostgresServer]:
    """Every PostgreSQL server: in pods, as CloudNativePG clusters and as RDS instances."""
    found: list[PostgresServer] = []
    for container in graph.derive(containers):
        with graph.unless_unknown():
            words = _server_words(container, frozenset({"postgres"}), _POSTGRES_IMAGE)
            if words is not None and container.workload.kind in ("StatefulSet", "Deployment", "Pod"):
                settings = _postgres_settings(words)
                server = _postgres(container.resource, settings, _hosts(container, graph))
                found.append(replace(server, takes_plain=_takes_plain(container, settings, graph)))
    for cluster in graph.of_kind("Cluster"):
        with graph.unless_unknown():
            settings = cluster.get("spec", "postgresql", "parameters", default={})
            names = [_names(f"{cluster.object_name}-{suffix}", cluster.namespace) for suffix in ("rw", "r", "ro")]
            server = _postgres(cluster, settings, frozenset(name for each in names for name in each))
            rules = [str(line).split() for line in cluster.get("spec", "postgresql", "pg_hba", default=[])]
            # They stand before the operator's own, which let in whoever has a password.
            refused = any(rule[:3] == ["hostnossl", "all", "all"] and rule[-1] == "reject" for rule in rules)
            found.append(replace(server, takes_plain=not refused))
    for instance in graph.of_type("aws:rds/instance:"):
        with graph.unless_unknown():
            if str(instance.get("engine", default="")).startswith("postgres"):
                found.append(_postgres(instance, _parameters(instance, graph), frozenset(_endpoints(instance))))
    return found


def _takes_plain(container: Container, settings: Mapping[str, str], graph: Graph) -> bool:
    """Whether a server lets clients in without TLS; as its image does where no file of the stack's says who comes in."""
    file = settings.get("hba_file")
    texts = [str(at(text)) for path, _, text in container.files(graph) if path == file]
    lines = [line.split() for text in texts for line in text.splitlines()]
    plain = any(line and line[0] in ("host", "hostnossl") and line[-1] != "reject" for line in lines)
    return settings.get("ssl", "off") != "on" or not texts or plain


def _postgres(resource: Resource, settings: Mapping[str, Any], hosts: frozenset[str]) -> PostgresServer:
    most = at(settings, "max_connections", default="100")
    reserved = at(settings, "superuser_reserved_connections", default="3")
    # A formula of RDS follows the memory of its class.
    return PostgresServer(resource, int(most) if str(most).isdigit() else None, int(reserved), hosts)


def _server_words(container: Container, programs: frozenset[str], image: re.Pattern[str]) -> list[str] | None:
    """The command line of the server that `container` runs, without the program; None where it runs no such server."""
    if container.prepares:
        return None
    for command in container.commands:
        for place, word in enumerate(command):
            if PurePosixPath(word).name in programs:
                return command[place + 1 :]
    has_command = bool(at(container.spec, "command", default=[]))
    return container.arguments if not has_command and image.search(container.image) else None


def _redis_settings(container: Container, words: list[str], graph: Graph) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, _, text in container.files(graph):
        if path.endswith(".conf"):
            for line in at(text).splitlines():
                name, _, value = line.strip().partition(" ")
                if name and not name.startswith("#"):
                    _set(found, name, value)
    place = 0
    while place < len(words):
        if words[place].startswith("--"):
            values: list[str] = []
            name = words[place][2:]
            while place + 1 < len(words) and not words[place + 1].startswith("--"):
                place += 1
                values.append(words[place])
            _set(found, name, " ".join(values))
        place += 1
    variables = container.environment(graph)
    if "requirepass" not in found and variables.get("REDIS_PASSWORD", "") not in ("", None):
        # The images that take it from the environment have no other use for it.
        found["requirepass"] = "(given)"
    return found


def _set(settings: dict[str, str], name: str, value: str) -> None:
    name, value = name.lower(), value.strip()
    if name == "save" and value.strip("\"'"):
        settings[name] = f"{settings.get(name, '')} {value}".strip()
    else:
        settings[name] = value


def _postgres_settings(words: list[str]) -> dict[str, str]:
    pairs = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "-c"]
    pairs += [word[2:] for word in words if word.startswith("--") and "=" in word]
    pairs += [word[2:] for word in words if word.startswith("-c") and "=" in word]
    return {key.replace("-", "_"): value for key, _, value in (pair.partition("=") for pair in pairs)}


def _hosts(container: Container, graph: Graph) -> frozenset[str]:
    workload = container.workload
    services = [each.object_name for each in services_of(graph, workload)]
    pods = [f"{workload.name}-{number}.{service}" for service in services for number in range(workload.replicas or 1)]
    names = {name for each in (*services, *pods) for name in _names(each, workload.resource.namespace)}
    # Sentinel's clients name the service that it watches, by convention the workload's own name.
    return frozenset({*names, workload.name})


def _names(service: str, namespace: str) -> frozenset[str]:
    full = f"{service}.{namespace}.svc"
    return frozenset({service, f"{service}.{namespace}", full, f"{full}.cluster.local"})


def _parameters(resource: Resource, graph: Graph) -> dict[str, str]:
    """What the parameter group that an AWS resource names sets."""
    name = maybe(resource.inputs, "parameterGroupName")
    for group in graph.of_type("aws:elasticache/parameterGroup:", "aws:rds/parameterGroup:"):
        same = isinstance(name, str) and (maybe(group.inputs, "name") or group.name) == name
        if same or (name is UNKNOWN and group.urn in resource.dependencies):
            return {str(at(each, "name")): str(at(each, "value")) for each in group.get("parameters", default=[])}
    return {}


def _endpoints(resource: Resource) -> list[Any]:
    """What may stand in a URL for an AWS server: its identifier begins each of its endpoints."""
    names = (maybe(resource.inputs, key) for key in ("replicationGroupId", "clusterId", "identifier"))
    return [each for each in (*names, resource.name) if isinstance(each, str)]


def reaches(host: str | None, hosts: frozenset[str]) -> bool:
    """Whether `host` in a URL is a server with `hosts`."""
    if not host:
        return False
    return host in hosts or ("amazonaws" in host and any(host.startswith((f"{each}.", f"master.{each}.")) for each in hosts))


def host_of(url: Any) -> str | None:
    """Host in a URL; None where there is none, or it is not known."""
    return urlsplit(url).hostname if isinstance(url, str) else None
