# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a multiaddr (https://github.com/multiformats/multiaddr) says, and what of it tells one neighbour
from another."""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

UNKNOWN: Final = ""
_ZONE: Final = "/ip6zone/"
_MOST_BYTES: Final = 256
"""Of a multiaddr."""
_IPV6_PREFIX: Final = 64
"""Whoever has one IPv6 address has so many bits of them for free."""

Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def ip_of(multiaddr: str) -> Ip | None:
    """The IP address at the beginning of a multiaddr, IPv4 also where it is written as IPv6; None for a name, an
    address with a zone, a relay, or what is none."""
    parts = multiaddr.split("/")
    if len(parts) < 3 or parts[0] or parts[1] not in {"ip4", "ip6"} or "p2p-circuit" in parts:
        return None
    try:
        ip = ipaddress.ip_address(parts[2])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def tcp_port_of(multiaddr: str) -> int:
    """The TCP port of a multiaddr with an IP address; 0 = there is none."""
    parts = multiaddr.split("/")
    if ip_of(multiaddr) is None or len(parts) < 5 or parts[3] != "tcp" or not parts[4].isascii():
        return 0
    port = int(parts[4]) if parts[4].isdigit() and len(parts[4]) <= 5 else 0
    return port if port <= 65535 else 0


def as_text(raw: bytes) -> str:
    """A multiaddr that came as bytes; '' for what is none, or is too long."""
    from multiaddr import Multiaddr

    if len(raw) > _MOST_BYTES:
        return ""
    try:
        return str(Multiaddr(raw))
    except Exception:  # noqa: BLE001
        return ""


def neighbour(multiaddr: str) -> str:
    """The IP address that a peer's connection comes from; for IPv6 its /64. `UNKNOWN` for what has none of its own: a
    name, or the address of a relay."""
    if multiaddr.startswith(_ZONE):
        _, _, rest = multiaddr.removeprefix(_ZONE).partition("/")
        multiaddr = f"/{rest}"
    ip = ip_of(multiaddr)
    if ip is None:
        return UNKNOWN
    if isinstance(ip, ipaddress.IPv6Address) and not ip.is_loopback:
        return str(ipaddress.IPv6Network((int(ip), _IPV6_PREFIX), strict=False))
    return str(ip)


def is_own_machine(neighbour: str) -> bool:
    """Whether this is the loopback address."""
    return neighbour == "::1" or neighbour.startswith("127.")
