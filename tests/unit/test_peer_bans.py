# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bans: by id and by address, longer with each violation, and forgiven with time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer_books import RULES, Clock, peer

from actors.p2p.peer_registry.addresses import neighbour
from actors.p2p.peer_registry.bans import Bans, Offence

A, B, C = map(peer, range(3))
HOME, HOME_TOO, AWAY = "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2", "/ip4/192.0.2.9/tcp/1"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bans(clock):
    return Bans(RULES, clock, most=5)


def length(ban, clock):
    return ban.until - clock.now


def test_a_reason_is_short_and_plain(bans):
    assert bans.violation(A, "", "a\n\x1b[31m" + "x" * 1000).reason == "a[31m" + "x" * 193


def test_a_violation_bans_the_peer_and_everybody_at_its_address(bans, clock):
    ban = bans.violation(A, HOME, "no frame")
    assert (ban.subject, ban.reason, length(ban, clock)) == (A, "no frame", 60.0)
    assert bans.of_peer(A) == ban
    assert bans.of_peer(B) is None
    assert bans.of_address(HOME_TOO).reason == "no frame"
    assert bans.of_address(AWAY) is None
    assert [one.subject for one in bans.holding()] == [A, "192.0.2.1"]
    clock.now += 60.0
    assert bans.of_peer(A) is bans.of_address(HOME) is None
    assert bans.holding() == []


def test_each_further_violation_bans_twice_as_long_up_to_the_longest_ban(bans, clock):
    lengths = []
    for _ in range(7):
        ban = bans.violation(A, "", "x")
        lengths.append(length(ban, clock))
        clock.now = ban.until
    assert lengths == [60.0, 120.0, 240.0, 480.0, 960.0, 960.0, 960.0]


def test_an_address_is_banned_for_longer_although_each_id_is_new(bans, clock):
    for number in range(3):
        bans.violation(peer(number), HOME, "x")
        ban = bans.of_address(HOME)
        last, clock.now = length(ban, clock), ban.until
    assert last == 240.0


def test_what_comes_during_a_ban_is_the_same_violation(bans, clock):
    first = bans.violation(A, HOME, "x")
    clock.now += 1.0
    assert bans.violation(A, HOME, "y") == first


def test_a_lie_bans_for_the_longest_time_at_once_but_the_address_as_any_violation(bans, clock):
    bans.violation(A, "", "x")
    ban = bans.lie(A, HOME, "wrong output")
    assert (length(ban, clock), ban.reason) == (960.0, "wrong output")
    assert length(bans.of_address(HOME), clock) == 60.0
    clock.now = ban.until
    assert length(bans.violation(A, "", "x"), clock) == 960.0


def test_time_forgives_one_violation_after_the_other(bans, clock):
    for _ in range(3):
        clock.now = bans.violation(A, "", "x").until
    clock.now += RULES.forgive_s
    assert length(bans.violation(A, "", "x"), clock) == 240.0
    clock.now = bans.of_peer(A).until + 3 * RULES.forgive_s
    bans.sweep()
    assert len(bans) == 0
    assert length(bans.violation(A, "", "x"), clock) == 60.0


def test_an_operator_can_forgive(bans):
    bans.lie(A, HOME, "x")
    assert bans.forgive(A)
    assert bans.forgive(HOME_TOO)
    assert not bans.forgive(A)
    assert bans.of_peer(A) is bans.of_address(HOME) is None


@pytest.mark.parametrize("address", ["", "/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/dns4/x.org/tcp/1"])
def test_neither_this_machine_nor_what_is_unknown_is_banned_as_an_address(bans, address):
    bans.violation(A, address, "x")
    assert bans.of_address(address) is None
    assert len(bans) == 1


@pytest.mark.parametrize(
    ("multiaddr", "name"),
    [
        ("/ip4/192.0.2.1/tcp/4001/p2p/12D3", "192.0.2.1"),
        ("/ip6/2001:db8:1:2:3:4:5:6/tcp/1", "2001:db8:1:2::/64"),
        ("/ip6/2001:db8:1:2::9/tcp/1", "2001:db8:1:2::/64"),
        ("/ip6/::9/tcp/1", "::/64"),
        ("/ip6/::ffff:192.0.2.1/tcp/1", "192.0.2.1"),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", "fe80::/64"),
        ("/ip6/::1/tcp/1", "::1"),
        ("/ip4/192.0.2.1/tcp/1/p2p/12D3/p2p-circuit", ""),
        ("/dns4/example.org/tcp/1", ""),
        ("/ip4/999.0.2.1/tcp/1", ""),
        ("/ip4", ""),
        ("/ip6zone/eth0", ""),
        ("192.0.2.1", ""),
        ("", ""),
    ],
)
def test_neighbours_are_told_by_ip_address_or_ipv6_network(multiaddr, name):
    assert neighbour(multiaddr) == name


def test_those_that_are_forgiven_first_go_when_there_are_too_many(bans, clock):
    bans.lie(A, "", "x")
    for number in range(10, 10_000):
        clock.now += 0.001
        bans.violation(peer(number), "", "x")
    assert len(bans) == 5
    assert bans.of_peer(A) is not None
    assert bans.of_peer(peer(9999)) is not None
    assert bans.of_peer(peer(10)) is None


def test_a_ban_that_became_longer_is_not_driven_out_by_its_old_end(bans, clock):
    bans.violation(A, "", "x")
    clock.now = bans.of_peer(A).until
    bans.lie(A, "", "x")
    for number in range(10, 20):
        bans.violation(peer(number), "", "x")
    assert bans.of_peer(A) is not None


def test_ids_do_not_drive_out_addresses(bans):
    bans.violation(A, HOME, "x")
    for number in range(10, 100):
        bans.lie(peer(number), "", "x")
    assert bans.of_address(HOME) is not None


def test_bans_are_known_again_but_never_longer_than_a_new_one_could_be(bans, clock):
    bans.lie(A, HOME, "x")
    again = Bans(RULES, clock, most=5)
    again.restore([*bans.all(), Offence(B, 1e9, 1e18, "far future"), Offence(C, 1.0, clock.now - 1e6, "long ago")])
    assert again.of_peer(A) == bans.of_peer(A)
    assert again.of_address(HOME) == bans.of_address(HOME)
    assert again.of_peer(B).until == clock.now + 960.0
    assert again.get(C) is None


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["violation", "lie", "forgive", "wait", "sweep"]))))
def test_bans_have_bounds_and_end(steps):
    clock = Clock()
    bans = Bans(RULES, clock, most=3)
    for number, what in steps:
        match what:
            case "wait":
                clock.now += number * 50.0
            case "sweep":
                bans.sweep()
            case "forgive":
                bans.forgive(peer(number))
                assert bans.of_peer(peer(number)) is None
            case _:
                ban = getattr(bans, what)(peer(number), f"/ip4/192.0.2.{number}/tcp/1", "x")
                assert 0.0 < length(ban, clock) <= RULES.ban_max_s
        assert len(bans) <= 6
    clock.now += RULES.ban_max_s + RULES.top_level * RULES.forgive_s
    bans.sweep()
    assert len(bans) == 0
