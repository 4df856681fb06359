# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node among its peers: what the host and the links tell goes into the book, and what the book says is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import trio

from actors.errors import ForbiddenError, MCPServerError
from actors.logs import get_logger
from actors.p2p.peer_registry.admission import Admission, Caller
from actors.p2p.peer_registry.contacts import ContactRules, Contacts
from actors.p2p.peer_registry.host import Host
from actors.p2p.peer_registry.peer_book import PeerBook
from actors.p2p.peer_registry.service import split

PING_EVERY_S: Final = 15.0
_PING_TIMEOUT_S: Final = 10.0
_PINGS_AT_ONCE: Final = 16


class KnownContacts:
    """The book of peers, as those who dial see it. Bootstrap nodes are wanted, too, and those of `also`."""

    def __init__(self, book: PeerBook, bootstrap_nodes: Sequence[str], me: str) -> None:
        self._book = book
        self._me = me
        self._bootstrap: dict[str, list[str]] = {}
        self.also: dict[str, list[str]] = {}
        """Peers that somebody else wants to be connected always, and where they may be."""
        for node in bootstrap_nodes:
            place, peer_id = split(node)
            if peer_id and peer_id != me:
                self._bootstrap.setdefault(peer_id, []).append(place)

    def addresses(self, peer_id: str) -> list[str]:
        """Where it may be."""
        peer = self._book.get(peer_id)
        known = peer.addresses if peer is not None else []
        return list(dict.fromkeys([*known, *self._bootstrap.get(peer_id, []), *self.also.get(peer_id, [])]))

    def wanted(self) -> Iterable[str]:
        """Those that an operator wants, and the bootstrap nodes; none that is banned."""
        wanted = dict.fromkeys([*self._book.persistent(), *self._bootstrap, *self.also])
        return [one for one in wanted if one != self._me and self._book.bans.of_peer(one) is None]

    def connecting(self, peer_id: str) -> None:
        """It is being dialled."""
        self._book.connecting(peer_id)

    def failed(self, peer_id: str) -> None:
        """It could not be reached."""
        self._book.disconnected(peer_id)


class Node:
    """See the module's text. `run` does its part until cancelled."""

    def __init__(
        self,
        host: Host,
        book: PeerBook,
        admission: Admission,
        bootstrap_nodes: Sequence[str],
        rules: ContactRules,
    ) -> None:
        self.host = host
        self.book = book
        self.admission = admission
        self._known = KnownContacts(book, bootstrap_nodes, host.peer_id)
        self.contacts = Contacts(_Dials(host), self._known, rules)
        self.on_peer: Callable[[str], None] = lambda _: None
        """Told the peer id when a connection with a peer is there, or has ended."""
        self._pings = trio.CapacityLimiter(_PINGS_AT_ONCE)
        self._unwanted: list[str] = []
        self._news = trio.Event()
        host.on_connected = self._connected
        host.on_disconnected = self._disconnected
        host.on_identified = self._identified

    async def run(self) -> None:
        """Keep contact, measure, and cut off those that are banned."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.contacts.run)
            nursery.start_soon(self._measure)
            while True:
                await self._news.wait()
                self._news = trio.Event()
                unwanted, self._unwanted = self._unwanted, []
                for peer_id in unwanted:
                    nursery.start_soon(self.host.disconnect, peer_id)

    def want(self, peers: dict[str, list[str]]) -> None:
        """Keep these connected, too: multiaddrs by peer id. It replaces those of the call before."""
        self._known.also = peers
        self.contacts.look()

    def cut(self, peer_id: str) -> None:
        """End all connections with a peer soon."""
        self._unwanted.append(peer_id)
        self._news.set()

    def address_of(self, peer_id: str) -> str:
        """Where its connection comes from; '' = unknown."""
        return next((view.address for view in self.host.connections() if view.peer_id == peer_id), "")

    def violated(self, peer_id: str, reason: str) -> None:
        """It broke a protocol: it is banned for a while, and cut off."""
        ban = self.book.violated(peer_id, self.address_of(peer_id), reason)
        get_logger().warning("a peer broke a protocol", peer=peer_id, reason=reason, banned_until=ban.until)
        self.cut(peer_id)

    def lied(self, peer_id: str, reason: str) -> None:
        """Its result proved wrong: it is banned for long, and cut off."""
        self.book.lied(peer_id, self.address_of(peer_id), reason)
        get_logger().warning("a peer lied about a result", peer=peer_id, reason=reason)
        self.cut(peer_id)

    # --- what the host tells ---------------------------------------------------------------------------------------

    def _connected(self, peer_id: str) -> None:
        view = next((one for one in self.host.connections() if one.peer_id == peer_id), None)
        address = view.address if view is not None else ""
        try:
            self.admission.check_ban(Caller(peer_id, address))
        except ForbiddenError:
            self.cut(peer_id)
            return
        self.book.connected(peer_id, address, inbound=view is not None and view.inbound)
        self.contacts.look()
        self.on_peer(peer_id)

    def _disconnected(self, peer_id: str) -> None:
        self.book.disconnected(peer_id)
        self.contacts.look()
        self.on_peer(peer_id)

    def _identified(self, peer_id: str) -> None:
        self.book.seen(peer_id, protocols=self.host.protocols(peer_id), agent=self.host.agent(peer_id))

    # --- measuring -------------------------------------------------------------------------------------------------

    async def _measure(self) -> None:
        while True:
            await trio.sleep(PING_EVERY_S)
            async with trio.open_nursery() as nursery:
                for peer_id in {view.peer_id for view in self.host.connections()}:
                    nursery.start_soon(partial(self.measure, peer_id))

    async def measure(self, peer_id: str) -> None:
        """One ping, for the book."""
        async with self._pings:
            try:
                self.book.latency(peer_id, await self.host.ping(peer_id, _PING_TIMEOUT_S))
            except MCPServerError:
                self.book.latency(peer_id, None)


class _Dials:
    def __init__(self, host: Host) -> None:
        self._host = host

    async def dial(self, address: str, peer_id: str, timeout_s: float) -> None:
        await self._host.dial(address, peer_id, timeout_s)

    def is_connected(self, peer_id: str) -> bool:
        return any(view.peer_id == peer_id for view in self._host.connections())
