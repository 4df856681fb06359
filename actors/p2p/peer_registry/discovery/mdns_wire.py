# SPDX-License-Identifier: AGPL-3.0-or-later
"""Multicast DNS on one interface: a socket that gets what is sent to the group there, and nothing else."""

from __future__ import annotations

import socket
import sys
from typing import Final, Protocol

import trio

from actors.p2p.peer_registry.discovery.mdns_packets import MOST_BYTES

PORT: Final = 5353
_GROUP: Final = "224.0.0.251"
_IP_MULTICAST_ALL: Final = 49
"""Linux; Python has no name for it."""
_BUFFER_BYTES: Final = 128 * 1024


class Wire(Protocol):
    """What is needed of it."""

    async def receive(self) -> tuple[bytes, str, int]:
        """The next packet, the IP address that it says it comes from, and the port. Raises `OSError`."""

    async def send(self, packet: bytes) -> None:
        """To all. Raises `OSError`."""

    def close(self) -> None:
        """End it."""


class MulticastWire:
    """See the module's text. IPv4."""

    def __init__(self, ip: str) -> None:
        """`ip` is this machine's address on that interface. Raises `OSError`."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            interface = socket.inet_aton(ip)
            # Other programs listen there too.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform == "linux":
                raw.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            else:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(_GROUP) + interface)
            # Bound to the group it gets no packet that was sent to this machine alone, from wherever.
            raw.bind((_GROUP, PORT))
            raw.setblocking(False)
            self._socket = trio.socket.from_stdlib_socket(raw)
        except BaseException:
            raw.close()
            raise

    async def receive(self) -> tuple[bytes, str, int]:
        """See `Wire`."""
        data, (ip, port) = await self._socket.recvfrom(MOST_BYTES + 1)
        return data, ip, port

    async def send(self, packet: bytes) -> None:
        """See `Wire`."""
        await self._socket.sendto(packet, (_GROUP, PORT))

    def close(self) -> None:
        """See `Wire`."""
        self._socket.close()
