# SPDX-License-Identifier: AGPL-3.0-or-later
"""Idle peers ask for work."""

from __future__ import annotations

import pytest
import trio
from sharing_nodes import Node

from actors.p2p.peer_registry.link.messages import Offer
from actors.p2p.peer_registry.sharing import pulling
from actors.task_messages import TaskState


def runs(node):
    return len(node.runs)


@pytest.fixture
async def pair(nursery):
    """One whose tasks may go to others, and one that asks for some."""
    here, there = Node(nursery, shared=("work",)), Node(nursery)
    nursery.start_soon(there.puller.run)
    yield here, there
    nursery.cancel_scope.cancel()


async def test_an_idle_peer_asks_and_is_given_what_waits_here(pair, autojump_clock):
    """Without it, what could run here waits until this node has no room."""
    here, there = pair
    here.join(there)
    await here.put(needs=())
    task = await here.ended()
    assert (task.worker, here.full, here.pulls[0]) == ("peers-spare", False, (there.id, 2))


async def test_it_asks_again_and_again_while_it_is_idle(pair, autojump_clock):
    here, there = pair
    here.join(there)
    await trio.sleep(4 * pulling.EVERY_S)
    assert 4 <= len(here.pulls) <= 5
    await here.put(needs=())
    assert (await here.ended()).state == TaskState.COMPLETED


async def test_it_does_not_ask_while_it_has_work(pair, autojump_clock):
    here, there = pair
    there.gate = trio.Event()
    here.join(there)
    await here.put()
    await here.until(lambda task: task.progress is not None)
    before = len(here.pulls)
    await trio.sleep(4 * pulling.EVERY_S)
    assert len(here.pulls) == before
    there.gate.set()
    await here.ended()
    await trio.sleep(pulling.EVERY_S)
    assert len(here.pulls) > before


async def test_it_does_not_ask_while_its_own_work_waits(pair, autojump_clock):
    here, there = pair
    there.full = True
    here.join(there)
    await trio.sleep(4 * pulling.EVERY_S)
    assert here.pulls == []


async def test_it_is_given_no_more_than_it_asked_for(pair, autojump_clock):
    here, there = pair
    there.gate = trio.Event()
    here.join(there)
    for n in range(5):
        await here.put(f"t{n}", needs=())
    await trio.sleep(1)
    assert runs(there) == 2
    assert len([one for one in here.asked if isinstance(one, Offer)]) == 2


async def test_it_is_given_no_type_that_stays_here(nursery, autojump_clock):
    here, there = Node(nursery), Node(nursery)
    nursery.start_soon(there.puller.run)
    here.join(there)
    await here.put(needs=())
    await trio.sleep(30)
    assert here.pulls
    assert runs(there) == 0
    nursery.cancel_scope.cancel()


class Busy:
    """A runner that gets work while its node is asked whether it has some of its own."""

    running = 0
    free_slots = 2

    async def own_work_waits(self):
        self.running, self.free_slots = 2, 0
        return False


async def test_work_that_comes_meanwhile_is_noticed(nursery, autojump_clock):
    """To ask for nothing would break the link's rules."""
    busy, asked = Busy(), []

    class Wire:
        note = asked.append

    nursery.start_soon(pulling.Puller(busy, lambda: [Wire()], busy.own_work_waits).run)
    await trio.sleep(2 * pulling.EVERY_S)
    assert busy.running
    assert asked == []
