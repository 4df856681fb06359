# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which peer is offered some work."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_books import peer

from actors.p2p.peer_registry.selection import MOST_SHOWN, Candidate, Choice, Need, choose, eta, rendezvous

CID = b"\x01\x55\x12\x20" + bytes(32)
KNOWN_SCORE = 3.504357079324569
KNOWN_ORDER = [2, 0, 3, 4, 1]
NEED = Need(capabilities=frozenset({"gpu"}), silent_most_s=15.0, trust_floor=0.3)
GPU = frozenset({"gpu"})


def able(number, **more):
    return Candidate(peer_id=peer(number), **{"capabilities": GPU, "speed": 1.0} | more)


def order(choice):
    return [one.peer_id for one in choice.ranked]


amounts = st.integers(0, 20)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        peer_id=st.integers(0, 30).map(peer),
        capabilities=st.sampled_from([GPU, GPU | {"web"}, frozenset()]),
        silent_s=st.sampled_from([0.0, 15.0, 15.1, math.nan]),
        reputation=st.sampled_from([0.0, 0.29, 0.3, 1.0, math.nan]),
        success=st.floats(0.0, 1.0),
        draining=st.sampled_from([False, False, True]),
        banned=st.sampled_from([False, False, True]),
        speed=st.none() | st.floats(0.0, 1e6) | st.sampled_from([math.inf, math.nan, -1.0]),
        queue=amounts,
        in_flight=amounts,
        run_s=st.floats(0.0, 100.0),
        fetch_s=st.floats(0.0, 100.0),
    ),
    unique_by=lambda one: one.peer_id,
    max_size=12,
)
GOOD = st.lists(
    st.builds(
        able,
        st.integers(0, 30),
        speed=st.none() | st.floats(0.1, 10.0),
        success=st.floats(0.1, 1.0),
        queue=amounts,
        run_s=st.floats(0.0, 10.0),
    ),
    unique_by=lambda one: one.peer_id,
    min_size=1,
    max_size=10,
)
CIDS = st.binary(min_size=1, max_size=36)
DS = st.integers(1, 4)


# --- filter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "one"),
    [
        ("capabilities", able(0, capabilities=frozenset({"web"}))),
        ("silent", able(0, silent_s=15.1)),
        ("trust", able(0, reputation=0.2)),
        ("draining", able(0, draining=True)),
        ("banned", able(0, banned=True)),
        ("worthless", able(0, success=0.0)),
        ("worthless", able(0, speed=0.0)),
    ],
)
def test_a_peer_that_can_not_have_it_is_left_out_and_told_why(why, one):
    choice = choose([one, able(1, success=1e-3)], CID, NEED)
    assert choice.left_out == {peer(0): why}
    assert choice.offers == [peer(1)]


def test_nobody_is_chosen_where_nobody_can_have_it():
    for candidates in ([], [able(0, banned=True)]):
        choice = choose(candidates, CID, NEED)
        assert (choice.chosen, choice.offers, choice.ranked) == (None, [], [])


@given(CANDIDATES, CIDS, DS)
def test_a_filtered_peer_is_never_offered_anything(candidates, cid, d):
    choice = choose(candidates, cid, NEED, d=d)
    fit = {
        one.peer_id
        for one in candidates
        if one.capabilities >= GPU
        and one.silent_s <= 15.0
        and one.reputation >= 0.3
        and not one.draining
        and not one.banned
        and (1.0 if one.speed is None else one.speed) * one.success >= 1e-9
    }
    assert set(order(choice)) == fit
    assert set(choice.left_out) == {one.peer_id for one in candidates} - fit
    assert set(choice.offers) == set(order(choice)[:d])
    assert len(choice.offers) == min(d, len(fit))


# --- rank ----------------------------------------------------------------------------------------------------------


@given(CANDIDATES, CIDS, DS, st.randoms(use_true_random=False))
def test_every_node_chooses_the_same_in_whatever_order_it_knows_the_peers(candidates, cid, d, random):
    shuffled = list(candidates)
    random.shuffle(shuffled)
    one, other = choose(candidates, cid, NEED, d=d), choose(shuffled, cid, NEED, d=d)
    assert one.record() == other.record()
    assert one.ranked == other.ranked


def test_the_hash_is_the_same_on_every_node_and_in_every_version():
    assert rendezvous(CID, peer(0), 1.0) == pytest.approx(KNOWN_SCORE)
    assert order(choose([able(n) for n in range(5)], CID, NEED)) == [peer(n) for n in KNOWN_ORDER]


@given(GOOD, CIDS, DS, st.data())
def test_when_a_peer_leaves_only_its_own_work_goes_elsewhere(candidates, cid, d, data):
    leaves = data.draw(st.sampled_from(candidates)).peer_id
    before = choose(candidates, cid, NEED, d=d)
    now = choose([one for one in candidates if one.peer_id != leaves], cid, NEED, d=d)
    assert order(now) == [one for one in order(before) if one != leaves]
    if leaves not in before.offers:
        assert now.offers == before.offers


@given(GOOD, CIDS, st.data())
def test_a_peer_that_becomes_faster_loses_no_work(candidates, cid, data):
    at = data.draw(st.integers(0, len(candidates) - 1))
    faster = list(candidates)
    one = candidates[at]
    faster[at] = msgspec.structs.replace(one, speed=(one.speed or 1.0) * 2.0)
    before, now = order(choose(candidates, cid, NEED)), order(choose(faster, cid, NEED))
    assert now.index(one.peer_id) <= before.index(one.peer_id)
    assert [one for one in now if one != faster[at].peer_id] == [one for one in before if one != faster[at].peer_id]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=2, max_size=4), st.integers(0, 10**6))
def test_the_share_of_work_follows_the_weight(weights, seed):
    """Five standard deviations: one run in a million fails by chance, and these examples are few."""
    works = 1000
    first = Counter(
        max(range(len(weights)), key=lambda n: rendezvous(cid, peer(n), float(weights[n])))
        for cid in (b"%d %d" % (seed, work) for work in range(works))
    )
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(first[number] - works * share) <= 5.0 * math.sqrt(works * share * (1.0 - share))


def test_a_peer_that_was_not_measured_gets_work_so_that_it_is():
    candidates = [able(0, speed=None), able(1, speed=1.0)]
    first = Counter(order(choose(candidates, b"%d" % work, NEED))[0] for work in range(300))
    assert 100 < first[peer(0)] < 200


@pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32])
def test_the_ends_of_the_hashs_range_give_numbers(monkeypatch, digest):
    class Fixed:
        def digest(self):
            return digest

    monkeypatch.setattr("actors.p2p.peer_registry.selection.hashlib.sha256", lambda _: Fixed())
    score = rendezvous(CID, peer(0), 1.0)
    assert 0.0 < score < math.inf
    assert rendezvous(CID, peer(0), 2.0) == 2.0 * score


# --- choice --------------------------------------------------------------------------------------------------------


@given(CANDIDATES, CIDS, DS)
def test_of_the_first_by_rank_the_soonest_is_asked_first_then_the_others_by_rank(candidates, cid, d):
    choice = choose(candidates, cid, NEED, d=d)
    by_id = {one.peer_id: one for one in candidates}
    first = order(choice)[:d]
    if first:
        soonest = min(eta(by_id[one], NEED) for one in first)
        assert eta(by_id[choice.chosen], NEED) == soonest
        assert choice.chosen == next(one for one in first if eta(by_id[one], NEED) == soonest)
        assert choice.offers[1:] == [one for one in first if one != choice.chosen]


def test_the_eta_counts_the_queue_what_was_given_since_the_run_and_the_data():
    one = able(0, speed=2.0, queue=3, in_flight=1, run_s=5.0, fetch_s=0.5)
    assert eta(one, NEED) == 7.5
    assert eta(able(0, speed=None, queue=3), Need(unmeasured_speed=0.5)) == 6.0


def test_the_second_by_rank_gets_it_when_the_first_is_busy():
    ranked = order(choose([able(n) for n in range(10)], CID, NEED))
    busy = [able(n, in_flight=10 if peer(n) == ranked[0] else 0) for n in range(10)]
    assert choose(busy, CID, NEED, d=2).offers == [ranked[1], ranked[0]]
    assert choose(busy, CID, NEED, d=1).offers == [ranked[0]]


# --- what is stored ------------------------------------------------------------------------------------------------


@given(CANDIDATES, CIDS, DS)
def test_what_is_stored_of_a_choice_says_why_and_is_bounded_json(candidates, cid, d):
    choice = choose(candidates, cid, NEED, d=d)
    stored = msgspec.json.decode(msgspec.json.encode(choice.record()))
    assert stored["offers"] == choice.offers
    assert stored["ranked"] == len(choice.ranked)
    assert sum(stored["left_out"].values()) == len(choice.left_out)
    assert [one["peer"] for one in stored["candidates"]] == order(choice)[:MOST_SHOWN]
    numbers = [one[name] for one in stored["candidates"] for name in ("weight", "score", "eta_s")]
    assert all(isinstance(number, float) and math.isfinite(number) for number in numbers)


def test_a_choice_says_for_what_it_was():
    choice = choose([able(0)], CID, NEED)
    assert isinstance(choice, Choice)
    assert (choice.affinity, choice.d, choice.record()["rule"]) == (CID, 2, "weighted-rendezvous-1")
