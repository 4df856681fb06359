# SPDX-License-Identifier: AGPL-3.0-or-later
"""The links of this node with other Greenroom nodes, and what is done when one comes or goes.

Whoever dialled a connection keeps a link on it; the other side serves it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import trio

from actors.errors import MCPServerError
from actors.logs import get_logger
from actors.p2p.peer_registry.admission import Admission, Caller
from actors.p2p.peer_registry.host import Host
from actors.p2p.peer_registry.introductions import may_be_told
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.links import PROTOCOL, Links, open_links
from actors.p2p.peer_registry.link.messages import FindPeers, PeersFound
from actors.p2p.peer_registry.link.reasons import Cause
from actors.p2p.peer_registry.link.side import OwnSide
from actors.p2p.peer_registry.link_work import LinkWork
from actors.p2p.peer_registry.sharing.sender import Sender
from actors.p2p.peer_registry.stream import PeerStream
from actors.peer_messages import LinkCounts

REFRESH_S: Final = 30.0
"""Between two questions for what a peer offers."""
_OPEN_S: Final = 10.0
_ASK_S: Final = 10.0
_AGAIN_S: Final = 2.0
"""Between the first two: those that came together are not all known to each other at once."""
_EXCHANGED_WITH: Final = 8
"""Nodes that are asked whom they know, at once."""


class NodeLinks:
    """See the module's text. Nothing is linked before `run` has started."""

    def __init__(
        self,
        host: Host,
        side: OwnSide,
        admission: Admission,
        work: LinkWork,
        sender: Sender,
        violated: Callable[[str, str], None],
    ) -> None:
        """`violated` hears of peers that break the link's rules."""
        self._host = host
        self._side = side
        self._admission = admission
        self._work = work
        self._sender = sender
        self._violated = violated
        self.wants_peers: Callable[[], bool] = lambda: False
        """Whether there are fewer peers than wanted, so that linked nodes are asked whom they know."""
        self.on_introduced: Callable[[dict[str, list[str]]], None] = lambda _: None
        """Told of peers and multiaddrs that a linked node tells of. It must not wait."""
        self._links: Links | None = None
        self._past = LinkCounts()
        """Of links that have ended."""
        self._kept: set[str] = set()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    # --- which there are -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.all())

    def all(self) -> list[Link]:
        """Those on which calls can be made."""
        return self._links.all() if self._links is not None else []

    def get(self, peer_id: str) -> Link | None:
        """The link with this node on which calls can be made."""
        return self._links.get(peer_id) if self._links is not None else None

    def counts(self) -> LinkCounts:
        """What went over all links so far."""
        if self._links is None:
            return LinkCounts()
        endings = self._links.statistics().endings
        counts = msgspec.structs.replace(self._past, endings={str(cause): n for cause, n in endings.items()})
        for link in self._links.running():
            counts = _with(counts, link)
        return counts

    def proven(self, peer_id: str) -> bool:
        """Whether this node has proven the shared secret on its link."""
        link = self.get(peer_id)
        return link is not None and link.peer.proven

    def version(self, peer_id: str) -> str | None:
        """Of the protocol of the link with this node."""
        link = self.get(peer_id)
        return None if link is None else f"{PROTOCOL.rpartition('/')[0]}/{link.peer.version}"

    async def changed(self) -> None:
        """Return when a link came or went."""
        await self._changed.wait()

    async def close(self, peer_id: str, reason: str) -> None:
        """Say good-bye on the link with this node, if there is one."""
        if self._links is not None:
            self._links.let_go(peer_id)
            await self._links.disconnect(peer_id, reason[:200])

    async def known_elsewhere(self, most: int, timeout_s: float) -> dict[str, list[str]]:
        """Peers that linked nodes know, with addresses. Those that do not answer in time say nothing."""
        found: dict[str, list[str]] = {}

        async def ask(link: Link) -> None:
            try:
                said = await link.call(FindPeers(n=min(most, 1000)), timeout_s)
            except MCPServerError as error:
                get_logger().debug("a peer says nothing of others", peer=link.peer_id, reason=error.message)
                return
            for peer_id, places in self._heard(link, said):
                if peer_id in found or len(found) < most:
                    found.setdefault(peer_id, []).extend(places)

        links = self.all()
        async with trio.open_nursery() as nursery:
            for link in random.sample(links, min(len(links), _EXCHANGED_WITH)):
                nursery.start_soon(ask, link)
        return found

    def _heard(self, link: Link, said: PeersFound) -> Iterable[tuple[str, list[str]]]:
        """What a peer says of others, without what can't be true here."""
        for place in said.peers:
            places = [one for one in place.addresses if may_be_told(one, link.address)]
            if places and place.peer_id != self._host.peer_id:
                yield place.peer_id, places

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Link until cancelled; then all links end in good order."""
        async with (
            trio.open_nursery() as self._nursery,
            open_links(
                self._side,
                self._opened,
                admit=self._admit,
                on_connected=self._linked,
                on_lost=self._lost,
                on_ended=self._ended,
            ) as self._links,
        ):
            self._host.serve(PROTOCOL, self._links.serve)
            task_status.started()
            self.peer_changed("")
            await trio.sleep_forever()

    def peer_changed(self, _peer_id: str) -> None:
        """A connection with a peer is there, or has ended."""
        if self._links is None:
            return
        dialled = {view.peer_id for view in self._host.connections() if not view.inbound}
        for peer_id in dialled:
            self._links.retry(peer_id)
            self._links.keep(peer_id)
        for peer_id in self._kept - dialled:
            self._links.let_go(peer_id)
        self._kept = dialled

    async def _opened(self, peer_id: str) -> PeerStream:
        return await self._host.open_stream(peer_id, PROTOCOL, _OPEN_S)

    def _admit(self, peer_id: str, address: str) -> None:
        self._admission.check_ban(Caller(peer_id, address))

    def _linked(self, link: Link) -> None:
        get_logger().info("linked", peer=link.peer_id, inbound=link.inbound, proven=link.peer.proven)
        self._work.learn(link)
        self._sender.back(link.peer_id)
        self._wake()
        assert self._nursery is not None
        self._nursery.start_soon(self._refresh, link)

    def _lost(self, link: Link) -> None:
        self._sender.lost(link.peer_id)
        self._wake()

    def _ended(self, link: Link) -> None:
        assert link.ending is not None
        self._past = _with(self._past, link)
        get_logger().info("link ended", peer=link.peer_id, reason=str(link.ending))
        if link.ending.cause is Cause.VIOLATION:
            self._violated(link.peer_id, str(link.ending))

    async def _refresh(self, link: Link) -> None:
        pause_s = _AGAIN_S
        while link.usable:
            try:
                await self._work.refresh(link, _ASK_S)
                if self.wants_peers():
                    self.on_introduced(dict(self._heard(link, await link.call(FindPeers(), _ASK_S))))
            except MCPServerError as error:
                get_logger().debug("a peer did not say what it offers", peer=link.peer_id, reason=error.message)
            with trio.move_on_after(pause_s):
                await link.over.wait()
            pause_s = REFRESH_S

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _with(counts: LinkCounts, link: Link) -> LinkCounts:
    seen = link.statistics()
    return msgspec.structs.replace(
        counts,
        asked=counts.asked + seen.answered_calls,
        answered=counts.answered + seen.served,
        busy=counts.busy + seen.refused,
        bytes_in=counts.bytes_in + seen.bytes_in,
        bytes_out=counts.bytes_out + seen.bytes_out,
    )
