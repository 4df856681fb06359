# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is here and where others may find them: what a node tells those that ask whom it knows.

Peers could lie about where they are, to make others dial somebody else. So the IP address that is passed on is always
the one that the peer's own connection has at its other end; only the port is the peer's word. Nor are those far away
told of addresses that mean something near the peer only. Whoever is told believes none of it: a dial proves the peer id
or fails.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from actors.p2p.peer_registry.addresses import ip_of, tcp_port_of

MOST_PEERS: Final = 1000
"""Of whom it is remembered where they are; who said so longest ago goes first."""
MOST_PORTS: Final = 4
"""Of one peer."""
MOST_TOLD: Final = 100
"""Peers in one answer, drawn by chance: so the first ones are not dialled by everybody."""
KEPT_S: Final = 90.0
"""A peer that did not say again where it listens is told of no longer. Linked ones are asked every 30 s."""


class Introductions:
    """See the module's text. Times are of the clock that is given."""

    def __init__(self, now: Callable[[], float], *, most: int = MOST_PEERS) -> None:
        self._now = now
        self._most = most
        self._here: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._here)

    def says(self, peer_id: str, listens: Iterable[str], connection: str) -> None:
        """A peer says at which multiaddrs it listens; `connection` is the one at the other end of its connection."""
        self._here.pop(peer_id, None)
        if places := places_of(listens, connection):
            self._here[peer_id] = (self._now(), places)
            if len(self._here) > self._most:
                self._here.popitem(last=False)

    def for_peer(self, asker: str, connection: str, most: int) -> dict[str, list[str]]:
        """Peers but for the one that asks over this connection, with multiaddrs that may mean something to it."""
        before = self._now() - KEPT_S
        while self._here and next(iter(self._here.values()))[0] < before:
            self._here.popitem(last=False)
        found = {
            peer_id: fitting
            for peer_id, (_, places) in self._here.items()
            if peer_id != asker and (fitting := [place for place in places if may_be_told(place, connection)])
        }
        chosen = random.sample(list(found), min(len(found), most, MOST_TOLD))
        return {peer_id: found[peer_id] for peer_id in chosen}


def places_of(listens: Iterable[str], connection: str) -> list[str]:
    """Where a peer with this connection may be that says that it listens there."""
    ip = ip_of(connection)
    if ip is None:
        return []
    ports = [port for address in listens if (port := tcp_port_of(address))]
    return [f"/ip{ip.version}/{ip}/tcp/{port}" for port in list(dict.fromkeys(ports))[:MOST_PORTS]]


def may_be_told(address: str, connection: str) -> bool:
    """Whether a multiaddr means the same at both ends of a connection, by the address of its other end: this machine's
    own are for this machine, those of a local network for a local network."""
    ip, other = ip_of(address), ip_of(connection)
    if ip is None or ip.is_unspecified or ip.is_multicast:
        return False
    if ip.is_loopback:
        return other is not None and other.is_loopback
    return ip.is_global or (other is not None and not other.is_global)
