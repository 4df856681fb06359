# SPDX-License-Identifier: AGPL-3.0-or-later
"""What peers are told of each other: where they are as far as it was seen, and never somebody else's address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer_books import Clock, peer

from actors.p2p.peer_registry.introductions import (
    KEPT_S,
    MOST_PORTS,
    MOST_TOLD,
    Introductions,
    ip_of,
    may_be_told,
    places_of,
)

FAR, NEAR, HERE = "/ip4/9.9.9.9/tcp/50000", "/ip4/10.0.0.7/tcp/50000", "/ip4/127.0.0.1/tcp/50000"
A, B, C = map(peer, range(3))


@pytest.mark.parametrize(
    ("said", "places"),
    [
        (["/ip4/9.9.9.9/tcp/4001"], ["/ip4/9.9.9.9/tcp/4001"]),
        (["/ip4/0.0.0.0/tcp/4001/p2p/" + A], ["/ip4/9.9.9.9/tcp/4001"]),
        # A router forwards the port.
        (["/ip4/10.0.0.7/tcp/4001"], ["/ip4/9.9.9.9/tcp/4001"]),
        # Whoever lives there is not dialled on the word of others.
        (["/ip4/8.8.8.8/tcp/443"], ["/ip4/9.9.9.9/tcp/443"]),
        (["/ip4/9.9.9.9/tcp/1", "/ip6/::/tcp/1", "/ip4/9.9.9.9/tcp/2"], ["/ip4/9.9.9.9/tcp/1", "/ip4/9.9.9.9/tcp/2"]),
        (["/dns4/victim.example/tcp/4001"], []),
        (["/ip4/9.9.9.9/udp/4001/quic-v1"], []),
        (["/ip4/9.9.9.9/tcp/4001/p2p/x/p2p-circuit"], []),
        (["/ip4/9.9.9.9/tcp/0", "/ip4/9.9.9.9/tcp/65536", "/ip4/9.9.9.9/tcp/²", "/ip4/9.9.9.9/tcp", "x", ""], []),
        ([], []),
    ],
)
def test_only_the_port_is_the_word_of_the_peer(said, places):
    assert places_of(said, FAR) == places


def test_of_a_peer_whose_address_is_unknown_nothing_is_told():
    for connection in ("", "/dns4/a.example/tcp/1", "/ip4/9.9.9.9/tcp/1/p2p/x/p2p-circuit"):
        assert places_of(["/ip4/9.9.9.9/tcp/4001"], connection) == []


@given(st.lists(st.text(max_size=40) | st.from_regex(r"/ip[46]/[0-9a-f.:]{1,20}/tcp/[0-9]{1,6}", fullmatch=True)))
def test_whatever_is_said_the_address_is_the_one_that_was_seen(said):
    places = places_of(said, FAR)
    assert len(places) <= MOST_PORTS
    assert {ip_of(place) for place in places} <= {ipaddress.ip_address("9.9.9.9")}
    assert all(0 < int(place.rpartition("/")[2]) < 65536 for place in places)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/ip4/8.8.8.8/tcp/1", {FAR, NEAR, HERE, ""}),
        ("/ip6/2620:fe::fe/tcp/1", {FAR, NEAR, HERE, ""}),
        ("/ip4/192.168.1.4/tcp/1", {NEAR, HERE}),
        ("/ip4/169.254.1.4/tcp/1", {NEAR, HERE}),
        ("/ip6/fd00::1/tcp/1", {NEAR, HERE}),
        ("/ip4/127.0.0.1/tcp/1", {HERE}),
        ("/ip6/::1/tcp/1", {HERE}),
        ("/ip6/::ffff:127.0.0.1/tcp/1", {HERE}),
        ("/ip4/0.0.0.0/tcp/1", set()),
        ("/ip4/224.0.0.251/tcp/1", set()),
        ("/dns4/a.example/tcp/1", set()),
        ("nonsense", set()),
    ],
)
def test_an_address_is_told_where_it_means_the_same(address, told):
    assert {whom for whom in (FAR, NEAR, HERE, "") if may_be_told(address, whom)} == told


def test_peers_are_introduced_to_others_but_not_to_themselves():
    known = Introductions(Clock())
    for who, port in ((A, 1), (B, 2)):
        known.says(who, [f"/ip4/0.0.0.0/tcp/{port}"], HERE)
    assert known.for_peer(A, HERE, 10) == {B: ["/ip4/127.0.0.1/tcp/2"]}
    assert known.for_peer(C, HERE, 10).keys() == {A, B}
    assert known.for_peer(C, FAR, 10) == {}


def test_who_said_nothing_for_a_while_is_told_of_no_longer():
    clock = Clock()
    known = Introductions(clock)
    known.says(A, ["/ip4/0.0.0.0/tcp/1"], HERE)
    clock.now += KEPT_S - 1
    known.says(B, ["/ip4/0.0.0.0/tcp/2"], HERE)
    assert known.for_peer(C, HERE, 10).keys() == {A, B}
    clock.now += 2
    assert known.for_peer(C, HERE, 10).keys() == {B}
    known.says(B, [], HERE)
    assert known.for_peer(C, HERE, 10) == {}


def test_no_answer_and_no_memory_grows_with_those_who_come():
    known = Introductions(Clock(), most=300)
    for number in range(400):
        known.says(peer(number), ["/ip4/0.0.0.0/tcp/1"], HERE)
    assert len(known) == 300
    told = known.for_peer(A, HERE, 1000)
    assert len(told) == MOST_TOLD
    assert told.keys() <= {peer(number) for number in range(100, 400)}, "the latest are kept"
    assert len(known.for_peer(A, HERE, 7)) == 7
