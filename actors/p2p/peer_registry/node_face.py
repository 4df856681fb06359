# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node and its peers in numbers, for operators and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from actors.p2p.peer_registry.linked import Linked
from actors.p2p.peer_registry.node import Node
from actors.p2p.peer_registry.peer_book import PeerBook
from actors.p2p.peer_registry.served import Served
from actors.peer_messages import NodeShown


class NodeFace:
    """Looks at the parts; none of them keeps a number for it that it would not keep anyway."""

    def __init__(self, node: Node, linked: Linked, served: Served) -> None:
        self._node = node
        self._linked = linked
        self._served = served

    def shown(self) -> NodeShown:
        """All of it, now."""
        linked, book, host = self._linked, self._node.book, self._node.host
        connected = {view.peer_id for view in host.connections()}
        pings = latencies(book, connected)
        return NodeShown(
            peer_id=host.peer_id,
            addresses=host.addresses,
            known=len(book),
            connected=len(connected),
            linked=len(linked.links),
            bans=len(book.bans.holding()),
            turned_away=book.turned_away,
            refused=dict(self._node.admission.refused),
            sent=linked.sender.assigned,
            running=linked.runner.running,
            links=linked.links.counts(),
            tool_calls={"link": linked.tools.called} | self._served.tool_calls,
            given=dict(linked.sender.counts),
            taken=dict(linked.runner.counts),
            latency_s=median(pings) if pings else None,
            latency_most_s=max(pings, default=None),
        )


def latencies(book: PeerBook, peer_ids: Iterable[str]) -> list[float]:
    """What the pings of these peers took; those of which none was answered are left out."""
    records = (book.record(peer_id)[0] for peer_id in peer_ids if peer_id in book)
    return [record.latency_s for record in records if record.latency_s is not None]
