# SPDX-License-Identifier: AGPL-3.0-or-later
"""Group commit: who waits together is stored together, and nothing that was asked is forgotten."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.errors import BusyError
from actors.p2p.task_queue.group_commit import GROUP_BYTES, GroupCommit
from actors.task_messages import MOST_OPS, Ended, Enqueue, TaskState


class SlowStore:
    """Stores one group each time that it is let go on; its answers name the operations."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.gate = trio.Semaphore(0)
        self.fails = False

    async def apply(self, ops):
        self.groups.append([op.id for op in ops])
        await self.gate.acquire()
        if self.fails:
            raise OSError("no space left on device")
        return [Ended(id=op.id, state=TaskState.READY, at=0.0) for op in ops]


class World:
    def __init__(self, nursery, most_waiting):
        self.nursery = nursery
        self.store = SlowStore()
        self.stored = 0
        self.answers = {}
        self.commits = GroupCommit(self.store, most_waiting=most_waiting, on_stored=self._stored)
        nursery.start_soon(self.commits.run)

    def _stored(self):
        self.stored += 1

    async def ask(self, *ids, size=10):
        outcomes = await self.commits.do([Enqueue(type="t", id=task_id) for task_id in ids], size)
        self.answers[tuple(ids)] = [outcome.id for outcome in outcomes]

    async def asks(self, *calls, **more):
        for call in calls:
            ids = (call,) if isinstance(call, str) else call
            self.nursery.start_soon(lambda ids=ids: self.ask(*ids, **more))
        await wait_all_tasks_blocked()

    def end(self):
        """A group that is being stored can't be left: let all of them go."""
        for _ in range(100):
            self.store.gate.release()

    async def let_go(self, groups=1):
        for _ in range(groups):
            self.store.gate.release()
            await wait_all_tasks_blocked()


@pytest.fixture
async def world(nursery):
    made = World(nursery, most_waiting=1000)
    yield made
    made.end()


async def test_what_is_asked_at_the_same_moment_is_one_group(world):
    await world.asks("a", "b", "c")
    assert [sorted(group) for group in world.store.groups] == [["a", "b", "c"]]


async def test_what_is_asked_while_a_group_is_stored_goes_to_the_store_meanwhile(world):
    await world.asks("a")
    await world.asks("b", "c")
    assert [sorted(group) for group in world.store.groups] == [["a"], ["b", "c"]]


async def test_nobody_is_answered_before_his_group_is_stored(world):
    await world.asks("a")
    await world.asks("b")
    assert world.answers == {}
    await world.let_go()
    assert world.answers == {("a",): ["a"]}
    await world.let_go()
    assert world.answers == {("a",): ["a"], ("b",): ["b"]}
    assert world.stored == 2


async def test_each_caller_gets_the_outcomes_of_his_own_operations_in_order(world):
    await world.asks("first")
    await world.asks(["a", "b"], ["c"], ["d", "e", "f"])
    await world.let_go(2)
    assert len(world.store.groups) == 2
    assert all(list(ids) == answered for ids, answered in world.answers.items())


def some(letter, count):
    return [f"{letter}{number}" for number in range(count)]


async def test_what_goes_to_the_store_together_is_bounded(world):
    await world.asks(*(some(caller, 200) for caller in "abcd"))
    assert [len(group) for group in world.store.groups] == [600, 200]
    assert 2 * MOST_OPS > 600


async def test_its_bytes_are_bounded(world):
    await world.asks("a", "b", "c", size=GROUP_BYTES // 2)
    assert [len(group) for group in world.store.groups] == [2, 1]


async def test_what_is_with_the_store_is_bounded(world):
    await world.asks(some("a", MOST_OPS))
    await world.asks(some("b", MOST_OPS))
    await world.asks("c", "d")
    assert len(world.store.groups) == 2
    await world.let_go()
    assert [len(group) for group in world.store.groups] == [MOST_OPS, MOST_OPS, 2]


async def test_the_bytes_with_the_store_are_bounded(world):
    await world.asks("huge", size=3 * GROUP_BYTES)
    await world.asks("small")
    assert world.store.groups == [["huge"]]
    await world.let_go()
    assert world.store.groups == [["huge"], ["small"]]


async def test_more_than_may_wait_is_refused(world):
    await world.asks(some("a", MOST_OPS))
    await world.asks(some("b", MOST_OPS))
    await world.asks(some("c", 999))
    with pytest.raises(BusyError, match="999 operations wait"):
        await world.commits.do([Enqueue(type="t", id="d"), Enqueue(type="t", id="e")], 10)
    await world.let_go()
    await world.asks("d")
    await world.let_go(3)
    assert world.answers[("d",)] == ["d"]


async def test_a_caller_who_leaves_takes_nothing_back(world):
    await world.asks("first")
    with trio.CancelScope() as scope:
        world.nursery.start_soon(_cancel_when_blocked, scope)
        await world.ask("left")
    await world.asks("next")
    await world.let_go(3)
    assert world.store.groups == [["first"], ["left"], ["next"]]
    assert ("left",) not in world.answers
    assert world.answers[("next",)] == ["next"]


async def _cancel_when_blocked(scope):
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_at_its_end_all_that_was_asked_is_stored():
    store = SlowStore()
    commits = GroupCommit(store, most_waiting=100, on_stored=lambda: None)
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        nursery.start_soon(commits.run)
        callers.start_soon(commits.do, [Enqueue(type="t", id="a")], 1)
        await wait_all_tasks_blocked()
        callers.start_soon(commits.do, [Enqueue(type="t", id="b")], 1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        store.gate.release()
        store.gate.release()
    assert store.groups == [["a"], ["b"]]


async def test_a_store_that_fails_ends_it_and_nobody_is_answered(nursery):
    store, answered = SlowStore(), []
    commits = GroupCommit(store, most_waiting=100, on_stored=lambda: answered.append("stored"))

    async def ask(task_id):
        await commits.do([Enqueue(type="t", id=task_id)], 1)
        answered.append(task_id)

    with pytest.RaisesGroup(pytest.RaisesExc(OSError), pytest.RaisesExc(OSError), flatten_subgroups=True):
        async with trio.open_nursery() as inner:
            inner.start_soon(commits.run)
            for task_id in "ab":
                inner.start_soon(ask, task_id)
                await wait_all_tasks_blocked()
            store.fails = True
            store.gate.release()
            store.gate.release()
    assert store.groups == [["a"], ["b"]]
    assert answered == []
