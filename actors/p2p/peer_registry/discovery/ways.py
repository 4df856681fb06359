# SPDX-License-Identifier: AGPL-3.0-or-later
"""The further ways of finding peers that the settings switch on, for this node."""

from __future__ import annotations

from pathlib import Path

import trio

from actors.errors import UnavailableError
from actors.p2p.peer_registry.discovery.candidates import Candidate, Candidates, candidate
from actors.p2p.peer_registry.discovery.mdns import Mdns
from actors.p2p.peer_registry.discovery.peer_file import PeerFile
from actors.p2p.peer_registry.discovery.reaching import NodeReaching
from actors.p2p.peer_registry.discovery.rendezvous import Rendezvous
from actors.p2p.peer_registry.discovery.rendezvous_messages import PROTOCOL
from actors.p2p.peer_registry.discovery.rendezvous_point import RendezvousPoint
from actors.p2p.peer_registry.discovery.way import Way
from actors.p2p.peer_registry.host import Host
from actors.p2p.peer_registry.node import Node
from actors.settings_p2p import ConnectivitySettings, PeerRegistrySettings


class Ways:
    """See the module's text. `run` does their part until cancelled."""

    def __init__(
        self, settings: PeerRegistrySettings, connectivity: ConnectivitySettings, host: Host, node: Node
    ) -> None:
        """Raises `UnavailableError` for an address that is none."""
        discovery, book = settings.discovery, node.book
        self.candidates = Candidates(book.heard, book.__contains__, host.peer_id, trio.current_time)
        self.on: list[Way] = []
        """Those that are on."""
        if discovery.peer_file:
            self.on.append(PeerFile(Path(discovery.peer_file), node.want))
        if discovery.rendezvous:
            self.on.append(
                Rendezvous(
                    NodeReaching(host, node),
                    [_point(text) for text in discovery.rendezvous],
                    self.candidates.found,
                    namespace=discovery.rendezvous_namespace,
                    every_s=settings.peer_discovery_interval,
                )
            )
        if discovery.rendezvous_point:
            host.serve(PROTOCOL, RendezvousPoint(node.violated).serve)
        if discovery.mdns:
            self.on.append(
                Mdns(
                    lambda: host.addresses,
                    self.candidates.found,
                    where=connectivity.listen_host,
                    every_s=settings.peer_discovery_interval,
                )
            )

    async def run(self) -> None:
        """All of them."""
        async with trio.open_nursery() as nursery:
            for way in self.on:
                nursery.start_soon(way.run)


def _point(text: str) -> Candidate:
    try:
        return candidate(text)
    except ValueError as error:
        raise UnavailableError(f"p2p.peer_registry.discovery.rendezvous has {text!r}: {error}") from None
