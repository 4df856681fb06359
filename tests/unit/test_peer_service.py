# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can be asked about peers, over a host and links that a test sets."""

from __future__ import annotations

import pytest
import trio
from peer_books import Clock, book_of, peer
from trio.testing import wait_all_tasks_blocked

from actors.errors import (
    InvalidArgumentsError,
    NotFoundError,
    PeerIdMismatchError,
    PeerUnreachableError,
    UnavailableError,
)
from actors.p2p.peer_registry.contacts import Reached
from actors.p2p.peer_registry.service import PeerService, split
from actors.peer_messages import ListPeers

ME, A, B, C = map(peer, range(4))
PLACE = "/ip4/192.0.2.1/tcp/4001"


class World:
    """A host, its links and its contacts: `answers` are the peers that can be reached."""

    peer_id = ME
    addresses = (f"{PLACE}/p2p/{ME}",)

    def __init__(self, bootstrap=(), wanted=()):
        self.book = book_of(Clock())
        self.answers = set()
        self.told = {}
        self.ended = []
        self.tried = []
        self.writes = True
        self.looked = 0
        self.service = PeerService(self, self, self, self.book, bootstrap, now=lambda: 0.0, stored=self.stored)

    async def stored(self):
        await trio.lowlevel.checkpoint()
        return self.writes

    async def reach(self, peer_id, given=(), *, timeout_s, retries=0):
        await trio.lowlevel.checkpoint()
        self.tried.append(peer_id)
        if peer_id not in self.answers:
            raise PeerUnreachableError(f"{peer_id} is silent")
        self.book.connected(peer_id, given[0] if given else PLACE, inbound=False)
        return Reached(given[0] if given else PLACE, 0.5, 1)

    def look(self):
        self.looked += 1

    async def disconnect(self, peer_id):
        self.ended.append(peer_id)
        self.book.disconnected(peer_id)

    async def close(self, peer_id, reason):
        self.ended.append((peer_id, reason))

    def version(self, peer_id):
        return None

    async def known_elsewhere(self, most, timeout_s):
        return self.told


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        (f"{PLACE}/p2p/{A}", (PLACE, A)),
        (PLACE, (PLACE, "")),
        (f"/p2p/{A}", ("", A)),
        (f"{PLACE}/p2p/{A}/p2p-circuit", (f"{PLACE}/p2p/{A}/p2p-circuit", "")),
    ],
)
def test_an_address_is_taken_apart(address, parts):
    assert split(address) == parts


async def test_a_peer_that_was_connected_to_is_wanted_and_on_disk():
    world = World()
    world.answers.add(A)
    _, found = await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)
    assert (found.status, found.persistent, world.looked) == ("connected", True, 1)
    await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=False)
    world.writes = False
    with pytest.raises(UnavailableError, match="can't be written"):
        await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)


async def test_an_address_that_names_another_peer_is_refused():
    world = World()
    with pytest.raises(PeerIdMismatchError):
        await world.service.connect(A, f"{PLACE}/p2p/{B}", timeout_s=1, retries=0, persist=True)
    with pytest.raises(InvalidArgumentsError):
        await world.service.connect(A, f"/p2p/{A}", timeout_s=1, retries=0, persist=True)
    assert world.tried == []


async def test_who_was_disconnected_is_told_and_not_wanted_any_more():
    world = World()
    world.answers.add(A)
    await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)
    assert await world.service.disconnect(A, reason="bye", graceful=True)
    assert world.ended == [(A, "bye"), A]
    assert not world.service.get(A).persistent
    assert not await world.service.disconnect(A, reason="", graceful=True)


async def test_a_ban_ends_the_connection_and_holds_until_it_is_forgiven():
    world = World()
    world.answers.add(A)
    await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)
    ban = await world.service.ban(A, "noisy")
    assert (ban.subject, world.ended) == (A, [A])
    assert world.service.get(A).lies == 0, "an operator's word is no lie of the peer"
    assert await world.service.forgive(A)
    assert not await world.service.forgive(A)


async def test_of_unknown_peers_nothing_is_told():
    with pytest.raises(NotFoundError, match="peer_list"):
        World().service.get(A)


async def test_bootstrap_tells_what_became_of_each_node():
    world = World()
    world.answers.add(A)
    nodes = [f"{PLACE}/p2p/{A}", f"{PLACE}/p2p/{B}", PLACE]
    came = await world.service.bootstrap(nodes, timeout_s=1, most=10)
    assert came.connected == [A]
    outcomes = {one.name: one.outcome for one in came.nodes}
    assert outcomes[nodes[0]] == "ok"
    assert outcomes[nodes[1]].startswith("PEER_UNREACHABLE")
    assert "/p2p/" in outcomes[PLACE]


async def test_bootstrap_ends_when_there_are_enough():
    world = World()
    world.answers |= {A, B, C}
    came = await world.service.bootstrap([f"{PLACE}/p2p/{one}" for one in (A, B, C)], timeout_s=1, most=2)
    assert len(came.connected) == 2


async def test_what_others_know_is_discovered_and_hearsay():
    world = World()
    world.told = {A: [PLACE]}
    found = await world.service.discover((), most=10, timeout_s=1)
    assert [one.peer_id for one in found.peers] == [A]
    assert found.peers[0].last_seen is None
    assert {one.name: one.found for one in found.methods}["peer_exchange"] == 1
    assert [one.peer_id for one in (await world.service.discover(("gpu",), most=10, timeout_s=1)).peers] == []


async def test_others_are_tried_only_while_there_are_too_few(nursery, autojump_clock):
    world = World()
    world.told = {A: [PLACE], B: [PLACE]}
    world.answers |= {A, B}

    async def grow():
        await world.service.grow(2, every_s=60)

    nursery.start_soon(grow)
    await trio.sleep(59)
    assert world.tried == []
    await trio.sleep(10)
    assert set(world.tried) == {A, B}
    await trio.sleep(600)
    assert len(world.tried) == 2
    assert world.service.page(ListPeers(status="connected")).total == 2
    nursery.cancel_scope.cancel()


# --- introductions -------------------------------------------------------------------------------------------------


async def test_peers_that_a_linked_node_tells_of_are_tried_as_long_as_some_are_missing(nursery):
    world = World()
    world.answers.update({A, B, C})
    world.book.connected(C, PLACE, inbound=True)
    nursery.start_soon(world.service.meet, 2)
    world.service.introduced({A: [PLACE], B: [PLACE], C: [PLACE]})
    await wait_all_tasks_blocked()
    assert world.tried == [A], "one was missing"
    assert world.service.missing(2) == 0
    world.service.introduced({B: [PLACE]})
    await wait_all_tasks_blocked()
    assert world.tried == [A]


async def test_who_is_banned_is_not_tried_whoever_tells_of_it(nursery):
    world = World()
    world.book.bans.violation(A, "", "noise")
    nursery.start_soon(world.service.meet, 8)
    world.service.introduced({A: [PLACE], B: [PLACE]})
    await wait_all_tasks_blocked()
    assert world.tried == [B]
    assert world.service.get(B).last_seen is None, "it was not there: it stays hearsay"
