# SPDX-License-Identifier: AGPL-3.0-or-later
"""The links of this node: one with each connected Greenroom node, opened by whoever dialled the connection.

Of two links with one peer the one that the node with the smaller id opened is kept, so that both sides keep the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import trio

from actors.errors import MCPServerError, UnavailableError
from actors.logs import get_logger
from actors.p2p.peer_registry.host import Host
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.messages import FindPeers
from actors.p2p.peer_registry.link.reasons import Cause, Ending
from actors.p2p.peer_registry.link.side import OwnSide
from actors.p2p.peer_registry.link_work import LinkWork
from actors.p2p.peer_registry.sharing.sender import Sender
from actors.p2p.peer_registry.stream import PeerStream

PROTOCOL: Final = "/greenroom/link/1.0.0"
REFRESH_S: Final = 30.0
"""Between two questions for what a peer offers."""
_OPEN_S: Final = 10.0
_ASK_S: Final = 10.0
_EXCHANGED_WITH: Final = 8
"""Nodes that are asked whom they know, at once."""


class NodeLinks:
    """See the module's text. `run` does its part until cancelled; `serve` is the host's handler of `PROTOCOL`."""

    def __init__(
        self, host: Host, side: OwnSide, work: LinkWork, sender: Sender, violated: Callable[[str, str], None]
    ) -> None:
        """`violated` hears of peers that break the link's rules."""
        self._host = host
        self._side = side
        self._work = work
        self._sender = sender
        self._violated = violated
        self._links: dict[str, Link] = {}
        self._opening: set[str] = set()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    # --- which there are -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._links)

    def all(self) -> list[Link]:
        """Those on which calls can be made."""
        return [link for link in self._links.values() if link.usable]

    def get(self, peer_id: str) -> Link | None:
        """The link with this node on which calls can be made."""
        link = self._links.get(peer_id)
        return link if link is not None and link.usable else None

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
        link = self._links.get(peer_id)
        if link is not None:
            await link.close(reason[:200])

    async def known_elsewhere(self, most: int, timeout_s: float) -> dict[str, list[str]]:
        """Peers that linked nodes know, with addresses. Those that do not answer in time say nothing."""
        found: dict[str, list[str]] = {}

        async def ask(link: Link) -> None:
            try:
                said = await link.call(FindPeers(n=min(most, 1000)), timeout_s)
            except MCPServerError as error:
                get_logger().debug("a peer says nothing of others", peer=link.peer_id, reason=error.message)
                return
            for place in said.peers:
                if place.peer_id != self._host.peer_id and len(found) < most:
                    found.setdefault(place.peer_id, []).extend(place.addresses)

        links = self.all()
        async with trio.open_nursery() as nursery:
            for link in random.sample(links, min(len(links), _EXCHANGED_WITH)):
                nursery.start_soon(ask, link)
        return found

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open links, and keep what is known of the peers fresh."""
        async with trio.open_nursery() as self._nursery:
            self.peer_changed("")
            await trio.sleep_forever()

    def peer_changed(self, _peer_id: str) -> None:
        """A connection with a peer is there, or has ended."""
        if self._nursery is None:
            return
        for view in self._host.connections():
            if not view.inbound and view.peer_id not in self._opening and view.peer_id not in self._links:
                self._opening.add(view.peer_id)
                self._nursery.start_soon(self._keep, view.peer_id)

    async def _keep(self, peer_id: str) -> None:
        """A link with a node that this one dialled, again and again while they are connected."""
        rules = self._side.rules
        bound_s = rules.retry_base_s
        try:
            while any(view.peer_id == peer_id for view in self._host.connections()):
                if self.get(peer_id) is None:
                    try:
                        stream = await self._host.open_stream(peer_id, PROTOCOL, _OPEN_S)
                    except UnavailableError:
                        return  # it is no Greenroom node
                    except MCPServerError as error:
                        get_logger().debug("no link", peer=peer_id, reason=error.message)
                    else:
                        began = trio.current_time()
                        ending = await self._carry(stream)
                        if trio.current_time() - began >= rules.steady_after_s:
                            bound_s = rules.retry_base_s
                        if ending.cause in {Cause.REFUSED, Cause.INCOMPATIBLE, Cause.ENDED}:
                            bound_s = max(bound_s, rules.retry_cap_s / 8)
                await trio.sleep(bound_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                bound_s = min(rules.retry_cap_s, bound_s * 2)
        finally:
            self._opening.discard(peer_id)

    async def serve(self, stream: PeerStream) -> None:
        """A link that another node opened."""
        if len(self._links) >= self._side.rules.max_links and stream.peer_id not in self._links:
            await stream.reset()
            return
        await self._carry(stream)

    async def _carry(self, stream: PeerStream) -> Ending:
        link = Link(stream, self._side)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._when_ready, link)
            ending = await link.run()
            nursery.cancel_scope.cancel()
        get_logger().info("link ended", peer=link.peer_id, reason=str(ending))
        if self._links.get(link.peer_id) is link:
            del self._links[link.peer_id]
            self._sender.lost(link.peer_id)
            self._wake()
        if ending.cause is Cause.VIOLATION:
            self._violated(link.peer_id, str(ending))
        return ending

    async def _when_ready(self, link: Link) -> None:
        await link.ready.wait()
        before = self._links.get(link.peer_id)
        if before is not None and before.usable:
            if not self._is_kept(link) and self._is_kept(before):
                link.retire("there is another link")
                return
            before.retire("there is another link")
        self._links[link.peer_id] = link
        self._work.learn(link)
        self._sender.back(link.peer_id)
        self._wake()
        get_logger().info("linked", peer=link.peer_id, inbound=link.inbound, proven=link.peer.proven)
        while link.usable:
            try:
                await self._work.refresh(link, _ASK_S)
            except MCPServerError as error:
                get_logger().debug("a peer did not say what it offers", peer=link.peer_id, reason=error.message)
            await trio.sleep(REFRESH_S)

    def _is_kept(self, link: Link) -> bool:
        """Whether the node with the smaller id opened it."""
        return link.inbound == (link.peer_id < self._host.peer_id)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
