# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the network side of a peer is allowed: addresses, connections, streams, times."""

from __future__ import annotations

import msgspec


class HostRules(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one host. The defaults were tried against attacks; `check` refuses sets that contradict themselves."""

    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    """Multiaddrs to listen on, each an IP address and a TCP port; port 0 = any free one. Empty = only dial."""
    announce: tuple[str, ...] = ()
    """Multiaddrs that peers are told instead of those, such as the ones that a router forwards."""
    max_connections: int = 256
    max_inbound: int = 200
    """Connections that others opened; fewer than `max_connections`, so that there is room for our own."""
    max_per_peer: int = 2
    """Connections with one peer."""
    max_per_address: int = 64
    """Connections from one IPv4 address, or one IPv6 network of 64 bits."""
    max_handshakes_per_address: int = 16
    """The same, of those that have not proven who they are yet."""
    inbound_streams: int = 8
    """Streams that the other side may have open on one connection."""
    max_streams: int = 4096
    """Streams in all."""
    upgrade_s: float = 5.0
    """For the handshake of a connection that somebody opened."""
    negotiate_s: int = 5
    """Whole seconds, to agree on the protocol of a stream."""
    close_s: float = 2.0
    """For all connections to end politely when the host ends; then they are cut."""
    identify_s: float = 5.0
    """For a peer to say what it is."""
    agent: str = "greenroom"
    """The program that we say we are."""
    linger_s: float = 2.0
    """How long a stream whose handler has ended waits for the other side to end it too."""

    def check(self) -> None:
        """Raises `ValueError` that says which limits contradict each other."""
        if not 0 < self.max_inbound < self.max_connections:
            raise ValueError("max_inbound must be above 0 and below max_connections")
        if self.max_streams <= self.max_connections * self.inbound_streams:
            raise ValueError("max_streams must be above max_connections x inbound_streams: peers could use them all up")
        if self.negotiate_s < 1:
            raise ValueError("negotiate_s must be a whole second or more")
