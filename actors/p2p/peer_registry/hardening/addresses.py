# SPDX-License-Identifier: AGPL-3.0-or-later
"""How much of a host one address may take."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from actors.p2p.peer_registry.hardening.limits import CONNECTIONS_PER_ADDRESS, HANDSHAKES_PER_ADDRESS

_OWN_IPV6_BITS = 64
"""Who has one IPv6 address has a network of that many bits."""


class Shares:
    """Counts the connections that come from each address."""

    def __init__(self, connections: int = CONNECTIONS_PER_ADDRESS, handshakes: int = HANDSHAKES_PER_ADDRESS) -> None:
        self._most = {"connection": connections, "handshake": handshakes}
        self._taken: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def one(self, what: str, address: str) -> Generator[bool]:
        """Whether the address may have one more connection, or one more in its handshake; it is counted meanwhile."""
        key = (what, owner(address))
        self._taken[key] += 1
        try:
            yield self._taken[key] <= self._most[what]
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]

    def __len__(self) -> int:
        return len(self._taken)


def shares(swarm: Any) -> Shares:  # noqa: ANN401
    """Those of a swarm."""
    found: Shares | None = getattr(swarm, "greenroom_shares", None)
    if found is None:
        found = swarm.greenroom_shares = Shares()
    return found


def owner(address: str) -> str:
    """What is counted as one: an IPv4 address, or the network of an IPv6 address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if ip.version == 4:
        return str(ip)
    return str(ipaddress.ip_network((ip, _OWN_IPV6_BITS), strict=False))
