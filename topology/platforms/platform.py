"""What a platform decides about a stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from topology.model import Topology
from topology.rule import Rule
from topology.settings import Settings


class Address(NamedTuple):
    """Where clients reach a server."""

    host: str
    port: int


def _all_of(settings: Settings) -> Settings:
    return settings


def _nothing_more(settings: Settings, topology: Topology) -> Topology:
    return topology


@dataclass(frozen=True)
class Platform:
    """A place where a stack runs: addresses, what it can carry out of the settings, and the settings that it refuses.

    A platform that is like another but for a few things is made from it with `dataclasses.replace`.
    """

    #: Address that the web tier and the exporter listen on; "::": every address of both families.
    bind: str
    #: Whether a proxy (an ingress, a gateway, a load balancer) stands before the web tier, so that X-Forwarded-* is its word.
    behind_proxy: bool
    #: Whether one worker process stands for all workers of a pool, and grows and shrinks by itself (Celery's --autoscale).
    elastic_workers: bool
    #: Of a Redis server that this project runs: the settings, the instance's name, and its place in the stack (0, 1).
    redis_address: Callable[[Settings, str, int], Address]
    #: Of the metadata database's server.
    postgres_address: Callable[[Settings], Address]
    #: Of the web tier, inside the platform: users may have another (`web.route`).
    web_address: Callable[[Settings], Address]
    #: Of the exporter of queue metrics.
    exporter_address: Callable[[Settings], Address]
    #: The rules of this platform alone; those of every platform are `topology.invariants`.
    rules: tuple[Rule, ...]
    #: The settings without what this platform cannot carry out and has no reason to refuse, such as replicas on one machine.
    fit: Callable[[Settings], Settings] = _all_of
    #: Whether Redis servers that this project has made show certificates of authorities that every system knows.
    redis_speaks_tls: bool = False
    #: File in the image with the authorities of the metadata database's certificate, where this project has the server made.
    postgres_ca_file: str | None = None
    #: The topology with what this platform alone has of its own.
    complete: Callable[[Settings, Topology], Topology] = _nothing_more
