# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to the task queue: together where possible, again where needed, never without a bound; over real sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from fake_process import FakeProcess
from trio.testing import wait_all_tasks_blocked

from actors.errors import DeadlineExceededError, DrainingError, MCPServerError, RuntimeUnavailableError, code_of
from actors.messages import Directory, ErrorInfo, State
from actors.peers import Peers, hello
from actors.task_client import TaskClient
from actors.task_messages import (
    ASK_ALONE,
    Claim,
    Claimed,
    Complete,
    Ended,
    Enqueue,
    Lease,
    Op,
    Ops,
    Outcomes,
    Refused,
    Submitted,
    TaskState,
)
from actors.task_views import GetTask, ReadResults, TaskChanged, TaskFact, TaskFacts

TASK = Lease(id="t", type="echo", token=1, lease_until=2.0, attempt=1, payload="{}")


class FakeQueue(FakeProcess):
    """Writes down what it is asked, and answers when it may."""

    def __init__(self, incarnation, folder):
        super().__init__("task_queue", incarnation, folder)
        self.asked: list[tuple[str, list]] = []
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.draining = False
        self.refused = {}
        """Type of a task -> code."""
        self.changes = trio.Event()

    async def handle(self, call):
        if self.draining:
            raise DrainingError("it drains")
        if call.method == "tasks/watch":
            await self.changes.wait()
            call.item(TaskChanged(ids=["a", "b"]))
            await trio.sleep_forever()
        if call.method == "tasks/apply":
            ops = msgspec.msgpack.decode(call.body, type=Ops).ops
        elif call.method == "tasks/results":
            return self.results(msgspec.msgpack.decode(call.body, type=ReadResults).ids)
        elif call.method == "tasks/get":
            ops = [msgspec.msgpack.decode(call.body, type=GetTask)]
        else:
            ops = [msgspec.msgpack.decode(call.body, type=Op)]
        self.asked.append((call.method, ops))
        await self.may_answer.wait()
        if call.method == "tasks/apply":
            return Outcomes(outcomes=[self.outcome(op, together=True) for op in ops])
        return self.outcome(ops[0], together=False)

    def results(self, ids):
        """Of the first 300; there are none whose id begins with x."""
        self.asked.append(("tasks/results", ids))
        facts = [
            TaskFact(id=id_, state=TaskState.COMPLETED, result="1") for id_ in ids[:300] if not id_.startswith("x")
        ]
        return TaskFacts(facts=facts, unknown=[id_ for id_ in ids[:300] if id_.startswith("x")], left=ids[300:])

    def outcome(self, op, *, together):
        if isinstance(op, Claim):
            alone = ErrorInfo(code=ASK_ALONE, message="ask again alone", retryable=True)
            return Refused(error=alone) if together and op.n > 1 else Claimed(tasks=[TASK])
        if isinstance(op, Complete):
            return Ended(id=op.id, state=TaskState.COMPLETED, at=1.0)
        if op.type in self.refused:
            return Refused(error=ErrorInfo(code=self.refused[op.type], message="no"))
        return Submitted(id=op.id, state=TaskState.READY, created_at=1.0)

    def sizes(self):
        return [len(ops) for _, ops in self.asked]


class World:
    def __init__(self, nursery, folder):
        self.nursery = nursery
        self.folder = folder
        self.peers = Peers(hello("gateway", 1), nursery)
        self.client = TaskClient(self.peers, nursery)
        self.done = []

    async def queue(self, incarnation=1):
        queue = FakeQueue(incarnation, self.folder)
        await queue.listen(self.nursery)
        return queue

    def directory(self, *entries):
        self.peers.update(Directory(entries=list(entries)))

    async def submit(self, task_id="", **more):
        self.done.append(await self.client.do(Enqueue(type="echo", id=task_id), Submitted, **more))

    async def submit_soon(self, count=1, **more):
        for _ in range(count):
            self.nursery.start_soon(lambda: self.submit(**more))
        await wait_all_tasks_blocked()


@pytest.fixture
async def world(tmp_path):
    async with trio.open_nursery() as nursery:
        yield World(nursery, tmp_path)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def silent(world):
    """A queue that answers nothing until the block ends."""
    queue = await world.queue()
    queue.may_answer = trio.Event()
    world.directory(queue.entry())
    yield queue
    queue.may_answer.set()
    await wait_all_tasks_blocked()


async def test_what_is_asked_at_the_same_moment_travels_together(world):
    async with silent(world) as queue:
        await world.submit_soon(5)
        assert queue.sizes() == [5]
    assert len({submitted.id for submitted in world.done}) == 5


async def test_while_two_messages_are_open_what_is_asked_gathers(world):
    async with silent(world) as queue:
        for _ in range(5):
            await world.submit_soon()
        assert queue.sizes() == [1, 1]
    assert queue.sizes() == [1, 1, 3]
    assert len(world.done) == 5


async def test_a_message_has_bounded_operations(world):
    async with silent(world) as queue:
        await world.submit_soon(2)
        await world.submit_soon()
        await world.submit_soon(1400)
    assert sorted(queue.sizes()[2:]) == [376, 512, 512]


async def test_many_operations_are_two_messages_so_that_both_sides_work(world):
    async with silent(world) as queue:
        await world.submit_soon(100)
        assert queue.sizes() == [50, 50]


async def test_operations_of_one_caller_are_stored_together(world):
    queue = await world.queue()
    world.directory(queue.entry())
    ops = [Enqueue(type="echo"), Complete(id="t", token=1), Claim(worker="w")]
    outcomes = await world.client.do_all(ops)
    assert [type(outcome) for outcome in outcomes] == [Submitted, Ended, Claimed]
    assert queue.sizes() == [3]
    with pytest.raises(MCPServerError, match="at most 512"):
        await world.client.do_all([ops[1]] * 513)


async def test_a_refusal_is_raised_with_its_code(world):
    queue = await world.queue()
    queue.refused["echo"] = "QUEUE_FULL"
    world.directory(queue.entry())
    with pytest.raises(MCPServerError) as caught:
        await world.submit()
    assert code_of(caught.value) == "QUEUE_FULL"


async def test_a_claim_whose_answer_is_too_large_for_a_common_message_is_asked_alone(world):
    queue = await world.queue()
    world.directory(queue.entry())
    claimed = await world.client.do(Claim(worker="w", n=2), Claimed)
    assert claimed.tasks == [TASK]
    (_, [first]), (method, [second]) = queue.asked
    assert method == "tasks/claim"
    assert first.request == second.request != ""


async def test_a_claim_that_waits_keeps_nobody_from_asking(world):
    async with silent(world) as queue:
        for _ in range(4):
            world.nursery.start_soon(world.client.do, Claim(worker="w", wait_s=10), Claimed)
        await wait_all_tasks_blocked()
        await world.submit_soon()
        assert [method for method, _ in queue.asked] == ["tasks/claim"] * 4 + ["tasks/apply"]


async def test_when_the_queue_dies_the_same_is_asked_of_its_next_life(world):
    first, second = await world.queue(1), await world.queue(2)
    first.may_answer = trio.Event()
    world.directory(first.entry())
    await world.submit_soon(2)
    world.directory(first.entry(State.RESTARTING))
    await first.die()
    await wait_all_tasks_blocked()
    assert world.done == []
    world.directory(second.entry())
    await wait_all_tasks_blocked()
    assert len(world.done) == 2
    (_, before), (_, after) = first.asked + second.asked
    assert [op.id for op in before] == [op.id for op in after]
    assert [op.fresh for op in before] == [True, True]
    assert [op.fresh for op in after] == [False, False], "the queue may know the ids by now"


async def test_while_the_queue_drains_its_next_life_is_waited_for(world):
    first, second = await world.queue(1), await world.queue(2)
    first.draining = True
    world.directory(first.entry())
    await world.submit_soon()
    assert world.done == []
    world.directory(second.entry())
    with trio.fail_after(5):
        while not world.done:
            await trio.sleep(0.001)


async def test_an_answer_that_does_not_come_is_waited_for_until_the_deadline(world):
    async with silent(world):
        for timeout_s in (5.0, 0.02):
            await world.submit_soon(timeout_s=5.0)
            with pytest.raises(DeadlineExceededError):
                await world.submit(timeout_s=timeout_s if timeout_s < 1 else 0.03)
        assert world.done == []
    assert len(world.done) == 2, "those who have time are answered"


async def test_a_caller_who_leaves_leaves_alone(world):
    async with silent(world) as queue:
        with trio.move_on_after(0.01):
            await world.submit()
        await world.submit_soon()
        await world.submit_soon()
    assert len(world.done) == 2
    assert queue.sizes() == [1, 1, 1]


@pytest.mark.parametrize("state", [State.OFF, State.FAILED])
async def test_a_queue_that_is_off_is_unavailable_at_once(world, state):
    world.directory((await world.queue()).entry(state, "p2p.task_queue.enabled is false"))
    with pytest.raises(RuntimeUnavailableError, match=r"p2p\.task_queue\.enabled is false"):
        await world.submit()


async def test_many_results_are_asked_for_until_all_are_there(world):
    queue = await world.queue()
    world.directory(queue.entry())
    wanted = [f"{'x' if n % 500 == 7 else 't'}{n}" for n in range(1400)]
    told = await world.client.results([*wanted, "t3"])
    assert [fact.id for fact in told.facts] == [id_ for id_ in wanted if id_.startswith("t")]
    assert (told.unknown, told.left) == (["x7", "x507", "x1007"], [])
    sizes = queue.sizes()
    assert sizes == [1000, 1000, 800, 500, 200]
    assert await world.client.results([]) == TaskFacts(facts=[])


async def test_changes_are_told_and_what_may_have_been_missed(world):
    heard = []
    first, second = await world.queue(1), await world.queue(2)
    world.directory(first.entry())
    world.nursery.start_soon(world.client.watch, heard.append)
    await wait_all_tasks_blocked()
    first.changes.set()
    await wait_all_tasks_blocked()
    assert heard == [[], ["a", "b"]]
    await first.die()
    world.directory(second.entry())
    with trio.fail_after(5):
        while len(heard) < 3:
            await trio.sleep(0.001)
    assert heard == [[], ["a", "b"], []]
