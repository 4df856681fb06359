# SPDX-License-Identifier: AGPL-3.0-or-later
"""Peers are dialled at all their addresses, kept where that is wanted, and not all at once."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import trio
import trio.testing

from actors.errors import InvalidArgumentsError, PeerIdMismatchError, PeerUnreachableError
from actors.p2p.peer_registry.contacts import JITTER, MOST_PAUSE_S, ContactRules, Contacts, Reached


class Network:
    """A host and a book: `answers` says which addresses answer, after how long."""

    def __init__(self):
        self.answers = {}
        self.book = {}
        self.keep = []
        self.there = set()
        self.dials = []
        self.failures = []
        self.most_at_once = self.at_once = 0

    async def dial(self, address, peer_id, timeout_s):
        self.dials.append((trio.current_time(), address))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.answers.get(address, PeerUnreachableError(f"{address} is silent"))
            if isinstance(answer, Exception):
                raise answer
            with trio.move_on_after(timeout_s):
                await trio.sleep(answer)
                self.there.add(peer_id)
                return
            raise PeerUnreachableError(f"{address} is slow")
        finally:
            self.at_once -= 1

    def is_connected(self, peer_id):
        return peer_id in self.there

    def addresses(self, peer_id):
        return self.book.get(peer_id, [])

    def wanted(self):
        return self.keep

    def connecting(self, peer_id):
        pass

    def failed(self, peer_id):
        self.failures.append(peer_id)

    def contacts(self, **rules):
        return Contacts(self, self, ContactRules(**rules), chance=lambda: 0.5)


@pytest.fixture
def network():
    return Network()


async def test_the_given_address_comes_before_those_that_are_known(network, autojump_clock):
    network.book["p"] = ["/known", "/given"]
    network.answers["/known"] = 0.5
    reached = await network.contacts().reach("p", ["/given"], timeout_s=10)
    assert [address for _, address in network.dials] == ["/given", "/known"]
    assert (reached.address, reached.attempts) == ("/known", 2)
    assert network.failures == []


async def test_who_is_there_is_not_dialled(network):
    network.there.add("p")
    assert await network.contacts().reach("p", ["/a"], timeout_s=10) == Reached("", 0.0, 0)
    assert network.dials == []


async def test_without_an_address_it_says_so(network):
    with pytest.raises(PeerUnreachableError, match="no address of p"):
        await network.contacts().reach("p", timeout_s=10)


async def test_one_slow_address_leaves_time_for_the_others(network, autojump_clock):
    network.answers |= {"/slow": 100.0, "/good": 1.0}
    reached = await network.contacts().reach("p", ["/slow", "/good"], timeout_s=10)
    assert reached.address == "/good"
    assert reached.seconds == pytest.approx(6.0)


async def test_retries_come_with_growing_pauses_and_the_last_error_is_told(network, autojump_clock):
    network.answers["/a"] = PeerIdMismatchError("somebody else")
    with pytest.raises(PeerIdMismatchError, match="somebody else"):
        await network.contacts().reach("p", ["/a"], timeout_s=60, retries=3)
    times = [at - network.dials[0][0] for at, _ in network.dials]
    assert times == pytest.approx([0, 1, 3, 7])
    assert network.failures == ["p"]


async def test_what_is_no_address_is_not_tried_again(network, autojump_clock):
    network.answers["/a"] = InvalidArgumentsError("no address")
    with pytest.raises(InvalidArgumentsError):
        await network.contacts().reach("p", ["/a"], timeout_s=60, retries=3)
    assert len(network.dials) == 1


async def test_all_of_it_has_one_deadline(network, autojump_clock):
    network.answers["/a"] = 100.0
    began = trio.current_time()
    with pytest.raises(PeerUnreachableError):
        await network.contacts().reach("p", ["/a"], timeout_s=10, retries=100)
    assert trio.current_time() - began <= 10.1


async def test_a_wanted_peer_that_is_away_is_dialled_again_and_again_ever_more_seldom(network, nursery, autojump_clock):
    network.keep, network.book["p"] = ["p"], ["/a"]
    nursery.start_soon(network.contacts().run)
    await trio.sleep(3600)
    times = [at for at, _ in network.dials]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[:4] == pytest.approx([1, 2, 4, 8])
    assert max(pauses) == pytest.approx(MOST_PAUSE_S)
    nursery.cancel_scope.cancel()


async def test_a_wanted_peer_that_was_lost_is_dialled_after_a_short_pause(network, nursery, autojump_clock):
    network.keep, network.book["p"], network.answers["/a"] = ["p"], ["/a"], 0.1
    contacts = network.contacts()
    nursery.start_soon(contacts.run)
    await trio.sleep(1000)
    assert network.there == {"p"}
    assert len(network.dials) == 1
    contacts.look()  # it is there
    await trio.sleep(100)
    network.there.clear()
    lost = trio.current_time()
    contacts.look()
    await trio.sleep(10)
    assert network.dials[1][0] - lost == pytest.approx(1.0)
    assert network.there == {"p"}
    nursery.cancel_scope.cancel()


async def test_one_that_is_not_wanted_any_more_is_left_alone(network, nursery, autojump_clock):
    network.keep, network.book["p"] = ["p"], ["/a"]
    contacts = network.contacts()
    nursery.start_soon(contacts.run)
    await trio.sleep(10)
    network.keep = []
    contacts.look()
    before = len(network.dials)
    await trio.sleep(1000)
    assert len(network.dials) == before
    nursery.cancel_scope.cancel()


async def test_half_of_the_dials_is_for_those_that_somebody_asks_for(network, nursery, autojump_clock):
    network.keep = [f"p{n}" for n in range(50)]
    network.book = {peer: [f"/{peer}"] for peer in network.keep}
    network.answers = {f"/{peer}": 1.0 for peer in network.keep} | {"/asked": 0.5}
    contacts = network.contacts(at_once=4)
    nursery.start_soon(contacts.run)
    await trio.testing.wait_all_tasks_blocked()
    assert network.at_once == 2
    assert (await contacts.reach("asked", ["/asked"], timeout_s=2)).seconds == pytest.approx(0.5)
    await trio.sleep(100)
    assert network.most_at_once == 3
    assert len(network.there) == 51
    nursery.cancel_scope.cancel()


async def test_of_many_that_do_not_answer_each_one_has_its_turn(network, nursery, autojump_clock):
    network.keep = [f"p{n}" for n in range(100)]
    network.book = {peer: [f"/{peer}"] for peer in network.keep}
    network.answers = {f"/{peer}": 1000.0 for peer in network.keep}
    nursery.start_soon(network.contacts(at_once=8, timeout_s=30).run)
    await trio.sleep(30 * 100 / 4 + 1)
    assert {address for _, address in network.dials} == {f"/{peer}" for peer in network.keep}
    nursery.cancel_scope.cancel()


async def test_no_more_are_dialled_at_once_than_the_rules_say(network, nursery, autojump_clock):
    contacts = network.contacts(at_once=4)
    for n in range(20):
        network.answers[f"/{n}"] = 1.0
        nursery.start_soon(partial(contacts.reach, f"p{n}", [f"/{n}"], timeout_s=30))
    await trio.sleep(20)
    assert (network.most_at_once, len(network.there)) == (4, 20)


@pytest.mark.parametrize("chance", [0.0, 1.0])
async def test_pauses_differ_by_chance_within_bounds(network, nursery, autojump_clock, chance):
    network.keep, network.book["p"] = ["p"], ["/a"]
    nursery.start_soon(Contacts(network, network, ContactRules(), chance=lambda: chance).run)
    await trio.sleep(2)
    (first, _), (second, _), *_ = network.dials
    assert second - first == pytest.approx(1 + JITTER * (2 * chance - 1))
    nursery.cancel_scope.cancel()
