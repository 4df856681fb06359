# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the peer registry tells of this node and its peers, and how it is asked. Times are Unix seconds; what was not
measured is None.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

Status = Literal["connected", "connecting", "disconnected"]


class Point(msgspec.Struct, frozen=True, array_like=True):
    """What was measured of a peer in ten minutes of its history."""

    at: float
    """Their end."""
    latency_s: float | None = None
    """Mean time of a ping."""
    bandwidth_bps: float | None = None
    """Bits per second of what was transferred."""
    pings: int = 0
    answered: int = 0
    """Of these pings."""
    successes: int = 0
    failures: int = 0


class KnownPeer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a peer at one moment."""

    peer_id: str
    status: Status
    connected_since: float | None
    address: str
    """Of the connection; empty = none, or unknown."""
    addresses: list[str]
    """Multiaddrs at which it may be reached, the best one first."""
    capabilities: list[str]
    """What it says that it can do: a claim."""
    protocols: list[str]
    agent: str
    first_seen: float
    """When it was first heard of."""
    last_seen: float | None
    """When it was last here; None = only others told of it."""
    latency_s: float | None
    """Moving average of pings."""
    bandwidth_bps: float | None
    """Bits per second, moving average of real transfers."""
    answered: float | None
    """Share of pings that were answered, moving average."""
    successes: int
    failures: int
    lies: int
    """Results that proved wrong."""
    speed: float | None
    """Tasks per second, moving average."""
    reputation: float | None
    """0 to 1; None = it did nothing so far."""
    banned_until: float | None
    """None = it is not banned."""
    ban_reason: str
    persistent: bool
    """It is connected to again whenever the connection ends."""
    history: list[Point]
    """The oldest first."""

    @property
    def success_share(self) -> float | None:
        """Of all counted outcomes; None = there are none."""
        whole = self.successes + self.failures
        return self.successes / whole if whole else None


SortBy = Literal["last_seen", "latency", "bandwidth", "peer_id"]


class ListPeers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `peers/list` -> `PeerPage`: which peers, and in which order."""

    status: Status | None = None
    capabilities: list[str] = []
    """They claim to have all of these."""
    sort_by: SortBy = "last_seen"
    """The latest, fastest and widest first; those that this is not known of come last."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, Meta(ge=0)] = 0


class PeerPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of those that match."""

    peers: list[KnownPeer]
    total: int

    def has_more(self, query: ListPeers) -> bool:
        """There are others behind them."""
        return query.offset + len(self.peers) < self.total


class ConnectPeer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `peers/connect` -> `KnownPeer`."""

    address: str
    """A multiaddr with `/p2p/` and the peer id at its end."""
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 30.0
    persist: bool = True
    """Remember it, and connect again whenever the connection ends."""


class DisconnectPeer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `peers/disconnect` -> `PeerChanged`."""

    peer_id: str
    reason: str = ""


class BanPeer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `peers/ban` -> `BanShown`."""

    peer_id: str
    reason: str = ""


class ForgivePeer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `peers/forgive` -> `PeerChanged`."""

    subject: str
    """A peer id, or an IP address as `peers/bans` names it."""


class PeerChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Something was asked for that may have been so before."""

    changed: bool
    """There was a connection to end, or something to forgive."""


Way = Literal["link", "mcp"]
"""How a peer's tool is called: over the link between Greenroom nodes, or by MCP (`/mcp+p2p/1.0.0`)."""


class ListPeerTools(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `peers/tools` -> `PeerToolList`: the tools that a connected peer lets this node call."""

    peer_id: str
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 10.0


class PeerTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as its peer describes it: a claim."""

    name: str
    description: str
    input_schema: bytes
    """JSON text."""


class PeerToolList(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    tools: list[PeerTool]


class CallPeerTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `peers/call` -> `PeerToolAnswer`. It is done once; whoever asks twice has it done twice."""

    peer_id: str
    tool: Annotated[str, Meta(min_length=1, max_length=200)]
    arguments: bytes = b"{}"
    """A JSON object."""
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 30.0


class PeerToolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer's tool gave."""

    value: bytes
    """JSON text: its structured content; else its text, when that is all there is; else its content."""
    way: Way


class BanShown(msgspec.Struct, frozen=True, kw_only=True):
    """One ban that holds."""

    subject: str
    """A peer id or an IP address."""
    until: float
    reason: str


class BanList(msgspec.Struct, frozen=True, kw_only=True):
    """Method `peers/bans` (null): those that hold, those that end first at the beginning."""

    bans: list[BanShown]


class LinkCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What went over links with other Greenroom nodes since the peer registry started, ended links included."""

    asked: int = 0
    """Requests of this node that peers answered, but for refusals and errors."""
    answered: int = 0
    """Requests of peers that were answered here, refusals and errors included."""
    busy: int = 0
    """Requests of peers that came while this node worked on as many of that peer as it takes."""
    bytes_in: int = 0
    bytes_out: int = 0
    endings: dict[str, int] = {}
    """How links ended; see `Cause` of `peer_registry/link/reasons.py`."""


class NodeShown(msgspec.Struct, frozen=True, kw_only=True):
    """Method `peers/me` (null): this node, and its peers in numbers. Counts are since the peer registry started."""

    peer_id: str
    addresses: list[str]
    """Where it listens."""
    known: int
    """Peers in the book."""
    connected: int
    linked: int
    """Of these, Greenroom nodes with which there is a link."""
    bans: int
    turned_away: int
    """Peers that there was no room for in the book."""
    refused: dict[str, int]
    """What peers were refused, by error code."""
    sent: int
    """Tasks that are with peers now."""
    running: int
    """Tasks of peers that run here now."""
    links: LinkCounts
    tool_calls: dict[str, int]
    """Calls of tools by peers that were let through, by the way that they came: `link`, `mcp` or `queue`."""
    given: dict[str, int]
    """What became of tasks that were to go to peers; see `GIVEN`."""
    taken: dict[str, int]
    """What became of tasks that peers offered; see `TAKEN`."""
    latency_s: float | None
    """Median of the pings of connected peers, each a moving average; None = none was measured."""
    latency_most_s: float | None
    """The slowest of them."""


GIVEN: Final = ("accepted", "completed", "failed", "lost", "lied", "given_back", "cancelled", "not_accepted")
"""`accepted` by a peer, and how that ended: `completed` or `failed` there; `lost` with its peer, its lease or the
answer to an offer; the peer `lied` about the result; `given_back` since this node stopped; `cancelled` by its owner.
`not_accepted`: no peer took it. A task counts as often as it is leased."""
TAKEN: Final = ("accepted", "refused", "told", "dropped")
"""Offers that were `accepted` or `refused`; results that their node was `told`; work that was `dropped`, because it was
not wanted any more or its node was gone for too long."""
