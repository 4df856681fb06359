# SPDX-License-Identifier: AGPL-3.0-or-later
"""What this node offers of the ways to find and to reach peers, and why it does not offer the others: the one place
that says so, for the settings, the tools and the pages."""

from __future__ import annotations

from typing import Final

import msgspec

_DISCOVERY: Final = "p2p.peer_registry.discovery"
_CONNECTIVITY: Final = "p2p.connectivity"


class Feature(msgspec.Struct, frozen=True):
    """One of them."""

    name: str
    setting: str
    """Switches it on; '' = there is none."""
    why_not: str = ""
    """Why it is not provided; '' = it is."""

    @property
    def provided(self) -> bool:
        """Whether it can be had."""
        return not self.why_not


FEATURES: Final = (
    Feature("peer_file", f"{_DISCOVERY}.peer_file"),
    Feature("mdns", f"{_DISCOVERY}.mdns"),
    Feature("rendezvous", f"{_DISCOVERY}.rendezvous"),
    Feature(
        "dht",
        f"{_DISCOVERY}.dht",
        "libp2p 0.8.1 dials whatever address an answer names, past this node's own rules: one peer's answers made it "
        "open 47 connections to a third party in 30 s",
    ),
    Feature(
        "circuit_relay",
        f"{_CONNECTIVITY}.circuit_relay",
        "a relayed connection has no address of its own, so that no limit and no ban by address holds for it, and any "
        "connected peer can bring such connections",
    ),
    Feature(
        "autonat",
        f"{_CONNECTIVITY}.autonat",
        "libp2p 0.8.1 takes the connection that is there for the one it should make: it calls a node reachable that "
        "listens nowhere",
    ),
    Feature(
        "hole_punching",
        f"{_CONNECTIVITY}.hole_punching",
        "it needs a relay, and a port that several sockets share, which would let other programs take this node's "
        "connections",
    ),
    Feature("quic", "", "libp2p 0.8.1 breaks streams that are idle for 30 s, and notices dead peers late"),
)
"""Ways to find peers first, in the order in which they are told."""

WAYS: Final = tuple(one for one in FEATURES if one.setting.startswith(_DISCOVERY))
"""To find peers."""
NOT_PROVIDED: Final = tuple(one for one in FEATURES if not one.provided)
