# SPDX-License-Identifier: AGPL-3.0-or-later
"""What of a multiaddr (https://github.com/multiformats/multiaddr) tells one neighbour from another."""

from __future__ import annotations

import ipaddress
from typing import Final

UNKNOWN: Final = ""
_IPV6_PREFIX: Final = 64
"""Whoever has one IPv6 address has so many bits of them for free."""


def neighbour(multiaddr: str) -> str:
    """The IP address that a peer's connection comes from; for IPv6 its /64. `UNKNOWN` for what has none of its own: a
    name, or the address of a relay."""
    parts = multiaddr.split("/")
    if len(parts) < 3 or parts[0] or "p2p-circuit" in parts:
        return UNKNOWN
    kind, text = (parts[3], parts[4]) if parts[1] == "ip6zone" and len(parts) > 4 else (parts[1], parts[2])
    if kind not in {"ip4", "ip6"}:
        return UNKNOWN
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return str(ip) if ip.is_loopback else str(ipaddress.IPv6Network((int(ip), _IPV6_PREFIX), strict=False))
        ip = ip.ipv4_mapped
    return str(ip)


def is_own_machine(neighbour: str) -> bool:
    """Whether this is the loopback address."""
    return neighbour == "::1" or neighbour.startswith("127.")
