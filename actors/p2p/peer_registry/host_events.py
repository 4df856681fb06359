# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whom this host is connected to: what libp2p tells of its connections, kept as views."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from actors.p2p.peer_registry.background import Background


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

    def __init__(
        self,
        background: Background,
        on_connected: Callable[[str], None],
        on_disconnected: Callable[[str], None],
    ) -> None:
        self._background = background
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._open: dict[Any, float] = {}
        self._told: set[str] = set()

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
            if not conn.is_closed
        ]

    def of(self, peer_id: str) -> list[Any]:
        """The open connections with this peer."""
        return [conn for conn in self._open if str(conn.muxed_conn.peer_id) == peer_id and not conn.is_closed]

    async def connected(self, network: Any, conn: Any) -> None:  # noqa: ANN401
        """A connection can be used."""
        peer = str(conn.muxed_conn.peer_id)
        if conn.is_closed:
            return  # its end was told before its beginning
        self._open[conn] = time.time()
        self._background.start(partial(self._until_closed, network.peerstore, conn))
        if peer not in self._told:
            self._told.add(peer)
            self._on_connected(peer)

    async def _until_closed(self, peer_store: Any, conn: Any) -> None:  # noqa: ANN401
        await conn.event_closed.wait()
        peer = str(conn.muxed_conn.peer_id)
        del self._open[conn]
        if self.of(peer) or peer not in self._told:
            return
        self._told.remove(peer)
        # What a stranger said of itself is not kept for longer than it is here.
        if peer_store.has_peer(conn.muxed_conn.peer_id):
            peer_store.clear_peerdata(conn.muxed_conn.peer_id)
        self._on_disconnected(peer)

    async def disconnected(self, _network: object, _conn: object) -> None:
        """Nothing to do: it is said late, and not always."""

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
