"""Where a server listens: at one address, or at every address of both families as far as this kernel has them."""

from __future__ import annotations

import socket

#: What a topology says for "every address".
EVERY_ADDRESS = "::"
_EVERY_IPV4 = "0.0.0.0"  # noqa: S104 the pods' own addresses, behind network policies


def address(bind: str) -> str:
    """`bind` itself; for every address the IPv4 one where the kernel has no IPv6 (`ipv6.disable=1`)."""
    return bind if bind != EVERY_ADDRESS or _has_ipv6() else _EVERY_IPV4


def family(host: str) -> socket.AddressFamily:
    """The family of an address of `address`."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def both_families(listener: socket.socket) -> None:
    """Have `listener`, which is not bound yet, take IPv4 as well where it is of IPv6, whatever the system's default is."""
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


def gunicorn_binds(bind: str, port: int) -> list[str]:
    """gunicorn's `bind`: it takes the system's default for what one IPv6 listener takes, so two where that is IPv6 alone."""
    host = address(bind)
    if host != EVERY_ADDRESS:
        return [f"{host}:{port}"]
    with socket.socket(socket.AF_INET6) as probe:
        alone = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return [*([f"{_EVERY_IPV4}:{port}"] if alone else []), f"[{host}]:{port}"]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((EVERY_ADDRESS, 0))
    except OSError:
        return False
    return True
