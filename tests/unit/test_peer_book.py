# SPDX-License-Identifier: AGPL-3.0-or-later
"""The book of peers: what was told of a peer is known and nothing else; it is bounded, and who was useful stays."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer_books import Clock, book_of, peer

from actors.p2p.peer_registry.peer_book import LEAST_TRANSFER_BYTES
from actors.p2p.peer_registry.peer_query import history, metrics, page
from actors.p2p.peer_registry.peers import ADDRESS_CHARS, MOST_ADDRESSES, MOST_NAMES, MOST_POINTS, POINT_S
from actors.p2p.peer_registry.reputation import Outcome
from actors.peer_messages import ListPeers

A, B, C, D = map(peer, range(4))
DONE, FAILED = Outcome(ok=True), Outcome(ok=False)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def book(clock):
    return book_of(clock)


def small(clock, most=3, **more):
    return book_of(clock, max_peers=most, **more)


def flood(book, count=50, begin=1000):
    for number in range(begin, begin + count):
        book.heard(peer(number))


# --- what is known -------------------------------------------------------------------------------------------------


def test_of_a_peer_that_others_told_of_nothing_is_made_up(book, clock):
    assert book.heard(A, ["/ip4/192.0.2.1/tcp/4001"], ["gpu"])
    known = book.get(A)
    assert (known.addresses, known.capabilities, known.first_seen) == (
        ["/ip4/192.0.2.1/tcp/4001"],
        ["gpu"],
        clock.now,
    )
    assert (known.status, known.successes, known.failures, known.history) == ("disconnected", 0, 0, [])
    unknown = ("last_seen", "latency_s", "bandwidth_bps", "answered", "speed", "reputation", "connected_since")
    assert {name: getattr(known, name) for name in (*unknown, "success_share", "banned_until")} == dict.fromkeys(
        (*unknown, "success_share", "banned_until")
    )
    assert set(metrics(known, clock.now).__struct_fields__) == {
        name for name in metrics(known, clock.now).__struct_fields__ if getattr(metrics(known, clock.now), name) is None
    }


def test_nothing_is_known_of_one_that_nobody_told_of(book):
    book.latency(A, 0.1)
    book.outcome(A, DONE)
    book.transferred(A, 1 << 20, 1.0)
    book.disconnected(A)
    assert book.get(A) is None
    assert not book.persist(A, persistent=False)
    assert not book.forget(A)
    assert len(book) == 0


def test_what_a_peer_says_of_itself_counts_more_than_what_others_say(book, clock):
    book.heard(A, capabilities=["gossip"])
    assert book.seen(A, capabilities=["gpu"], protocols=["/b", "/a"], agent="greenroom/1\n")
    book.heard(A, capabilities=["gossip"])
    known = book.get(A)
    assert (known.capabilities, known.protocols, known.agent) == (["gpu"], ["/a", "/b"], "greenroom/1")
    assert known.last_seen == clock.now


@pytest.mark.parametrize("nobody", ["", "a b", "x" * 129, "ä", "../x"])
def test_what_is_no_peer_id_is_not_put_down(book, nobody):
    assert not book.heard(nobody)
    assert not book.connected(nobody, inbound=True)
    assert len(book) == 0


def test_what_a_peer_says_is_bounded(book):
    book.heard(A, [f"/ip4/192.0.2.1/tcp/{port}" for port in range(1, 100)] + ["no address", "/" + "x" * ADDRESS_CHARS])
    book.seen(A, capabilities=[f"c{n}" for n in range(1000)] + ["x" * 1000], agent="x" * 10_000)
    known = book.get(A)
    assert len(known.addresses) == MOST_ADDRESSES - 1
    assert len(known.capabilities) == MOST_NAMES
    assert len(known.agent) == 100


def test_the_address_that_a_peer_was_reached_at_is_never_driven_out_by_hearsay(book):
    book.connected(A, "/ip4/192.0.2.1/tcp/1", inbound=False)
    book.connected(A, "/ip4/192.0.2.1/tcp/2", inbound=False)
    for port in range(3, 50):
        book.heard(A, [f"/ip4/192.0.2.1/tcp/{port}"])
    assert book.get(A).addresses[:2] == ["/ip4/192.0.2.1/tcp/2", "/ip4/192.0.2.1/tcp/49"]
    assert len(book.get(A).addresses) == MOST_ADDRESSES


def test_where_an_inbound_connection_comes_from_is_no_address_to_reach_it_at(book):
    book.connected(A, "/ip4/192.0.2.1/tcp/55555", inbound=True)
    assert (book.get(A).addresses, book.get(A).address) == ([], "/ip4/192.0.2.1/tcp/55555")


def test_a_connection_has_a_beginning_and_an_end(book, clock):
    book.connecting(A)
    assert (book.get(A).status, book.get(A).last_seen) == ("connecting", None)
    clock.now += 5.0
    book.connected(A, inbound=False)
    began = clock.now
    clock.now += 3600.0
    book.connected(A, inbound=True)
    assert (book.get(A).status, book.get(A).connected_since) == ("connected", began)
    book.connecting(A)
    assert book.get(A).status == "connected"
    assert metrics(book.get(A), clock.now).uptime_hours == 1.0
    book.disconnected(A)
    known = book.get(A)
    assert (known.status, known.connected_since, known.last_seen) == ("disconnected", None, clock.now)


def test_a_connection_that_could_not_be_made_is_no_sign_of_life(book, clock):
    book.connecting(A)
    book.disconnected(A)
    assert (book.get(A).status, book.get(A).last_seen) == ("disconnected", None)


# --- what was measured ---------------------------------------------------------------------------------------------


def test_the_first_value_stands_and_later_ones_move_it(book):
    book.seen(A)
    book.latency(A, 0.1)
    assert book.get(A).latency_s == 0.1
    book.latency(A, 0.2)
    assert 0.1 < book.get(A).latency_s < 0.2
    for _ in range(100):
        book.latency(A, 0.2)
    assert book.get(A).latency_s == pytest.approx(0.2)


def test_a_ping_without_an_answer_lowers_the_quality_and_leaves_the_latency(book):
    book.seen(A)
    book.latency(A, 0.1)
    book.latency(A, None)
    assert book.get(A).latency_s == 0.1
    assert 0.0 < book.get(A).answered < 1.0


def test_bandwidth_is_that_of_real_transfers(book, clock):
    book.seen(A)
    book.transferred(A, LEAST_TRANSFER_BYTES - 1, 1.0)
    book.transferred(A, LEAST_TRANSFER_BYTES, 0.0)
    assert book.get(A).bandwidth_bps is None
    book.transferred(A, 1_000_000, 2.0)
    assert book.get(A).bandwidth_bps == 4_000_000.0
    assert metrics(book.get(A), clock.now).bandwidth_mbps == 4.0


def test_speed_is_how_many_tasks_a_peer_does_in_a_second_however_many_at_once(book):
    book.seen(A)
    book.outcome(A, Outcome(ok=True, seconds=2.0, in_flight=4))
    assert book.get(A).speed == 2.0
    book.outcome(A, Outcome(ok=False, seconds=0.001))
    assert book.get(A).speed == 2.0


def test_outcomes_are_counted(book):
    book.seen(A)
    for outcome in (DONE, DONE, DONE, FAILED):
        book.outcome(A, outcome)
    known = book.get(A)
    assert (known.successes, known.failures, known.success_share) == (3, 1, 0.75)
    assert 0.5 < known.reputation < 0.75


def test_a_lie_is_a_failure_that_bans(book, clock):
    book.seen(A)
    book.outcome(A, DONE)
    book.lied(A, "/ip4/192.0.2.1/tcp/1", "wrong output")
    known = book.get(A)
    assert (known.lies, known.failures, known.ban_reason) == (1, 1, "wrong output")
    assert known.banned_until == clock.now + 960.0
    assert known.reputation < 0.1
    clock.now = known.banned_until
    assert book.get(A).banned_until is None


def test_a_violation_of_a_stranger_bans_it_although_the_book_does_not_know_it(book):
    book.violated(A, "", "no frame")
    assert A not in book
    book.heard(A)
    assert book.get(A).ban_reason == "no frame"


# --- history -------------------------------------------------------------------------------------------------------


def test_a_point_of_the_history_sums_up_what_was_measured_in_its_time(book, clock):
    book.seen(A)
    book.latency(A, 0.1)
    book.latency(A, 0.3)
    book.latency(A, None)
    book.transferred(A, 1_000_000, 1.0)
    book.transferred(A, 1_000_000, 3.0)
    book.outcome(A, DONE)
    book.lied(A, "", "x")
    assert book.get(A).history == []
    clock.now += POINT_S
    book.sweep()
    [point] = book.get(A).history
    assert point.at == clock.now
    assert point.latency_s == pytest.approx(0.2)
    assert point.bandwidth_bps == 4_000_000.0
    assert (point.pings, point.answered, point.successes, point.failures) == (3, 2, 1, 1)


def test_no_point_is_made_up_for_a_time_in_which_nothing_was_measured(book, clock):
    book.seen(A)
    book.latency(A, None)
    clock.now += 10 * POINT_S
    book.latency(A, 0.1)
    clock.now += POINT_S
    book.sweep()
    book.sweep()
    lost, answered = book.get(A).history
    assert (lost.latency_s, lost.bandwidth_bps, lost.pings, lost.answered) == (None, None, 1, 0)
    assert answered.at - lost.at == 10 * POINT_S


def test_the_history_keeps_the_latest_points(book, clock):
    book.seen(A)
    for number in range(MOST_POINTS + 10):
        book.latency(A, float(number))
        clock.now += POINT_S
    book.sweep()
    points = book.get(A).history
    assert len(points) == MOST_POINTS
    assert points[-1].latency_s == MOST_POINTS + 9
    assert [one.at for one in history(book.get(A), 1.0, clock.now)] == [
        clock.now - POINT_S * back for back in range(6, -1, -1)
    ]


# --- bounds --------------------------------------------------------------------------------------------------------


def test_hearsay_drives_out_the_oldest_hearsay(clock):
    book = small(clock)
    for one in (A, B, C):
        book.heard(one)
    book.heard(A)
    book.heard(D)
    assert set(book) == {A, C, D}


def test_a_flood_of_hearsay_leaves_those_who_were_here(clock):
    book = small(clock)
    book.seen(A)
    book.seen(B)
    flood(book)
    assert len(book) == 3
    assert {A, B} < set(book)
    book.seen(C)
    flood(book)
    assert set(book) == {A, B, C}
    assert book.turned_away == 50


def test_a_flood_of_visitors_leaves_those_who_were_useful(clock):
    book = small(clock)
    book.seen(A)
    book.outcome(A, DONE)
    for number in range(1000, 1050):
        assert book.connected(peer(number), inbound=True)
        book.disconnected(peer(number))
    assert len(book) == 3
    assert A in book


def test_who_is_here_or_wanted_is_never_driven_out(clock):
    book = small(clock)
    book.connected(A, inbound=True)
    book.connecting(B)
    book.persist(C)
    assert not book.seen(D)
    assert not book.persist(D)
    book.disconnected(B)
    assert book.persist(D)
    assert set(book) == {A, C, D}
    assert set(book.persistent()) == {C, D}


def test_an_operators_wish_drives_out_even_one_that_was_useful(clock):
    book = small(clock, most=1)
    book.seen(A)
    book.outcome(A, DONE)
    assert not book.connected(B, inbound=True)
    assert book.persist(B, addresses=["/ip4/192.0.2.1/tcp/1"])
    assert (set(book), book.get(B).addresses) == ({B}, ["/ip4/192.0.2.1/tcp/1"])


def test_a_peer_of_which_nothing_was_heard_is_forgotten(clock):
    book = book_of(clock, keep_s=100.0)
    for one in (A, B, C, D):
        book.heard(one)
    book.persist(C)
    book.connected(D, inbound=True)
    clock.now += 60.0
    book.heard(B)
    clock.now += 60.0
    assert book.sweep() == 1
    assert set(book) == {B, C, D}
    book.disconnected(D)
    book.persist(C, persistent=False)
    clock.now += 101.0
    assert book.sweep() == 3


STEPS = st.tuples(
    st.sampled_from(["heard", "seen", "connected", "disconnected", "persist", "drop", "done", "lied", "wait", "sweep"]),
    st.integers(0, 9),
)


@given(st.lists(STEPS, max_size=60), st.integers(1, 4))
def test_the_book_has_its_bound_and_keeps_who_is_pinned(steps, most):
    clock = Clock()
    book = book_of(clock, max_peers=most, keep_s=50.0, most_bans=2)
    for what, number in steps:
        one = peer(number)
        pinned = {name for name in book if book.get(name).persistent or book.get(name).status == "connected"}
        match what:
            case "heard" | "seen":
                getattr(book, what)(one)
            case "connected":
                book.connected(one, inbound=True)
            case "disconnected" | "drop":
                book.disconnected(one) if what == "disconnected" else book.forget(one)
                pinned.discard(one)
            case "persist":
                book.persist(one, persistent=number % 3 > 0)
                pinned.discard(one)
            case "done":
                book.outcome(one, DONE)
            case "lied":
                book.lied(one, "/ip4/192.0.2.1/tcp/1", "x")
            case "wait":
                clock.now += number * 10.0
            case "sweep":
                book.sweep()
        assert len(book) <= most
        assert pinned <= set(book)
        assert len(book.bans) <= 4


# --- lists ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def listed(book, clock):
    """A: slow and wide, here. B: fast and narrow. C: nothing is known. D: like C, and only others told of it."""
    book.heard(D, capabilities=["gpu"])
    book.seen(C)
    clock.now += 1.0
    book.connected(A, inbound=False)
    book.seen(A, capabilities=["gpu", "web"])
    book.latency(A, 0.5)
    book.transferred(A, 10_000_000, 1.0)
    clock.now += 1.0
    book.seen(B, capabilities=["gpu"])
    book.latency(B, 0.1)
    book.transferred(B, 1_000_000, 1.0)
    return book


def ids(found):
    return [one.peer_id for one in found.peers]


@pytest.mark.parametrize(
    ("sort_by", "order"),
    [
        ("last_seen", [B, A, C, D]),
        ("latency", [B, A, C, D]),
        ("bandwidth", [A, B, C, D]),
        ("peer_id", [A, B, C, D]),
    ],
)
def test_a_list_has_its_order_and_what_is_not_known_comes_last(listed, sort_by, order):
    assert ids(page(listed, ListPeers(sort_by=sort_by))) == order


def test_a_list_is_filtered(listed):
    assert ids(page(listed, ListPeers(status="connected"))) == [A]
    assert ids(page(listed, ListPeers(status="disconnected", sort_by="peer_id"))) == [B, C, D]
    assert page(listed, ListPeers(status="connecting")).total == 0
    assert ids(page(listed, ListPeers(capabilities=["gpu"], sort_by="peer_id"))) == [A, B, D]
    assert ids(page(listed, ListPeers(capabilities=["web", "gpu"]))) == [A]


@given(
    st.lists(st.none() | st.floats(0.0, 9.0), max_size=20), st.integers(1, 7), st.sampled_from(["latency", "peer_id"])
)
def test_pages_hold_each_peer_once_and_in_order(latencies, limit, sort_by):
    book = book_of(Clock())
    for number, latency in enumerate(latencies):
        book.seen(peer(number))
        if latency is not None:
            book.latency(peer(number), latency)
    whole, more = [], True
    while more:
        query = ListPeers(sort_by=sort_by, limit=limit, offset=len(whole))
        found = page(book, query)
        assert found.total == len(latencies)
        whole += found.peers
        more = found.has_more(query)
    assert {one.peer_id for one in whole} == set(book)
    keys = [math.inf if one.latency_s is None else one.latency_s for one in whole]
    assert len(whole) == len(latencies)
    assert sort_by == "peer_id" or keys == sorted(keys)


def test_half_of_the_book_is_for_those_that_come_by_themselves(clock):
    book = book_of(clock, max_peers=4)
    assert book.persist(A)
    assert book.persist(B)
    assert not book.persist(C)
    assert book.persist(A), "it is wanted already"
    book.persist(A, persistent=False)
    assert book.persist(C)
    book.forget(C)
    assert book.persistent() == [B]
    assert book.persist(D)
