# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to the peer registry: whatever can be asked twice is asked again when its process dies, calls of peers' tools
are not."""

from __future__ import annotations

import pytest
import trio
from fake_process import FakeProcess
from trio.testing import wait_all_tasks_blocked

from actors.errors import DrainingError, OutcomeUnknownError, code_of
from actors.messages import Directory
from actors.peer_client import PEER_REGISTRY, PeerClient
from actors.peer_messages import BanList, CallPeerTool, PeerToolAnswer
from actors.peers import Peers, hello

CALL = CallPeerTool(peer_id="p", tool="echo")


class FakeRegistry(FakeProcess):
    """Writes down what it is asked, and answers when it may."""

    def __init__(self, incarnation, folder):
        super().__init__(PEER_REGISTRY, incarnation, folder)
        self.asked = []
        self.draining = False
        self.may_answer = trio.Event()

    async def handle(self, call):
        if self.draining:
            raise DrainingError("it drains")
        self.asked.append(call.method)
        await self.may_answer.wait()
        return BanList(bans=[]) if call.method == "peers/bans" else PeerToolAnswer(value=b"1", way="link")


class World:
    """A client, and two lives of the registry."""

    def __init__(self, nursery, first, second):
        self.nursery = nursery
        self.first = first
        self.second = second
        self.peers = Peers(hello("cli", 0), nursery)
        self.client = PeerClient(self.peers)
        self.ends = []
        self.lives(first)

    def lives(self, process):
        self.peers.update(Directory(entries=[process.entry()]))

    async def begin(self, ask):
        async def end():
            try:
                self.ends.append(await ask())
            except OutcomeUnknownError as error:
                self.ends.append(error)

        self.nursery.start_soon(end)
        await wait_all_tasks_blocked()

    async def restart(self):
        await self.first.die()
        self.lives(self.second)
        self.second.may_answer.set()
        await wait_all_tasks_blocked()


@pytest.fixture
async def world(tmp_path):
    async with trio.open_nursery() as nursery:
        processes = FakeRegistry(1, tmp_path), FakeRegistry(2, tmp_path)
        for process in processes:
            await process.listen(nursery)
        yield World(nursery, *processes)
        nursery.cancel_scope.cancel()


async def test_a_question_is_asked_again_when_its_process_dies(world):
    await world.begin(world.client.bans)
    await world.restart()
    assert world.ends == [BanList(bans=[])]
    assert (world.first.asked, world.second.asked) == (["peers/bans"], ["peers/bans"])


async def test_a_call_is_not_and_nobody_knows_what_became_of_it(world):
    await world.begin(lambda: world.client.call(CALL))
    await world.restart()
    assert [code_of(end) for end in world.ends] == ["ACTOR_DIED"], "an OutcomeUnknownError"
    assert (world.first.asked, world.second.asked) == (["peers/call"], [])


async def test_a_call_that_was_not_begun_goes_to_the_next_process(world):
    world.first.draining = True
    await world.begin(lambda: world.client.call(CALL))
    await world.restart()
    assert world.ends == [PeerToolAnswer(value=b"1", way="link")]
    assert world.second.asked == ["peers/call"]
