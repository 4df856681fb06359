# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can be asked about peers, over a host and links that a test sets."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from peer_books import Clock, book_of, peer
from trio.testing import wait_all_tasks_blocked

from actors.errors import (
    BusyError,
    InvalidArgumentsError,
    NotFoundError,
    PeerIdMismatchError,
    PeerUnreachableError,
    UnavailableError,
)
from actors.p2p.peer_registry.contacts import Reached
from actors.p2p.peer_registry.reputation import Outcome
from actors.p2p.peer_registry.service import PeerService, split
from actors.peer_messages import ListPeers

ME, A, B, C = map(peer, range(4))
PLACE = "/ip4/192.0.2.1/tcp/4001"


class World:
    """A host, its links and its contacts: `answers` are the peers that can be reached."""

    peer_id = ME
    addresses = (f"{PLACE}/p2p/{ME}",)

    def __init__(self, bootstrap=(), ways=()):
        self.book = book_of(Clock())
        self.answers = set()
        self.told = {}
        self.ended = []
        self.tried = []
        self.writes = True
        self.looked = 0
        self.silence_s = 0.0
        self.error = None
        self.service = PeerService(
            self, self, self, self.book, bootstrap, now=lambda: 0.0, stored=self.stored, ways=ways
        )

    async def stored(self):
        await trio.lowlevel.checkpoint()
        return self.writes

    async def reach(self, peer_id, given=(), *, timeout_s, retries=0):
        await trio.lowlevel.checkpoint()
        self.tried.append(peer_id)
        await trio.sleep(self.silence_s)
        if self.error is not None:
            raise self.error
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


async def test_a_peer_that_is_to_be_remembered_is_wanted_although_it_is_away():
    world = World()
    with pytest.raises(PeerUnreachableError, match="silent; it is tried again"):
        await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)
    found = world.service.get(A)
    assert (found.persistent, found.addresses, world.looked) == (True, [PLACE], 1)
    with pytest.raises(PeerUnreachableError, match=r"silent$"):
        await world.service.connect(B, PLACE, timeout_s=1, retries=0, persist=False)
    assert world.book.persistent() == [A]


async def test_a_peer_is_wanted_although_its_asker_did_not_wait(autojump_clock):
    world = World()
    world.silence_s = 10.0
    with trio.move_on_after(1):
        await world.service.connect(A, PLACE, timeout_s=60, retries=0, persist=True)
    assert world.book.persistent() == [A]


@pytest.mark.parametrize("error", [InvalidArgumentsError("no address"), PeerIdMismatchError("another one")])
async def test_who_can_not_be_there_is_not_remembered(error):
    world = World()
    world.error = error
    with pytest.raises(type(error)):
        await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)
    assert world.book.persistent() == []


async def test_only_so_many_are_remembered_and_no_dial_is_made_for_more():
    world = World()
    world.book.max_persistent = 1
    world.answers |= {A, B}
    await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)
    with pytest.raises(BusyError, match="no more than 1"):
        await world.service.connect(B, PLACE, timeout_s=1, retries=0, persist=True)
    assert world.tried == [A]
    await world.service.connect(A, PLACE, timeout_s=1, retries=0, persist=True)
    await world.service.connect(B, PLACE, timeout_s=1, retries=0, persist=False)


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


class Way:
    """A way that is on and finds so many."""

    def __init__(self, name, finds=0, state="ok"):
        self.name, self.finds, self.state = name, finds, state
        self.looked = []

    async def look(self, timeout_s):
        self.looked.append(timeout_s)
        await trio.sleep(min(1.0, timeout_s))
        return self.finds


async def test_a_search_goes_all_ways_at_once_and_tells_of_those_that_are_off(autojump_clock):
    ways = [Way("peer_file", state="can't be read: no"), Way("mdns", 2)]
    world = World(ways=ways)
    found = await world.service.discover((), most=10, timeout_s=5)
    assert found.seconds == pytest.approx(1.0)
    told = {one.name: one for one in found.methods}
    assert (told["mdns"].outcome, told["mdns"].found) == ("ok", 2)
    assert told["peer_file"].outcome == "can't be read: no"
    assert told["dht"].outcome.startswith("not provided: libp2p")
    assert all(0 < one.looked[0] <= 5 for one in ways)
    off = {one.name: one.outcome for one in (await World().service.discover((), most=10, timeout_s=5)).methods}
    assert off["mdns"] == "off: p2p.peer_registry.discovery.mdns is not set"


async def test_who_is_news_is_tried_soon_and_not_searched_for(nursery, autojump_clock):
    way = Way("mdns")
    world = World(ways=[way])
    world.answers |= {A, B}

    async def grow():
        await world.service.grow(2, every_s=60)

    nursery.start_soon(grow)
    await trio.sleep(10)
    for one in (A, B):
        world.book.heard(one, [PLACE])
        world.service.news()
    await trio.sleep(5)
    assert set(world.tried) == {A, B}
    assert way.looked == []
    nursery.cancel_scope.cancel()


async def test_a_flood_of_news_is_tried_in_bunches(nursery, autojump_clock):
    world = World()

    async def grow():
        await world.service.grow(8, every_s=60)

    nursery.start_soon(grow)
    for n in range(100):
        world.book.heard(peer(1000 + n), [PLACE])
        world.service.news()
        await trio.sleep(0.1)
    assert len(world.tried) <= 8 * 6
    nursery.cancel_scope.cancel()


async def test_who_can_not_be_reached_stands_back_for_those_that_were_not_tried(nursery, autojump_clock):
    world = World()
    world.told = {A: [PLACE], B: [PLACE], C: [PLACE]}

    async def grow():
        await world.service.grow(1, every_s=60)

    nursery.start_soon(grow)
    await trio.sleep(200)
    assert sorted(world.tried) == sorted([A, B, C])
    await trio.sleep(180)
    assert world.tried[3:] == world.tried[:3]
    nursery.cancel_scope.cancel()


async def test_of_many_that_somebody_made_up_none_stands_before_all_others():
    world = World()
    for n in range(50):
        world.book.heard(peer(1000 + n), [PLACE])
    first = {world.service._strangers()[0] for _ in range(200)}
    assert len(first) > 10
    useful = peer(1007)
    world.book.outcome(useful, Outcome(ok=True, seconds=1.0))
    assert world.service._strangers()[0] == useful


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


async def test_peers_that_a_linked_node_tells_of_are_tried_soon_as_long_as_some_are_missing(nursery, autojump_clock):
    world = World()
    world.answers.update({A, B, C})
    world.book.connected(C, PLACE, inbound=True)
    nursery.start_soon(partial(world.service.grow, 2, every_s=1000.0))
    await wait_all_tasks_blocked()
    world.service.introduced({A: [PLACE], B: [PLACE], C: [PLACE]})
    await trio.sleep(10)
    assert world.tried in ([A], [B]), "one was missing"
    assert world.service.missing(2) == 0
    world.service.introduced({A: [PLACE], B: [PLACE]})
    await trio.sleep(10)
    assert len(world.tried) == 1


async def test_who_was_tried_or_is_banned_is_not_tried_again_whoever_tells_of_it(nursery, autojump_clock):
    world = World()
    world.book.bans.violation(A, "", "noise")
    nursery.start_soon(partial(world.service.grow, 8, every_s=1000.0))
    await wait_all_tasks_blocked()
    for _ in range(5):
        world.service.introduced({A: [PLACE], B: [PLACE]})
        await trio.sleep(10)
    assert world.tried == [B]
    assert world.service.get(B).last_seen is None, "it was not there: it stays hearsay"
