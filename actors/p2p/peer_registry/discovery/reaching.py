# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node, as the ways of finding peers use it: where it listens, and how it reaches others."""

from __future__ import annotations

from collections.abc import Sequence

from actors.p2p.peer_registry.discovery.interfaces import own_addresses
from actors.p2p.peer_registry.host import Host
from actors.p2p.peer_registry.node import Node
from actors.p2p.peer_registry.stream import PeerStream

_ANYWHERE = {"0.0.0.0": 4, "::": 6}  # noqa: S104


class NodeReaching:
    """See the module's text."""

    def __init__(self, host: Host, node: Node) -> None:
        self.peer_id = host.peer_id
        self._host = host
        self._node = node

    async def announced(self) -> list[str]:
        """Where it listens: multiaddrs with an IP address of this machine, without its id."""
        found: list[str] = []
        for address in self._host.addresses:
            _, kind, ip, *rest = address.rpartition("/p2p/")[0].split("/")
            own = [ip]
            if ip in _ANYWHERE:
                try:
                    own = await own_addresses(_ANYWHERE[ip])
                except OSError:
                    own = []
            found += ["/".join(["", kind, one, *rest]) for one in own]
        return found

    async def reach(self, peer_id: str, places: Sequence[str], timeout_s: float) -> str:
        """Connect to a peer, unless that is done. Returns the multiaddr of the connection, '' when it has just ended.
        Raises `MCPServerError`."""
        await self._node.contacts.reach(peer_id, places, timeout_s=timeout_s)
        return self._node.address_of(peer_id)

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float) -> PeerStream:
        """Over that connection. Raises `MCPServerError`."""
        return await self._host.open_stream(peer_id, protocol, timeout_s)
