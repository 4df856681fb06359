# SPDX-License-Identifier: AGPL-3.0-or-later
"""All links of this node: at most one per peer is used; those that are wanted are made again when they end.

    async with open_links(side, dial) as links:
        host.serve(PROTOCOL, links.serve)
        links.keep(peer_id)
        link = await links.link_to(peer_id, timeout_s=5)

Two nodes may dial each other at the same time. Of two links between the same two processes the one is kept whose
dialler has the smaller peer id: both sides come to the same choice alone. The other one first finishes its calls.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import trio

from actors.errors import MCPServerError, PeerUnreachableError
from actors.p2p.peer_registry.link.backoff import Backoff
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.reasons import Cause, Ending
from actors.p2p.peer_registry.link.side import OwnSide
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

PROTOCOL: Final = "/greenroom/link/1.0.0"
_CLOSING_S: Final = 5.0
"""For ending all links, at the most."""
_BEATS_OF_DOUBT: Final = 1.5
"""A link of which nothing came for so many heartbeats gives way to a new one, whoever dialled."""

Dial = Callable[[str], Awaitable[PeerStream]]
"""Opens a stream of `PROTOCOL` to this peer. Raises whatever; cancelled after `dial_timeout_s`."""


class LinksStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of all links."""

    linked: int
    """Peers that can be called."""
    links: int
    """Those in their hello, and those that finish their last calls, too."""
    wanted: int
    """Peers that a link is kept to."""
    dials: int
    """Since the start, as are the following."""
    failed_dials: int
    refused: int
    """Streams of peers that were reset before a hello."""
    endings: dict[str, int]
    """By `Cause`."""
    violations: dict[str, int]


class _Place:
    """What there is with one peer."""

    __slots__ = ("attempting", "backoff", "changed", "current", "failure", "links", "peer_id", "wanted")

    def __init__(self, peer_id: str, backoff: Backoff) -> None:
        self.peer_id = peer_id
        self.backoff = backoff
        self.current: Link | None = None
        """The one that is used."""
        self.links: set[Link] = set()
        """All that run, also those in their hello."""
        self.attempting = False
        """It is being dialled, or is in the hello that followed."""
        self.failure = ""
        """Why the latest attempt came to nothing."""
        self.wanted: trio.CancelScope | None = None
        """Of the task that keeps a link."""
        self.changed = trio.Event()

    def tell(self) -> None:
        """Let all who wait look again."""
        self.changed.set()
        self.changed = trio.Event()

    @property
    def idle(self) -> bool:
        return not (self.links or self.attempting or self.wanted)


class Links:
    """See above. Made by `open_links`."""

    def __init__(
        self,
        side: OwnSide,
        dial: Dial,
        nursery: trio.Nursery,
        *,
        admit: Callable[[str, str], None],
        on_connected: Callable[[Link], None],
        on_lost: Callable[[Link], None],
        on_ended: Callable[[Link], None],
        draw: Callable[[], float],
    ) -> None:
        self._side = side
        self._rules = side.rules
        self._dial = dial
        self._nursery = nursery
        self._admit = admit
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._on_ended = on_ended
        self._draw = draw
        self._places: dict[str, _Place] = {}
        self._dialling = trio.CapacityLimiter(side.rules.dials_at_once)
        self._running = 0
        self._inbound = 0
        self._greeting = 0
        """Inbound links in their hello."""
        self._closing = ""
        self._dials = 0
        self._failed_dials = 0
        self._refused = 0
        self._endings: Counter[str] = Counter()
        self._violations: Counter[str] = Counter()

    # --- what there is ---------------------------------------------------------------------------------------------

    def get(self, peer_id: str) -> Link | None:
        """The link with this peer, if there is one that can be used."""
        place = self._places.get(peer_id)
        return place.current if place is not None and place.current is not None and place.current.usable else None

    def all(self) -> list[Link]:
        """The links that can be used, one per peer."""
        return [link for peer_id in self._places if (link := self.get(peer_id)) is not None]

    def running(self) -> list[Link]:
        """All that have not ended, those in their hello, too."""
        return [link for place in self._places.values() for link in place.links]

    def statistics(self) -> LinksStatistics:
        """A snapshot."""
        return LinksStatistics(
            linked=len(self.all()),
            links=self._running,
            wanted=sum(place.wanted is not None for place in self._places.values()),
            dials=self._dials,
            failed_dials=self._failed_dials,
            refused=self._refused,
            endings=dict(self._endings),
            violations=dict(self._violations),
        )

    # --- making links ----------------------------------------------------------------------------------------------

    async def link_to(self, peer_id: str, timeout_s: float) -> Link:
        """The link with this peer; it is dialled if need be, once for all who ask.

        Raises `PeerUnreachableError`, also without an attempt: after failures none is made for a while.
        """
        if (link := self.get(peer_id)) is not None:
            await trio.lowlevel.checkpoint()
            return link
        with trio.move_on_after(timeout_s):
            while (link := self.get(peer_id)) is None:
                place = self._place(peer_id)
                wait_s = math.inf
                if not place.attempting:
                    wait_s = place.backoff.next_at - trio.current_time()
                    if self._closing or wait_s > self._rules.retry_base_s:
                        why = self._closing or f"{place.failure}; it is tried again in {wait_s:.1f} s at the earliest"
                        raise PeerUnreachableError(f"there is no link with {peer_id}: {why}", peer=peer_id)
                    if wait_s <= 0:
                        self._attempt_soon(place)
                        wait_s = math.inf
                with trio.move_on_after(wait_s):
                    await place.changed.wait()
            return link
        why = self._place(peer_id).failure
        shown = f" ({why})" if why else ""
        raise PeerUnreachableError(f"there was no link with {peer_id} within {timeout_s:g} s{shown}", peer=peer_id)

    def keep(self, peer_id: str) -> None:
        """From now on see to it that there is a link with this peer."""
        place = self._place(peer_id)
        if place.wanted is None and not self._closing:
            place.wanted = trio.CancelScope()
            self._nursery.start_soon(self._keep, place, place.wanted)

    def let_go(self, peer_id: str) -> None:
        """Do not see to it any more; a link that is there stays."""
        place = self._places.get(peer_id)
        if place is not None and place.wanted is not None:
            place.wanted.cancel()
            place.wanted = None

    def retry(self, peer_id: str) -> None:
        """Something suggests that this peer can be reached now: forget former failures."""
        place = self._places.get(peer_id)
        if place is not None:
            place.backoff.forget()
            place.tell()

    async def disconnect(self, peer_id: str, reason: str) -> None:
        """End all links with this peer, in good order."""
        place = self._places.get(peer_id)
        if place is not None:
            await self._close(list(place.links), reason)

    async def serve(self, stream: PeerStream) -> None:
        """Carry a link on a stream that a peer has opened. Raises nothing but cancellation."""
        try:
            self._check(stream.peer_id, stream.address, inbound=True)
        except MCPServerError:
            self._refused += 1
            await stream.reset()
        else:
            await self._carry(stream, self._place(stream.peer_id))

    async def close(self, reason: str = "this node stops") -> None:
        """End all links in good order and make no more, in bounded time."""
        self._closing = self._closing or reason
        for place in self._places.values():
            self.let_go(place.peer_id)
            place.tell()
        with trio.move_on_after(_CLOSING_S):
            await self._close([link for place in self._places.values() for link in place.links], reason)

    async def _close(self, links: list[Link], reason: str) -> None:
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(link.close, reason)

    # --- keeping ---------------------------------------------------------------------------------------------------

    async def _keep(self, place: _Place, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                wait_s = math.inf
                if place.current is None and not place.attempting:
                    wait_s = place.backoff.next_at - trio.current_time()
                    if wait_s <= 0:
                        self._attempt_soon(place)
                        continue
                with trio.move_on_after(wait_s):
                    await place.changed.wait()

    def _attempt_soon(self, place: _Place) -> None:
        place.attempting = True
        self._nursery.start_soon(self._attempt, place)

    async def _attempt(self, place: _Place) -> None:
        """Dial once, and carry the link that comes of it."""
        try:
            self._check(place.peer_id, "", inbound=False)
            stream = await self._dialled(place.peer_id)
        except Exception as error:  # noqa: BLE001
            self._failed_dials += 1
            if isinstance(error, MCPServerError) and not error.retryable:
                place.backoff.discourage()
            self._failed(place, str(error) or type(error).__name__)
        else:
            await self._carry(stream, place)

    def _failed(self, place: _Place, why: str) -> None:
        """An attempt has come to nothing."""
        place.backoff.failed(trio.current_time())
        place.failure = why
        place.attempting = False
        place.tell()

    async def _dialled(self, peer_id: str) -> PeerStream:
        async with self._dialling:
            self._dials += 1
            with trio.move_on_after(self._rules.dial_timeout_s):
                stream = await self._dial(peer_id)
                if self._closing or stream.peer_id != peer_id:
                    await stream.reset()
                    raise StreamBrokenError(self._closing or f"{stream.peer_id} answered in its place")
                return stream
        raise StreamBrokenError(f"it did not answer within {self._rules.dial_timeout_s:g} s")

    # --- one link --------------------------------------------------------------------------------------------------

    def _check(self, peer_id: str, address: str, *, inbound: bool) -> None:
        """Raise an `MCPServerError` when there should be no link, before anything is said on it."""
        rules = self._rules
        place = self._places.get(peer_id)
        if self._closing:
            raise PeerUnreachableError(self._closing)
        if peer_id == self._side.peer_id:
            raise PeerUnreachableError("that is this node itself")
        if self._running >= rules.max_links or (inbound and self._inbound >= rules.max_inbound_links):
            raise PeerUnreachableError("there are as many links as there may be")
        if inbound and self._greeting >= rules.max_hellos:
            raise PeerUnreachableError("too many peers are in their hello")
        if place is not None and len(place.links) >= rules.max_links_per_peer:
            raise PeerUnreachableError("there are too many links with this peer already")
        self._admit(peer_id, address)

    async def _carry(self, stream: PeerStream, place: _Place) -> None:
        link = Link(stream, self._side, self._choose)
        place.links.add(link)
        self._count(link, 1)
        try:
            await link.run()
        finally:
            place.links.discard(link)
            self._count(link, -1)
            self._ended(link, place)

    def _count(self, link: Link, more: int) -> None:
        self._running += more
        if link.inbound:
            self._inbound += more
            if not link.ready.is_set():
                self._greeting += more

    def _choose(self, link: Link) -> None:
        """A link is ready: it is used from now on, or gives way to the one that is there."""
        if link.inbound:
            self._greeting -= 1
        place = self._place(link.peer_id)
        other = place.current
        if other is None or other.ending is not None or self._wins(link, other):
            place.current = link
            if other is not None and other.peer.instance != link.peer.instance:
                other.end(Ending(Cause.LOST, "the peer has started anew"))
            elif other is not None:
                other.retire("another link is used")
            self._tell(self._on_connected, link)
        else:
            link.retire("another link is used")
        if not link.inbound:
            place.attempting = False
        place.tell()

    def _wins(self, link: Link, other: Link) -> bool:
        """Whether a link that is new is kept, and not the other one with the same peer."""
        if link.peer.instance != other.peer.instance or link.inbound == other.inbound:
            return True  # the peer started anew, or whoever dialled knows that the other one is gone
        if other.silent_s > _BEATS_OF_DOUBT * other.peer.limits.heartbeat_s:
            return True
        return link.inbound == (link.peer_id < self._side.peer_id)

    def _ended(self, link: Link, place: _Place) -> None:
        assert link.ending is not None
        self._endings[link.ending.cause] += 1
        if link.ending.violation is not None:
            self._violations[link.ending.violation] += 1
        if place.current is link:
            place.current = None
            place.failure = str(link.ending)
            place.backoff.ended(trio.current_time(), link.statistics().age_s)
            self._tell(self._on_lost, link)
        elif not link.inbound and not link.ready.is_set():
            self._failed(place, str(link.ending))
        self._tell(self._on_ended, link)
        place.tell()

    def _tell(self, listener: Callable[[Link], None], link: Link) -> None:
        try:
            listener(link)
        except Exception as error:  # noqa: BLE001
            self._side.on_error("news of links", error)

    def _place(self, peer_id: str) -> _Place:
        place = self._places.get(peer_id)
        if place is None:
            if len(self._places) >= 4 * self._rules.max_links:
                for known in [known for known in self._places.values() if known.idle]:
                    del self._places[known.peer_id]
            place = self._places[peer_id] = _Place(peer_id, Backoff(self._rules, self._draw))
        return place


@asynccontextmanager
async def open_links(
    side: OwnSide,
    dial: Dial,
    *,
    admit: Callable[[str, str], None] = lambda *_: None,
    on_connected: Callable[[Link], None] = lambda _: None,
    on_lost: Callable[[Link], None] = lambda _: None,
    on_ended: Callable[[Link], None] = lambda _: None,
    draw: Callable[[], float] = random.random,
) -> AsyncGenerator[Links]:
    """The links of this node, until the end of the block; then all are ended in good order.

    `admit(peer_id, address)` raises an `MCPServerError` when there should be no link, before a word is said (the
    address is empty when it is this side that wants to dial). `on_connected` hears of each link that is used from now
    on, also in place of another one; `on_lost` of each that was used and ended; `on_ended` of every link's end: its
    `ending` says how, and what the peer did wrong.
    """
    async with trio.open_nursery() as nursery:
        links = Links(
            side, dial, nursery, admit=admit, on_connected=on_connected, on_lost=on_lost, on_ended=on_ended, draw=draw
        )
        try:
            yield links
        finally:
            with trio.CancelScope(shield=True):
                await links.close()
            nursery.cancel_scope.cancel()
