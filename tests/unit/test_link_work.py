# SPDX-License-Identifier: AGPL-3.0-or-later
"""What linked nodes are told of others: those that may know, of those that are here, and of nobody who is banned."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from peer_books import Clock, book_of, peer

from actors.errors import RateLimitedError
from actors.p2p.peer_registry.admission import STRANGERS, Admission, Caller
from actors.p2p.peer_registry.link.messages import Describe, Echo, FindPeers, PeerDescription
from actors.p2p.peer_registry.link_work import LinkWork
from actors.settings_p2p import PeerGrant, PeerRegistrySettings

A, B, C = map(peer, range(3))
OUTSIDE, OTHER = "/ip4/9.9.9.9/tcp/50000", "/ip4/8.8.8.8/tcp/50000"


class FakeLink:
    """A link whose peer says that it listens here."""

    def __init__(self, peer_id, address, *listens):
        self.peer_id = peer_id
        self.address = address
        self._said = PeerDescription(addresses=list(listens))

    async def call(self, request, timeout_s):
        assert isinstance(request, Describe)
        return self._said


class World:
    def __init__(self, **settings):
        self.book = book_of(Clock())
        self.links = {}
        nothing = SimpleNamespace(
            list=lambda _: [],
            task_types=lambda _: [],
            heard=lambda _: None,
            offers=lambda *_: None,
            capacity=lambda *_, **__: None,
            free_slots=0,
            running=0,
        )
        self.work = LinkWork(
            agent="test",
            addresses=lambda: [f"/ip4/9.9.9.9/tcp/{n}" for n in range(1, 50)],
            admission=Admission(PeerRegistrySettings(**settings), self.book.bans, Clock()),
            caller_of=lambda peer_id: Caller(peer_id, self.links[peer_id].address),
            book=self.book,
            tools=nothing,
            runner=nothing,
            sender=nothing,
        )

    async def joined(self, peer_id, address, *listens):
        link = self.links[peer_id] = FakeLink(peer_id, address, *listens)
        await self.work.refresh(link, 1.0)
        return link

    async def told(self, link, n=100):
        found = await self.work.handle(link, FindPeers(n=n))
        return {place.peer_id: place.addresses for place in found.peers}


async def test_strangers_are_told_of_each_other_where_that_is_wanted():
    world = World(introduce_strangers=True)
    a = await world.joined(A, OUTSIDE, "/ip4/0.0.0.0/tcp/4001")
    b = await world.joined(B, OTHER, "/ip4/10.1.1.1/tcp/4002")
    assert await world.told(a) == {B: ["/ip4/8.8.8.8/tcp/4002"]}
    assert await world.told(b) == {A: ["/ip4/9.9.9.9/tcp/4001"]}


async def test_elsewhere_strangers_are_neither_told_nor_told_of():
    world = World(allow={A: PeerGrant(), B: PeerGrant()})
    a = await world.joined(A, OUTSIDE, "/ip4/9.9.9.9/tcp/4001")
    b = await world.joined(B, OTHER, "/ip4/8.8.8.8/tcp/4002")
    c = await world.joined(C, OTHER, "/ip4/8.8.8.8/tcp/4003")
    assert await world.told(c) == {}
    assert (await world.told(a)).keys() == {B}
    assert (await world.told(b)).keys() == {A}


@pytest.mark.parametrize("who", [B, "8.8.8.8"])
async def test_nobody_is_told_of_a_peer_that_is_banned_by_now(who):
    world = World(introduce_strangers=True)
    a = await world.joined(A, OUTSIDE, "/ip4/9.9.9.9/tcp/4001")
    await world.joined(B, OTHER, "/ip4/8.8.8.8/tcp/4002")
    world.book.violated(B if who == B else C, OTHER if who != B else "", "noise")
    assert await world.told(a) == {}


async def test_a_stranger_that_asks_on_and_on_is_refused():
    world = World(introduce_strangers=True)
    a = await world.joined(A, OUTSIDE)
    for _ in range(STRANGERS.burst):
        await world.work.handle(a, Echo(data=b"x"))
    for request in (Echo(), Describe(), FindPeers()):
        with pytest.raises(RateLimitedError):
            await world.work.handle(a, request)


async def test_a_node_says_where_it_listens_and_not_too_much_of_it():
    world = World(introduce_strangers=True)
    a = await world.joined(A, OUTSIDE)
    said = await world.work.handle(a, Describe())
    assert len(said.addresses) == 32
