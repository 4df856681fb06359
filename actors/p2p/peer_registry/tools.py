# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of the peer registry, which run in its actor: they are methods of an object that has the service."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from actors.errors import PeerUnreachableError
from actors.p2p.answers import Done
from actors.p2p.peer_registry.peer_query import PeerMetrics, history, metrics
from actors.p2p.peer_registry.remote_tools import RemoteTools
from actors.p2p.peer_registry.service import PeerService
from actors.p2p.peer_registry.tools_remote import RemoteToolTools
from actors.peer_messages import KnownPeer, ListPeers, Point, SortBy, Status
from actors.peer_provided import NOT_PROVIDED
from actors.settings import Settings
from actors.toolkit import tool
from actors.tools.loader import Loaded, load_functions

CATEGORY = "peer_management_tools"

PeerId = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[1-9A-HJ-NP-Za-km-z]+$")]
Address = Annotated[str, Meta(min_length=1, max_length=256, pattern="^/")]
Capability = Annotated[str, Meta(min_length=1, max_length=100)]
Seconds = Annotated[float, Meta(gt=0, le=300)]
Reason = Annotated[str, Meta(max_length=500)]


class PeerShown(msgspec.Struct, kw_only=True):
    """A peer. Times are Unix seconds; what is not known is null."""

    peer_id: str
    multiaddr: str | None
    """Of the connection, else where it is best reached."""
    status: Status
    capabilities: list[str]
    """What it says of itself."""
    connected_since: float | None
    last_seen: float | None
    banned_until: float | None
    metrics: PeerMetrics | None


class Method(msgspec.Struct, kw_only=True):
    """One way of looking for peers."""

    name: str
    outcome: str
    """`ok`, `off`, `not provided`, or why it failed."""


class Found(Done, kw_only=True):
    """What was found."""

    peers: list[PeerShown]
    discovered_count: int
    search_time: float
    """Seconds."""
    methods: list[Method]


class Connected(Done, kw_only=True):
    """A connection."""

    peer_id: str
    multiaddr: str | None
    connection_id: str
    """Names the connection: its peer and when it began."""
    connection_time: float
    """Seconds that it took; 0 = it was there."""
    protocol_version: str | None
    """Of the protocol between Greenroom nodes; null when the peer does not speak it."""
    peer_capabilities: list[str]


class Disconnected(Done, kw_only=True):
    """There is no connection any more."""

    peer_id: str
    was_connected: bool
    graceful: bool
    reason: str
    cleanup_performed: bool
    """It is not connected to again by itself."""


class PeerList(Done, kw_only=True):
    """A page of peers."""

    peers: list[PeerShown]
    total_count: int
    returned_count: int
    has_more: bool


class ConnectionInfo(msgspec.Struct, kw_only=True):
    """Of one peer. Times are Unix seconds."""

    status: Status
    connected_since: float | None
    last_active: float | None
    protocol_version: str | None


class Measured(Done, kw_only=True):
    """What was measured of a peer; null where nothing was."""

    peer_id: str
    current_metrics: PeerMetrics
    connection_info: ConnectionInfo
    history: list[PointShown]
    not_provided: list[str]
    """What nobody measures or offers here, so that nobody waits for it."""


class PointShown(msgspec.Struct, kw_only=True):
    """Ten minutes of a peer's history."""

    at: float
    latency_ms: float | None
    bandwidth_mbps: float | None
    pings: int
    answered: int
    successes: int
    failures: int


class NodeOutcome(msgspec.Struct, kw_only=True):
    """One bootstrap node."""

    address: str
    outcome: str


class NetworkJoined(Done, kw_only=True):
    """What a start from bootstrap nodes came to."""

    connected_count: int
    failed_count: int
    bootstrap_nodes_used: list[NodeOutcome]
    connected_peers: list[str]
    network_ready: bool
    """There are as many connections as were wanted."""
    bootstrap_time: float
    """Seconds."""


class Identity(msgspec.Struct):
    """Who this node is."""

    peer_id: str
    """libp2p peer id."""
    key_type: str
    addresses: list[str]
    """Where it listens."""


NOT_MEASURED: Final = ("packet_loss_percent",)


class PeerTools:
    """See the module's text."""

    def __init__(self, service: PeerService) -> None:
        self._service = service

    @tool(read_only=True, idempotent=True, open_world=False)
    def peer_id(self) -> Identity:
        """The identity of this node in the peer-to-peer network."""
        return Identity(peer_id=self._service.me, key_type="ed25519", addresses=self._service.addresses())

    @tool(open_world=True)
    async def peer_discover(
        self,
        capability_filter: list[Capability] | None = None,
        max_peers: Annotated[int, Meta(ge=1, le=1000)] = 10,
        timeout: Seconds = 30,
        include_metrics: bool = False,
    ) -> Found:
        """Look for peers in every way that is switched on.

        Args:
            capability_filter: Only peers that say they have all of these.
            max_peers: So many at most.
            timeout: Seconds for the search.
            include_metrics: With what was measured of each.
        """
        found = await self._service.discover(capability_filter or [], most=max_peers, timeout_s=timeout)
        return Found(
            peers=[self._shown(peer, with_metrics=include_metrics) for peer in found.peers],
            discovered_count=len(found.peers),
            search_time=found.seconds,
            methods=[Method(name=one.name, outcome=one.outcome) for one in found.methods],
        )

    @tool(open_world=True, idempotent=True)
    async def peer_connect(
        self,
        peer_id: PeerId,
        multiaddr: Address,
        timeout: Seconds = 30,
        retry_count: Annotated[int, Meta(ge=0, le=10)] = 3,
        persist: bool = True,
    ) -> Connected:
        """Connect to a peer.

        Args:
            peer_id: Its id; the connection proves it.
            multiaddr: Where it is, such as /ip4/192.0.2.1/tcp/4001.
            timeout: Seconds in all.
            retry_count: So many further attempts.
            persist: Remember it: it is tried again when it can't be reached, and whenever the connection ends.
        """
        reached, peer = await self._service.connect(
            peer_id, multiaddr, timeout_s=timeout, retries=retry_count, persist=persist
        )
        return Connected(
            peer_id=peer_id,
            multiaddr=peer.address or reached.address or None,
            connection_id=f"{peer_id}@{peer.connected_since or 0:.3f}",
            connection_time=reached.seconds,
            protocol_version=self._service.protocol_version(peer_id),
            peer_capabilities=peer.capabilities,
        )

    @tool(idempotent=True, destructive=True, open_world=True)
    async def peer_disconnect(
        self, peer_id: PeerId, reason: Reason | None = None, graceful: bool = True
    ) -> Disconnected:
        """End the connection with a peer; it is not connected to again by itself.

        Args:
            peer_id: Its id.
            reason: What the peer is told.
            graceful: Say good-bye first.
        """
        self._service.get(peer_id)
        was = await self._service.disconnect(peer_id, reason=reason or "", graceful=graceful)
        return Disconnected(
            peer_id=peer_id, was_connected=was, graceful=graceful, reason=reason or "", cleanup_performed=True
        )

    @tool(read_only=True, open_world=False)
    async def peer_list(
        self,
        status_filter: Status | None = None,
        capability_filter: list[Capability] | None = None,
        sort_by: SortBy = "last_seen",
        limit: Annotated[int, Meta(ge=1, le=1000)] = 100,
        offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0,
    ) -> PeerList:
        """List the peers that are known.

        Args:
            status_filter: Only those.
            capability_filter: Only those that say they have all of these.
            sort_by: The latest, fastest or widest first, or by id.
            limit: So many at most.
            offset: Skip so many.
        """
        query = ListPeers(
            status=status_filter, capabilities=capability_filter or [], sort_by=sort_by, limit=limit, offset=offset
        )
        found = self._service.page(query)
        return PeerList(
            peers=[self._shown(peer, with_metrics=True) for peer in found.peers],
            total_count=found.total,
            returned_count=len(found.peers),
            has_more=found.has_more(query),
        )

    @tool(read_only=True, open_world=False)
    async def peer_metrics(
        self,
        peer_id: PeerId,
        include_history: bool = False,
        history_hours: Annotated[float, Meta(gt=0, le=24)] = 24,
    ) -> Measured:
        """What was measured of a peer.

        Args:
            peer_id: Its id.
            include_history: With its history, ten minutes in each point.
            history_hours: So much of it.
        """
        peer, now = self._service.get(peer_id), self._service.now()
        return Measured(
            peer_id=peer_id,
            current_metrics=metrics(peer, now),
            connection_info=ConnectionInfo(
                status=peer.status,
                connected_since=peer.connected_since,
                last_active=peer.last_seen,
                protocol_version=self._service.protocol_version(peer_id),
            ),
            history=[_point(point) for point in history(peer, history_hours, now)] if include_history else [],
            not_provided=[*NOT_MEASURED, *(feature.name for feature in NOT_PROVIDED)],
        )

    @tool(open_world=True, idempotent=True)
    async def bootstrap_network(
        self,
        bootstrap_nodes: Annotated[list[Address], Meta(max_length=100)] | None = None,
        timeout: Seconds = 60,
        min_connections: Annotated[int, Meta(ge=1, le=100)] = 3,
        max_connections: Annotated[int, Meta(ge=1, le=100)] = 10,
    ) -> NetworkJoined:
        """Connect to nodes to begin with.

        Args:
            bootstrap_nodes: Their addresses, each with /p2p/ and the peer id at its end; null = the configured ones.
            timeout: Seconds in all.
            min_connections: The network is ready with so many.
            max_connections: No more than so many.
        """
        came = await self._service.bootstrap(bootstrap_nodes, timeout_s=timeout, most=max_connections)
        shown = [NodeOutcome(address=one.name, outcome=one.outcome) for one in came.nodes]
        if not came.connected:
            raise PeerUnreachableError(
                "no bootstrap node could be reached" if shown else "no bootstrap node is named or configured",
                nodes=[f"{one.address}: {one.outcome}" for one in shown],
            )
        return NetworkJoined(
            connected_count=len(came.connected),
            failed_count=len(shown) - len(came.connected),
            bootstrap_nodes_used=shown,
            connected_peers=came.connected,
            network_ready=len(came.connected) >= min_connections,
            bootstrap_time=came.seconds,
        )

    def all(self) -> list[Any]:
        """Each of them."""
        return [
            self.peer_id,
            self.peer_discover,
            self.peer_connect,
            self.peer_disconnect,
            self.peer_list,
            self.peer_metrics,
            self.bootstrap_network,
        ]

    def _shown(self, peer: KnownPeer, *, with_metrics: bool) -> PeerShown:
        return PeerShown(
            peer_id=peer.peer_id,
            multiaddr=peer.address or next(iter(peer.addresses), None),
            status=peer.status,
            capabilities=peer.capabilities,
            connected_since=peer.connected_since,
            last_seen=peer.last_seen,
            banned_until=peer.banned_until,
            metrics=metrics(peer, self._service.now()) if with_metrics else None,
        )


def _point(point: Point) -> PointShown:
    return PointShown(
        at=point.at,
        latency_ms=None if point.latency_s is None else point.latency_s * 1e3,
        bandwidth_mbps=None if point.bandwidth_bps is None else point.bandwidth_bps / 1e6,
        pings=point.pings,
        answered=point.answered,
        successes=point.successes,
        failures=point.failures,
    )


def load_peer_tools(settings: Settings, service: PeerService, remote: RemoteTools) -> Loaded:
    """All of them."""
    return load_functions(
        PeerTools(service).all() + RemoteToolTools(remote).all(),
        runtime="p2p",
        actor="peer_registry",
        category=CATEGORY,
        default_timeout_s=settings.runtimes.p2p.timeout,
    )
