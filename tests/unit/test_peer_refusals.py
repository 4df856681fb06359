# SPDX-License-Identifier: AGPL-3.0-or-later
"""Asking for what one may not have is a mistake, and forgiven; asking on and on is a violation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer_books import RULES, Clock, peer

from actors.errors import ForbiddenError
from actors.p2p.peer_registry.admission import Admission, Caller, Right
from actors.p2p.peer_registry.bans import Bans
from actors.p2p.peer_registry.refusals import Refusals
from actors.settings_p2p import PeerGrant, PeerRegistrySettings

FRIEND, STRANGER = map(peer, range(2))
HOME, AWAY, HERE = "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.9/tcp/1", "/ip4/127.0.0.1/tcp/1"
ECHO, SHELL = Right("tool", "echo"), Right("tool", "shell")


class World:
    """A node that forgives one of three refusals every ten seconds."""

    def __init__(self):
        self.clock = Clock()
        settings = PeerRegistrySettings(
            allow={FRIEND: PeerGrant(tools=["echo"])}, max_refused=3, refused_forgive_s=10.0
        )
        self.bans = Bans(RULES, self.clock)
        self.admission = Admission(settings, self.bans, self.clock)
        self.abuse = []
        self.admission.on_abuse = lambda peer_id, reason: self.abuse.append(peer_id)

    def ask(self, times, peer_id=STRANGER, address=HOME, right=SHELL):
        for _ in range(times):
            with pytest.raises(ForbiddenError):
                self.admission.may(Caller(peer_id, address), right)


@pytest.fixture
def world():
    return World()


def test_the_one_that_is_one_too_many_is_a_violation_and_then_it_begins_anew(world):
    world.ask(3)
    assert world.abuse == []
    world.ask(1)
    assert world.abuse == [STRANGER]


def test_time_forgives(world):
    world.ask(3)
    for _ in range(20):
        world.clock.now += 10.0
        world.ask(1)
    assert world.abuse == []
    world.ask(1)
    assert world.abuse == [STRANGER]


def test_a_friend_that_asks_for_more_than_it_was_granted_is_no_better(world):
    for _ in range(50):
        world.admission.may(Caller(FRIEND, HOME), ECHO)
    assert world.abuse == []
    world.ask(4, FRIEND)
    assert world.abuse == [FRIEND]


def test_new_ids_at_one_address_are_of_no_use(world):
    for number in range(10, 13):
        world.ask(1, peer(number))
    world.ask(1, peer(13), AWAY)
    assert world.abuse == []
    world.ask(1, peer(14))
    assert world.abuse == [peer(14)]


def test_neighbours_of_this_machine_and_those_that_are_named_answer_for_themselves_only(world):
    for number in range(10, 30):
        world.ask(1, peer(number), HERE)
        world.ask(1, peer(number), "")
    world.ask(3, FRIEND, AWAY)
    world.ask(3, STRANGER, AWAY)
    assert world.abuse == []


def test_to_look_and_to_be_banned_are_no_offences(world):
    for _ in range(10):
        assert world.admission.grant_of(Caller(STRANGER, HOME)) is None
        with pytest.raises(ForbiddenError):
            world.admission.welcome(Caller(STRANGER, HOME))
    world.bans.violation(STRANGER, "", "noise")
    world.ask(10)
    assert world.abuse == []


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 20)), max_size=80))
def test_of_whatever_comes_no_more_is_borne_than_was_said(steps):
    """And what is remembered is bounded."""
    refusals, now, borne = Refusals(3, 10.0, subjects=5), 0.0, {}
    for wait_s, number in steps:
        now += wait_s
        known = borne.setdefault(number, [])
        known.append(now)
        if refusals.add(str(number), now):
            known.clear()
        assert len(refusals) <= 5
        if len(borne) <= 5:
            for first, begin in enumerate(known):
                for last, end in enumerate(known[first:], first):
                    assert last - first + 1 <= 3 + (end - begin) / 10.0 + 1e-6
