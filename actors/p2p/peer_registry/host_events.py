# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whom this host is connected to: what libp2p tells of its connections, kept as views."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec


class ConnectionView(msgspec.Struct, frozen=True):
    """One open connection."""

    peer_id: str
    address: str
    """The other side's multiaddr; empty when unknown."""
    inbound: bool
    """The other side opened it."""
    since: float
    """Unix time."""
    streams: int
    """Open now, of both sides."""


class Connections:
    """The notifee of a swarm: nothing in it waits, since libp2p awaits it while it dials."""

    def __init__(self, on_connected: Callable[[str], None], on_disconnected: Callable[[str], None]) -> None:
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._open: dict[Any, float] = {}

    def views(self) -> list[ConnectionView]:
        """All open connections, the oldest first."""
        return [
            ConnectionView(
                peer_id=str(conn.muxed_conn.peer_id),
                address=address_of(conn),
                inbound=is_inbound(conn),
                since=since,
                streams=len(conn.get_streams()),
            )
            for conn, since in self._open.items()
        ]

    def of(self, peer_id: str) -> list[Any]:
        """The open connections with this peer."""
        return [conn for conn in self._open if str(conn.muxed_conn.peer_id) == peer_id and not conn.is_closed]

    async def connected(self, _network: object, conn: Any) -> None:  # noqa: ANN401
        """A connection can be used."""
        peer = str(conn.muxed_conn.peer_id)
        if conn.is_closed:
            return  # its end was told before its beginning
        first = not self.of(peer)
        self._open[conn] = time.time()
        if first:
            self._on_connected(peer)

    async def disconnected(self, network: Any, conn: Any) -> None:  # noqa: ANN401
        """A connection has ended."""
        peer = str(conn.muxed_conn.peer_id)
        if self._open.pop(conn, None) is None or self.of(peer):
            return
        # What a stranger said of itself is not kept for longer than it is here.
        if network.peerstore.has_peer(conn.muxed_conn.peer_id):
            network.peerstore.clear_peerdata(conn.muxed_conn.peer_id)
        self._on_disconnected(peer)

    async def opened_stream(self, _network: object, _stream: object) -> None:
        """Nothing to do."""

    async def closed_stream(self, _network: object, _stream: object) -> None:
        """Nothing to do."""

    async def listen(self, _network: object, _address: object) -> None:
        """Nothing to do."""

    async def listen_close(self, _network: object, _address: object) -> None:
        """Nothing to do."""


def address_of(conn: Any) -> str:  # noqa: ANN401
    """The multiaddr of a connection's other side; empty when unknown."""
    addresses = conn.get_transport_addresses()
    return str(addresses[0]) if addresses else ""


def is_inbound(conn: Any) -> bool:  # noqa: ANN401
    """Whether the other side opened the connection."""
    return str(conn.direction) == "inbound"
