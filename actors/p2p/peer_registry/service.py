# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can be asked of this node about its peers: the tools and the command line ask the same."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec
import trio

from actors.errors import (
    BusyError,
    InvalidArgumentsError,
    MCPServerError,
    NotFoundError,
    PeerIdMismatchError,
    PeerUnreachableError,
    UnavailableError,
    code_of,
)
from actors.logs import get_logger
from actors.p2p.peer_registry.bans import Ban
from actors.p2p.peer_registry.contacts import Contacts, Reached
from actors.p2p.peer_registry.discovery.way import Way
from actors.p2p.peer_registry.peer_book import PeerBook
from actors.p2p.peer_registry.peer_query import page
from actors.peer_messages import KnownPeer, ListPeers, PeerPage
from actors.peer_provided import WAYS

_PEER: Final = "/p2p/"
_MOST_DISCOVERED: Final = 1000
_GATHER_S: Final = 2.0
_LOOK_S: Final = 20.0
"""For one search, and for one peer, on our own account."""


class Connections(Protocol):
    """What this needs of the host."""

    @property
    def peer_id(self) -> str:
        """Its id."""

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""

    async def disconnect(self, peer_id: str) -> None:
        """End all connections with it."""


class Links(Protocol):
    """What this needs of the links with Greenroom nodes."""

    async def close(self, peer_id: str, reason: str, /) -> None:
        """Say good-bye on the link with it, if there is one."""

    def version(self, peer_id: str, /) -> str | None:
        """Of the protocol of the link with it; None = there is no link."""

    async def known_elsewhere(self, most: int, timeout_s: float, /) -> dict[str, list[str]]:
        """Peers that linked nodes know, with addresses."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one way of looking for peers, or of one node."""

    name: str
    outcome: str
    """`ok`, `off`, `not provided`, or why it failed."""
    found: int = 0


class Discovered(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found."""

    peers: list[KnownPeer]
    seconds: float
    methods: list[Outcome]


class Bootstrapped(msgspec.Struct, frozen=True, kw_only=True):
    """What a start from bootstrap nodes came to."""

    nodes: list[Outcome]
    """Each address that was tried."""
    connected: list[str]
    """Peer ids of those that are connected now."""
    seconds: float


class PeerService:
    """See the module's text."""

    def __init__(
        self,
        host: Connections,
        links: Links,
        contacts: Contacts,
        book: PeerBook,
        bootstrap_nodes: Sequence[str],
        *,
        now: Callable[[], float],
        stored: Callable[[], Awaitable[bool]],
        ways: Sequence[Way] = (),
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`stored` writes what is to be remembered now; False = that failed, and is tried again later. `ways` are those
        that are on."""
        self.me = host.peer_id
        self.book = book
        self.now = now
        self._host = host
        self._links = links
        self._contacts = contacts
        self._bootstrap_nodes = list(bootstrap_nodes)
        self._stored = stored
        self._ways = list(ways)
        self._chance = chance
        self._tried: dict[str, float] = {}
        self._news = trio.Event()

    def addresses(self) -> list[str]:
        """Where this node listens."""
        return self._host.addresses

    def protocol_version(self, peer_id: str) -> str | None:
        """Of the link with a peer; None = there is none."""
        return self._links.version(peer_id)

    # --- one peer --------------------------------------------------------------------------------------------------

    def get(self, peer_id: str) -> KnownPeer:
        """Raises `NotFoundError`."""
        peer = self.book.get(peer_id)
        if peer is None:
            raise NotFoundError(f"no peer {peer_id} is known; peer_list names those that are")
        return peer

    async def connect(
        self, peer_id: str, address: str, *, timeout_s: float, retries: int, persist: bool
    ) -> tuple[Reached, KnownPeer]:
        """Connect to a peer. With `persist` it is remembered, and tried again also when it can't be reached now.

        Raises what `Contacts.reach` raises; `BusyError` when no further peer can be remembered so.
        """
        address, named = split(address)
        if named and named != peer_id:
            raise PeerIdMismatchError(f"the address names {named}, not {peer_id}", peer_id=peer_id)
        if not address:
            raise InvalidArgumentsError("an address like /ip4/192.0.2.1/tcp/4001 is needed")
        if persist and not self.book.may_persist(peer_id):
            raise BusyError(f"no more than {self.book.max_persistent} peers are remembered like that; disconnect one")
        try:
            reached = await self._contacts.reach(peer_id, [address], timeout_s=timeout_s, retries=retries)
        except PeerUnreachableError as error:
            if not persist or not self._keep(peer_id, address):
                raise
            await self._store()
            message = f"{error.message}; it is tried again from time to time"
            raise PeerUnreachableError(message, peer_id=peer_id) from None
        except trio.Cancelled:
            if persist:
                self._keep(peer_id, address)
            raise
        if persist:
            if not self._keep(peer_id, address):
                raise BusyError("it is connected, but there is no room to remember it")
            await self._store()
        return reached, self.get(peer_id)

    def _keep(self, peer_id: str, address: str) -> bool:
        """Want it from now on; False = there is no room."""
        done = self.book.persist(peer_id, addresses=[address])
        self._contacts.look()
        return done

    async def disconnect(self, peer_id: str, *, reason: str, graceful: bool) -> bool:
        """End the connection with a peer, and want none any more. Returns whether there was one."""
        peer = self.book.get(peer_id)
        was = peer is not None and peer.status == "connected"
        self.book.persist(peer_id, persistent=False)
        self._contacts.look()
        if graceful and was:
            await self._links.close(peer_id, reason)
        await self._host.disconnect(peer_id)
        await self._store()
        return was

    async def ban(self, peer_id: str, reason: str) -> Ban:
        """Have nothing to do with a peer for the longest time that a ban can have."""
        ban = self.book.bans.lie(peer_id, "", f"by the operator: {reason}")
        await self.disconnect(peer_id, reason="banned", graceful=False)
        return ban

    async def forgive(self, subject: str) -> bool:
        """Lift the bans of a peer id or an address. False = there was none."""
        was = self.book.bans.forgive(subject)
        await self._store()
        return was

    async def _store(self) -> None:
        """What was asked for outlives this process when it is answered."""
        if not await self._stored():
            raise UnavailableError("it is done, but the file of peers can't be written: a restart would forget it")

    # --- all of them -----------------------------------------------------------------------------------------------

    def page(self, query: ListPeers) -> PeerPage:
        """A part of those that are known."""
        return page(self.book, query)

    async def discover(self, capabilities: Sequence[str], *, most: int, timeout_s: float) -> Discovered:
        """Look for peers in every way that is on, and return those that are known then."""
        began = trio.current_time()
        before = set(self.book)
        methods = [Outcome(name="peer_book", outcome="ok", found=len(before))]
        if self._bootstrap_nodes:
            with trio.move_on_after(timeout_s / 2):
                came = await self.bootstrap(None, timeout_s=timeout_s / 2, most=len(self._bootstrap_nodes))
                methods.append(Outcome(name="bootstrap", outcome="ok", found=len(came.connected)))
        else:
            methods.append(Outcome(name="bootstrap", outcome="off: p2p.peer_registry.bootstrap_nodes is empty"))
        left = max(0.1, began + timeout_s - trio.current_time())
        try:
            told = await self._links.known_elsewhere(_MOST_DISCOVERED, left)
        except MCPServerError as error:
            methods.append(Outcome(name="peer_exchange", outcome=f"{code_of(error)}: {error.message}"))
        else:
            new = [peer_id for peer_id, places in told.items() if self.book.heard(peer_id, places)]
            methods.append(Outcome(name="peer_exchange", outcome="ok", found=len(new)))
        methods += await self._look(max(0.1, began + timeout_s - trio.current_time()))
        query = ListPeers(capabilities=list(capabilities), limit=most)
        peers = [peer for peer in page(self.book, query).peers if peer.banned_until is None]
        return Discovered(peers=peers, seconds=trio.current_time() - began, methods=methods)

    async def _look(self, timeout_s: float) -> list[Outcome]:
        """In all further ways at once."""
        found: dict[str, int] = {}

        async def one(way: Way) -> None:
            found[way.name] = await way.look(timeout_s)

        async with trio.open_nursery() as nursery:
            for way in self._ways:
                nursery.start_soon(one, way)
        told = [Outcome(name=way.name, outcome=way.state, found=found[way.name]) for way in self._ways]
        for feature in WAYS:
            if not feature.provided:
                told.append(Outcome(name=feature.name, outcome=f"not provided: {feature.why_not}"))
            elif feature.name not in found:
                told.append(Outcome(name=feature.name, outcome=f"off: {feature.setting} is not set"))
        return told

    def news(self) -> None:
        """There is a peer that nobody knew: it is tried soon, if there are too few."""
        self._news.set()

    async def grow(self, wanted: int, *, every_s: float) -> None:
        """As long as fewer peers are connected than that, look for others and try those that are known, the best ones
        first. Runs until cancelled."""
        while True:
            self._news = trio.Event()
            with trio.move_on_after(every_s):
                await self._news.wait()
                # What is found at the same time is tried together.
                await trio.sleep(min(every_s, _GATHER_S))
            missing = self.missing(wanted)
            if missing:
                if not self._news.is_set():
                    await self.discover((), most=1, timeout_s=min(every_s, _LOOK_S))
                async with trio.open_nursery() as nursery:
                    for peer_id in self._strangers()[:missing]:
                        nursery.start_soon(self._try, peer_id)

    def _strangers(self) -> list[str]:
        """Peers that could be connected to: those that were not tried yet, the most useful first, then those whose
        last try is longest ago. Among equals chance decides: of many that somebody made up none stands before all
        others."""
        found = self.page(ListPeers(status="disconnected", limit=1000)).peers
        free = [peer for peer in found if peer.addresses and peer.banned_until is None and peer.peer_id != self.me]
        self._tried = {peer.peer_id: self._tried[peer.peer_id] for peer in free if peer.peer_id in self._tried}
        free.sort(key=lambda peer: (self._tried.get(peer.peer_id, 0.0), -(peer.reputation or 0.0), self._chance()))
        return [peer.peer_id for peer in free]

    async def _try(self, peer_id: str) -> None:
        self._tried[peer_id] = trio.current_time()
        try:
            await self._contacts.reach(peer_id, timeout_s=_LOOK_S)
        except MCPServerError as error:
            get_logger().debug("a known peer can't be reached", peer=peer_id, reason=error.message)

    def missing(self, wanted: int) -> int:
        """So many peers more should be connected."""
        return max(0, wanted - self.page(ListPeers(status="connected", limit=1)).total)

    def introduced(self, places: dict[str, list[str]]) -> None:
        """A linked node tells of these peers: hearsay. Those that were not tried yet are tried soon, if there are too
        few."""
        for peer_id, addresses in places.items():
            if self.book.heard(peer_id, addresses) and peer_id not in self._tried:
                peer = self.book.get(peer_id)
                if peer is not None and peer.status == "disconnected" and peer.banned_until is None:
                    self.news()

    async def bootstrap(self, nodes: Sequence[str] | None, *, timeout_s: float, most: int) -> Bootstrapped:
        """Connect to at most so many of these nodes, or of the configured ones. What fails is told, node by node."""
        began = trio.current_time()
        outcomes: dict[str, Outcome] = {}
        connected: list[str] = []

        async def one(node: str) -> None:
            address, peer_id = split(node)
            outcomes[node] = Outcome(name=node, outcome=f"no answer in {timeout_s:g} s")
            if not peer_id or not address:
                outcomes[node] = Outcome(name=node, outcome="the address must end with /p2p/ and the node's peer id")
                return
            try:
                await self._contacts.reach(peer_id, [address], timeout_s=timeout_s, retries=2)
            except MCPServerError as error:
                outcomes[node] = Outcome(name=node, outcome=f"{code_of(error)}: {error.message}")
            else:
                outcomes[node] = Outcome(name=node, outcome="ok", found=1)
                connected.append(peer_id)

        wanted = list(dict.fromkeys(self._bootstrap_nodes if nodes is None else nodes))
        with trio.move_on_after(timeout_s):
            while wanted and len(connected) < most:
                some, wanted = wanted[: most - len(connected)], wanted[most - len(connected) :]
                async with trio.open_nursery() as nursery:
                    for node in some:
                        nursery.start_soon(one, node)
        return Bootstrapped(
            nodes=list(outcomes.values()),
            connected=list(dict.fromkeys(connected)),
            seconds=trio.current_time() - began,
        )


def split(address: str) -> tuple[str, str]:
    """A multiaddr without the peer id at its end, and that id; '' for what is not there."""
    place, separator, peer_id = address.rpartition(_PEER)
    return (place, peer_id) if separator and "/" not in peer_id else (address, "")
