# SPDX-License-Identifier: AGPL-3.0-or-later
"""All links of a node: one per peer is used, lost ones are made again, and there are never too many."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_links import SECRET, echo
from peer_streams import A, B, C, pair
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import ForbiddenError, PeerUnreachableError
from actors.p2p.peer_registry.link.links import open_links
from actors.p2p.peer_registry.link.reasons import Cause, Ending, LinkViolation, Violation
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.link.side import OwnSide


class Station:
    """A node on the network."""

    def __init__(self, network: Network, peer_id: str) -> None:
        self.network = network
        self.peer_id = peer_id
        self.news: list[tuple[str, str]] = []
        self.endings: list[Ending] = []
        self.dials: list[float] = []
        """When it dialled."""
        self.refuses: dict[str, Exception] = {}
        self.answer = None
        self.links = None

    async def handle(self, link, request):
        if self.answer is not None:
            return await self.answer(request)
        return request

    async def dial(self, peer_id):
        self.dials.append(trio.current_time())
        return await self.network.dial(self, peer_id)

    def admit(self, peer_id, address):
        if peer_id in self.refuses:
            raise self.refuses[peer_id]

    def options(self):
        return {
            "admit": self.admit,
            "on_connected": lambda link: self.news.append(("connected", link.peer_id)),
            "on_lost": lambda link: self.news.append(("lost", link.peer_id)),
            "on_ended": lambda link: self.endings.append(link.ending),
            "draw": lambda: 0.0,
        }


class Network:
    """Nodes that can dial each other."""

    def __init__(self, nursery) -> None:
        self.nursery = nursery
        self.stations: dict[str, Station] = {}
        self.down: set[str] = set()
        self.delay_s = 0.0
        self.streams = []
        self.dialling = self.most_dialling = 0

    async def dial(self, station, peer_id):
        self.dialling += 1
        self.most_dialling = max(self.most_dialling, self.dialling)
        try:
            await trio.sleep(self.delay_s)
        finally:
            self.dialling -= 1
        if peer_id in self.down or peer_id not in self.stations:
            raise OSError("connection refused")
        left, right = pair(station.peer_id, peer_id)
        self.streams.append(left)
        self.nursery.start_soon(self.stations[peer_id].links.serve, right)
        return left

    @asynccontextmanager
    async def station(self, peer_id, rules=None, **side):
        station = self.stations[peer_id] = Station(self, peer_id)
        own = OwnSide(peer_id=peer_id, rules=rules or LinkRules(), secret=SECRET, handler=station.handle, **side)
        async with open_links(own, station.dial, **station.options()) as station.links:
            yield station
        self.stations.pop(peer_id, None)


@asynccontextmanager
async def network_of(*peers, rules=None):
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        async with network.station(peers[0], rules) as one, network.station(peers[1], rules) as two:
            yield one, two
        nursery.cancel_scope.cancel()


async def settle(seconds=0.0):
    await trio.sleep(seconds)
    await wait_all_tasks_blocked()


async def test_a_link_is_made_when_it_is_asked_for_once_for_all_who_ask(autojump_clock):
    async with network_of(A, B) as (a, b):
        a.network.delay_s = 1
        found = []

        async def ask():
            found.append(await a.links.link_to(B, 5))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert len(a.dials) == 1
        assert len(set(found)) == 1
        assert a.links.get(B) is found[0]
        assert await found[0].call(echo(1), 1) == echo(1)
        assert await b.links.link_to(A, 5) is b.links.get(A)
        assert not b.dials
        assert (a.news, b.news) == ([("connected", B)], [("connected", A)])
        assert a.links.all() == [found[0]]


@pytest.mark.parametrize("first", [A, B])
async def test_of_two_links_both_keep_the_one_whose_dialler_has_the_smaller_id(autojump_clock, first):
    async with network_of(A, B) as (a, b):
        a.network.delay_s = 1
        stations = {A: a, B: b}
        second = B if first == A else A
        stations[first].links.keep(second)
        await trio.sleep(0.5)
        stations[second].links.keep(first)
        await trio.sleep(10)
        assert not a.links.get(B).inbound
        assert b.links.get(A).inbound
        assert a.links.statistics().links == b.links.statistics().links == 1
        assert len(a.dials) == len(b.dials) == 1
        assert await b.links.get(A).call(echo(1), 1) == echo(1)
        assert "lost" not in dict(a.news + b.news)


async def test_the_link_that_gives_way_finishes_its_calls(autojump_clock):
    async with network_of(A, B) as (a, b):
        go = trio.Event()

        async def wait(request):
            await go.wait()
            return request

        old = await b.links.link_to(A, 5)
        a.answer = wait
        async with trio.open_nursery() as nursery:
            outcomes = []

            async def call():
                outcomes.append(await old.call(echo(1), 100))

            nursery.start_soon(call)
            await settle()
            # As if A had dialled at the same time, a little slower.
            left, right = pair(A, B)
            a.network.nursery.start_soon(b.links.serve, right)
            nursery.start_soon(a.links._carry, left, a.links._place(B))
            await settle(1)
            assert b.links.get(A) is not old
            assert not a.links.get(B).inbound
            assert old.ending is None
            go.set()
            await settle()
            nursery.cancel_scope.cancel()
        assert outcomes == [echo(1)]
        assert old.ending.text == "another link is used"


async def test_a_peer_that_started_anew_gets_its_link_at_once_and_old_calls_end(autojump_clock):
    """Its former link looks alive until it has been silent for long."""
    async with network_of(A, B) as (a, _):
        old = await a.links.link_to(B, 5)
        a.network.streams[0].part()
        async with a.network.station(B) as anew:
            link = await anew.links.link_to(A, 5)
            await settle()
            assert link.usable
            assert (old.ending.cause, old.ending.text) == (Cause.LOST, "the peer has started anew")
            assert a.links.get(B).peer.instance == link._side.instance.hex()


@pytest.mark.parametrize("dialler", [A, B])
async def test_a_peer_that_dials_again_has_lost_its_former_link(autojump_clock, dialler):
    async with network_of(A, B) as stations:
        one, two = stations if dialler == A else stations[::-1]
        old = await one.links.link_to(two.peer_id, 5)
        await settle(1)
        one.network.streams[0].part()
        old.end(Ending(Cause.LOST, "the dialler has noticed"))
        await settle(1)
        assert two.links.get(one.peer_id).usable
        await one.links.link_to(two.peer_id, 5)
        await settle()
        assert two.links.get(one.peer_id)._stream is one.network.streams[1]._other


async def test_a_link_of_which_nothing_comes_gives_way_whoever_dialled(autojump_clock):
    async with network_of(A, B, rules=LinkRules(dead_after_s=100)) as (a, b):
        old = await a.links.link_to(B, 5)
        await settle(1)
        a.network.streams[0].part()
        b.links.get(A).end(Ending(Cause.LOST, "B has noticed"))
        await settle(8)
        assert a.links.get(B) is old
        await b.links.link_to(A, 5)
        await settle()
        assert a.links.get(B) is not old
        assert a.links.get(B).inbound


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "both", "break", "part"]), st.floats(0, 3), st.floats(0, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_happens_both_end_up_with_the_same_single_link(events):
    async def main():
        async with network_of(A, B) as (a, b):
            network = a.network
            a.links.keep(B)
            b.links.keep(A)
            for event, wait_s, delay_s in events:
                network.delay_s = delay_s
                await trio.sleep(wait_s)
                if event in ("break", "part"):
                    for stream in network.streams[-2:]:
                        stream.break_now() if event == "break" else stream.part()
                for station, other in ((a, B), (b, A)):
                    if event in (("a" if station is a else "b"), "both"):
                        station.links.retry(other)
            await trio.sleep(300)
            mine, theirs = a.links.get(B), b.links.get(A)
            assert mine._stream._other is theirs._stream
            assert await mine.call(echo(1), 1) == await theirs.call(echo(1), 1) == echo(1)
            assert a.links.statistics().links == b.links.statistics().links == 1
            assert mine.statistics().age_s > 200

    trio.run(main, clock=MockClock(autojump_threshold=0))


# --- keeping -------------------------------------------------------------------------------------------------------


async def test_a_wanted_link_is_made_again_after_it_was_lost(autojump_clock):
    async with network_of(A, B) as (a, _):
        a.links.keep(B)
        a.links.keep(B)
        await settle(40)
        a.network.streams[0].break_now()
        await settle()
        assert a.links.get(B) is None
        assert a.news == [("connected", B), ("lost", B)]
        await settle(0.25)
        assert a.links.get(B) is not None
        assert len(a.dials) == 2
        assert a.news[2:] == [("connected", B)]
        a.links.let_go(B)
        a.network.streams[1].break_now()
        await settle(100)
        assert a.links.get(B) is None
        assert len(a.dials) == 2


async def test_the_pauses_grow_while_a_peer_is_down_and_it_is_found_when_it_is_back(autojump_clock):
    async with network_of(A, B) as (a, _):
        a.network.down.add(B)
        a.links.keep(B)
        await trio.sleep(200)
        pauses = [round(later - sooner, 3) for sooner, later in zip(a.dials, a.dials[1:], strict=False)]
        assert pauses[:9] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
        a.network.down.clear()
        await trio.sleep(31)
        assert a.links.get(B) is not None
        assert a.links.statistics().failed_dials == len(a.dials) - 1


async def test_a_link_that_comes_from_the_other_side_ends_the_dialling(autojump_clock):
    async with network_of(A, B) as (a, b):
        a.network.down.add(B)
        a.links.keep(B)
        await trio.sleep(5)
        dials = len(a.dials)
        await b.links.link_to(A, 5)
        await trio.sleep(200)
        assert len(a.dials) == dials
        assert a.links.get(B) is not None


async def test_after_a_hint_a_peer_is_tried_at_once(autojump_clock):
    async with network_of(A, B) as (a, _):
        a.network.down.add(B)
        a.links.keep(B)
        await trio.sleep(100)
        a.network.down.clear()
        a.links.retry(B)
        await settle()
        assert a.links.get(B) is not None


async def test_a_call_for_a_link_fails_soon_when_the_peer_was_just_found_to_be_down(autojump_clock):
    async with network_of(A, B) as (a, _):
        a.network.down.add(B)
        for _ in range(3):
            with pytest.raises(PeerUnreachableError, match="connection refused"):
                await a.links.link_to(B, 100)
        assert len(a.dials) < 8
        assert trio.current_time() < 5


async def test_a_call_for_a_link_is_bounded(autojump_clock):
    async with network_of(A, B) as (a, _):
        a.network.delay_s = 1000
        with pytest.raises(PeerUnreachableError, match="within 3 s"):
            await a.links.link_to(B, 3)
        assert trio.current_time() == pytest.approx(3)
        with pytest.raises(PeerUnreachableError, match="did not answer within 10 s"):
            await a.links.link_to(B, 30)


async def test_so_many_are_dialled_at_once_and_no_more(autojump_clock):
    async with network_of(A, B, rules=LinkRules(dials_at_once=3)) as (a, _):
        a.network.delay_s = 2
        for n in range(10):
            a.links.keep(f"peer {n}")
        await trio.sleep(1)
        assert a.network.dialling == 3
        await trio.sleep(20)
        assert a.network.most_dialling == 3


# --- who may -------------------------------------------------------------------------------------------------------


async def test_a_peer_that_is_not_admitted_is_reset_before_a_word_is_said(autojump_clock):
    async with network_of(A, B) as (a, b):
        b.refuses[A] = ForbiddenError("banned")
        with pytest.raises(PeerUnreachableError):
            await a.links.link_to(B, 0.1)
        assert a.network.streams[0]._other.written == 0
        assert a.network.streams[0]._other.was_reset
        assert b.links.statistics().refused >= 1
        assert not b.endings


async def test_a_peer_that_this_side_does_not_admit_is_not_dialled_and_asked_after_seldom(autojump_clock):
    async with network_of(A, B) as (a, _):
        a.refuses[B] = ForbiddenError("banned for an hour")
        a.links.keep(B)
        with pytest.raises(PeerUnreachableError, match="banned for an hour"):
            await a.links.link_to(B, 5)
        await trio.sleep(20)
        assert not a.dials
        a.refuses.clear()
        await trio.sleep(60)
        assert a.links.get(B) is not None


async def test_what_a_peer_did_wrong_can_be_counted(autojump_clock):
    async with network_of(A, B) as (a, b):

        async def object_to(request):
            raise LinkViolation(Violation.ABUSE, "no")

        b.answer = object_to
        link = await a.links.link_to(B, 5)
        with pytest.raises(Exception, match="violation: abuse"):
            await link.call(echo(), 5)
        await settle(1)
        assert [ending.violation for ending in b.endings] == [Violation.ABUSE]
        assert b.links.statistics().violations == {"abuse": 1}
        assert a.links.statistics().endings == {"ended": 1}


async def test_another_peer_that_answers_in_its_place_is_not_spoken_to(autojump_clock):
    async with network_of(A, B) as (a, _):
        stream, _ = pair(A, C)

        async def dial(peer_id):
            return stream

        a.links._dial = dial
        with pytest.raises(PeerUnreachableError, match="answered in its place"):
            await a.links.link_to(B, 0.1)
        assert stream.was_reset
        assert stream.written == 0


async def test_a_node_does_not_dial_itself(autojump_clock):
    async with network_of(A, B) as (a, _):
        with pytest.raises(PeerUnreachableError, match="itself"):
            await a.links.link_to(A, 0.1)
        assert not a.dials


# --- too many ------------------------------------------------------------------------------------------------------


async def inbound(station, peer_id):
    """A stream that somebody opens to the station and says nothing on."""
    _, right = pair(peer_id, station.peer_id)
    station.network.nursery.start_soon(station.links.serve, right)
    await settle()
    return right


async def test_strangers_that_say_nothing_take_few_places_and_only_for_a_while(autojump_clock):
    rules = LinkRules(max_hellos=3, hello_timeout_s=5)
    async with network_of(A, B, rules=rules) as (a, b):
        streams = [await inbound(b, f"stranger {n}") for n in range(5)]
        assert [stream.was_reset for stream in streams] == [False] * 3 + [True] * 2
        await settle(6)
        assert all(stream.was_reset for stream in streams)
        assert (await a.links.link_to(B, 5)).usable
        assert b.links.statistics().links == 1


async def test_peers_whose_hello_is_done_are_not_in_their_hello(autojump_clock):
    async with network_of(A, B, rules=LinkRules(max_hellos=1)) as (a, b):
        await a.links.link_to(B, 5)
        async with a.network.station(C) as c:
            await c.links.link_to(B, 5)
        await settle()
        await inbound(b, "stranger")
        assert (await inbound(b, "another")).was_reset


async def test_inbound_links_leave_room_for_those_that_this_node_dials(autojump_clock):
    rules = LinkRules(max_links=3, max_inbound_links=2)
    async with network_of(A, B, rules=rules) as (a, _):
        streams = [await inbound(a, f"stranger {n}") for n in range(3)]
        assert [stream.was_reset for stream in streams] == [False, False, True]
        assert (await a.links.link_to(B, 5)).usable
        with pytest.raises(PeerUnreachableError, match="as many links as there may be"):
            await a.links.link_to(C, 0.1)


async def test_one_peer_has_few_links_at_once(autojump_clock):
    async with network_of(A, B, rules=LinkRules(max_links_per_peer=2)) as (_, b):
        streams = [await inbound(b, "stranger") for _ in range(3)]
        assert [stream.was_reset for stream in streams] == [False, False, True]


async def test_peers_that_were_tried_long_ago_are_forgotten(autojump_clock):
    async with network_of(A, B, rules=LinkRules(max_links=2, max_inbound_links=1)) as (a, _):
        a.links.keep("wanted")
        for n in range(100):
            with pytest.raises(PeerUnreachableError):
                await a.links.link_to(f"peer {n}", 0.01)
            await settle(0.01)
        assert len(a.links._places) <= 9
        assert a.links.statistics().wanted == 1


# --- the end -------------------------------------------------------------------------------------------------------


async def test_at_the_end_all_links_are_ended_in_good_order(autojump_clock):
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        async with network.station(B) as b, network.station(C) as c:
            async with network.station(A) as a:
                await a.links.link_to(B, 5)
                await c.links.link_to(A, 5)
                a.links.keep(B)
            assert [ending.cause for ending in a.endings] == [Cause.CLOSED] * 2
            await settle()
            for station in (b, c):
                assert [str(ending) for ending in station.endings] == ["ended (this node stops)"]
            with pytest.raises(PeerUnreachableError, match="this node stops"):
                await a.links.link_to(B, 5)
        nursery.cancel_scope.cancel()


async def test_the_end_does_not_wait_for_those_that_take_nothing(autojump_clock):
    async with network_of(A, B) as (a, _):
        await a.links.link_to(B, 5)
        a.network.streams[0].stall()
        began = trio.current_time()
        await a.links.close()
        assert trio.current_time() - began <= 5


async def test_listeners_that_fail_do_no_harm(autojump_clock):
    async with network_of(A, B) as (a, _):
        errors = []
        object.__setattr__(a.links._side, "on_error", lambda *error: errors.append(error))
        a.links._on_connected = a.links._on_lost = a.links._on_ended = lambda link: 1 / 0
        link = await a.links.link_to(B, 5)
        await link.close()
        await settle(1)
        assert len(errors) == 3
        assert a.links.statistics().links == 0
