# SPDX-License-Identifier: AGPL-3.0-or-later
"""Looking into the book of peers: lists with filters and an order, and what was measured of one peer."""

from __future__ import annotations

import heapq
import math
from typing import Final

import msgspec

from actors.p2p.peer_registry.peer_book import PeerBook
from actors.p2p.peer_registry.peers import PeerRecord
from actors.peer_messages import KnownPeer, ListPeers, PeerPage, Point, SortBy

_HOUR_S: Final = 3600.0


class PeerMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a peer; None = it was not."""

    latency_ms: float | None
    bandwidth_mbps: float | None
    """Millions of bits per second."""
    packet_loss_percent: float | None
    """Always None: packets are the business of TCP."""
    connection_quality: float | None
    """Share of pings that were answered, 0 to 1, moving average."""
    reliability_score: float | None
    """0 to 1, from counted outcomes: the recent ones count most."""
    uptime_hours: float | None
    """Of the connection; None = there is none."""


def page(book: PeerBook, query: ListPeers) -> PeerPage:
    """Those that match."""
    wanted = set(query.capabilities)
    found = []
    for peer_id in book:
        record, status = book.record(peer_id)
        if query.status in {None, status} and wanted.issubset(record.capabilities):
            found.append((_key(record, query.sort_by), peer_id))
    # Those with equal keys are told apart by their ids, so that pages never overlap.
    first = heapq.nsmallest(query.offset + query.limit, found)[query.offset :]
    peers = [peer for _, peer_id in first if (peer := book.get(peer_id)) is not None]
    return PeerPage(peers=peers, total=len(found))


def _key(record: PeerRecord, sort_by: SortBy) -> float:
    if sort_by == "peer_id":
        return 0.0
    if sort_by == "latency":
        return math.inf if record.latency_s is None else record.latency_s
    value = record.bandwidth_bps if sort_by == "bandwidth" else record.last_seen
    return math.inf if value is None else -value


def metrics(peer: KnownPeer, now: float) -> PeerMetrics:
    """What was measured of it, as it is now."""
    return PeerMetrics(
        latency_ms=None if peer.latency_s is None else peer.latency_s * 1e3,
        bandwidth_mbps=None if peer.bandwidth_bps is None else peer.bandwidth_bps / 1e6,
        packet_loss_percent=None,
        connection_quality=peer.answered,
        reliability_score=peer.reputation,
        uptime_hours=None if peer.connected_since is None else max(0.0, now - peer.connected_since) / _HOUR_S,
    )


def history(peer: KnownPeer, hours: float, now: float) -> list[Point]:
    """Its points of the last hours, the oldest first."""
    return [point for point in peer.history if point.at >= now - hours * _HOUR_S]
