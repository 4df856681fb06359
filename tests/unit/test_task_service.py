# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the task queue answers over a channel: groups, waits, watching, its clockwork; on the real store, with files in
memory."""

from __future__ import annotations

import msgspec
import pytest
import trio
from task_boxes import BIG, MemoryBox
from trio.testing import wait_all_tasks_blocked

from actors.errors import InvalidArgumentsError, NotFoundError
from actors.p2p import changes
from actors.p2p.task_queue import service
from actors.p2p.task_queue.limits import Rate
from actors.p2p.task_queue.service import TaskQueue
from actors.task_messages import (
    ASK_ALONE,
    AskOwner,
    Claim,
    Claimed,
    Complete,
    Enqueue,
    Ops,
    Outcomes,
    Pause,
    Refused,
    Submitted,
    TaskState,
)
from actors.task_views import GetTask, ReadResults, ScanTasks

WORK = Claim(worker="w", types=["echo"])


class FakeCall:
    """One call of a channel, without the channel: what the service reads of it."""

    def __init__(self, method, value):
        self.method = method
        self.body = msgspec.Raw(msgspec.msgpack.encode(value))
        self.items = []
        self.full = False

    def item(self, value):
        if self.full:
            return False
        self.items.append(value)
        return True


class World:
    """The store's clock stands still unless it is turned. Waits are short and real: the store works in threads, which a
    clock that jumps would not wait for."""

    def __init__(self, nursery, folder, limits=BIG):
        self.nursery = nursery
        self.box = MemoryBox(folder, limits)
        self.leaving = False
        self.found = []
        self.queue = TaskQueue(
            self.box.store, most_waiting=1000, leaving=lambda: self.leaving, now=lambda: self.box.clock.now
        )

    async def ask(self, method, value):
        return await self.queue.methods()[method](FakeCall(method, value))

    async def soon(self, do, *arguments):
        async def run():
            self.found.append(await do(*arguments))

        self.nursery.start_soon(run)
        await wait_all_tasks_blocked(0.001)

    async def put(self, task_id, **more):
        return await self.queue.do(Enqueue(type="echo", id=task_id, **more))


@pytest.fixture
async def world(nursery, tmp_path):
    made = World(nursery, tmp_path)
    await made.box.open()
    nursery.start_soon(made.queue.run)
    yield made
    await made.box.close()


def ids(claimed):
    return [lease.id for lease in claimed.tasks]


# --- operations ----------------------------------------------------------------------------------------------------


async def test_an_operation_is_answered_by_the_method_of_its_name(world):
    assert (await world.ask("tasks/enqueue", Enqueue(type="echo", id="a"))).state == TaskState.READY
    assert ids(await world.ask("tasks/claim", WORK)) == ["a"]


async def test_what_a_method_does_not_take_is_refused_in_words(world):
    with pytest.raises(InvalidArgumentsError, match="tasks/claim was sent with an operation of another kind"):
        await world.ask("tasks/claim", Enqueue(type="echo"))
    with pytest.raises(InvalidArgumentsError, match="does not take"):
        await world.ask("tasks/get", {"id": 5})
    with pytest.raises(InvalidArgumentsError, match="at most 1000 are told"):
        await world.ask("tasks/results", ReadResults(ids=["t"] * 1001))
    with pytest.raises(InvalidArgumentsError, match="at most 512"):
        await world.ask("tasks/apply", Ops(ops=[WORK] * 513))


async def test_many_operations_are_one_group(world):
    before = world.box.log.appended
    ops = [Enqueue(type="echo", id="a"), Enqueue(type="echo", id="b"), Claim(worker="w", n=2)]
    outcomes = (await world.ask("tasks/apply", Ops(ops=ops))).outcomes
    assert [type(outcome) for outcome in outcomes] == [Submitted, Submitted, Claimed]
    assert world.box.log.appended == before + 1
    assert await world.ask("tasks/apply", Ops(ops=[])) == Outcomes(outcomes=[])


async def test_claims_whose_tasks_are_too_large_together_are_asked_again_alone(world):
    large = '"' + "x" * 900_000 + '"'
    for number in range(6):
        await world.put(f"t{number}", payload='{"x": ' + large + "}")
    claims = [Claim(worker=f"w{number}", request=f"r{number}") for number in range(6)]
    outcomes = (await world.ask("tasks/apply", Ops(ops=claims))).outcomes
    refused = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
    assert refused == [4, 5]
    assert {outcomes[at].error.code for at in refused} == {ASK_ALONE}
    assert ids(await world.ask("tasks/claim", claims[4])) == ["t4"], "what was claimed is not claimed twice"


# --- waiting -------------------------------------------------------------------------------------------------------


async def test_a_claim_waits_for_a_task(world):
    await world.soon(world.queue.do, Claim(worker="w", wait_s=30.0))
    assert world.found == []
    await world.put("a")
    await wait_all_tasks_blocked(0.001)
    assert ids(world.found[0]) == ["a"]


async def test_a_claim_that_waited_in_vain_is_given_nothing(world):
    assert (await world.queue.do(Claim(worker="w", wait_s=0.01))).tasks == []


async def test_nobody_waits_for_longer_than_the_queue_allows(world, monkeypatch):
    monkeypatch.setattr(service, "MOST_WAIT_S", 0.01)
    with trio.fail_after(5):
        await world.queue.do(Claim(worker="w", wait_s=1e9))


async def test_of_many_who_wait_one_is_given_the_task(world):
    for number in range(5):
        await world.soon(world.queue.do, Claim(worker=f"w{number}", wait_s=0.1))
    await world.put("a")
    with trio.fail_after(5):
        while len(world.found) < 5:
            await trio.sleep(0.01)
    assert sorted(len(claimed.tasks) for claimed in world.found) == [0, 0, 0, 0, 1]


async def test_a_claim_that_waits_has_the_alarm_set_for_what_it_waits_for(nursery, tmp_path):
    world = World(nursery, tmp_path, msgspec.structs.replace(BIG, rates={"echo": Rate(per_s=100.0)}))
    await world.box.open()
    nursery.start_soon(world.queue.run)
    await world.put("a")
    await world.put("b")
    await world.queue.do(WORK)
    await world.soon(world.queue.do, Claim(worker="w2", wait_s=30.0))
    world.box.later(1)
    with trio.fail_after(5):
        while not world.found:
            await trio.sleep(0.001)
    assert ids(world.found[0]) == ["b"]


async def test_a_refused_claim_does_not_wait(world):
    await world.soon(world.queue.do, Claim(worker="", wait_s=30.0))
    assert isinstance(world.found[0], Refused)


async def test_a_paused_queue_lets_claims_wait(world):
    await world.queue.do(Pause())
    await world.put("a")
    assert (await world.queue.do(Claim(worker="w", wait_s=0.01))).paused


async def test_those_who_wait_are_let_go_when_the_queue_leaves(world):
    await world.put("a")
    await world.soon(world.queue.do, Claim(worker="w", types=["other"], wait_s=30.0))
    await world.soon(world.queue.get, GetTask(id="a", wait_s=30.0))
    world.leaving = True
    world.queue.leave()
    await wait_all_tasks_blocked(0.001)
    assert sorted(type(one).__name__ for one in world.found) == ["Claimed", "TaskView"]
    with trio.fail_after(5):  # nobody begins to wait any more
        await world.queue.do(Claim(worker="w", types=["other"], wait_s=30.0))


# --- readings ------------------------------------------------------------------------------------------------------


async def test_an_unknown_task_is_not_found(world):
    for method in ("tasks/get", "tasks/history"):
        with pytest.raises(NotFoundError, match="'nobody'"):
            await world.ask(method, GetTask(id="nobody"))


async def test_many_tasks_are_told_at_once(world):
    await world.put("a", owner="ann")
    told = await world.ask("tasks/results", ReadResults(ids=["a", "nobody"]))
    assert [(fact.id, fact.state, fact.owner) for fact in told.facts] == [("a", TaskState.READY, "ann")]
    assert told.unknown == ["nobody"]


async def test_a_reading_waits_for_the_end_of_a_task(world):
    await world.put("a")
    await world.soon(world.queue.get, GetTask(id="a", wait_s=30.0))
    [lease] = (await world.queue.do(WORK)).tasks
    await wait_all_tasks_blocked(0.001)
    assert world.found == []
    await world.queue.do(Complete(id="a", token=lease.token, result="7"))
    await wait_all_tasks_blocked(0.001)
    assert world.found[0].task.result == "7"


async def test_a_reading_waits_for_questions(world):
    await world.put("a")
    [lease] = (await world.queue.do(WORK)).tasks
    await world.soon(world.queue.get, GetTask(id="a", wait_s=30.0, until_asked=True))
    await world.queue.do(AskOwner(id="a", token=lease.token, questions={"q": '"who?"'}))
    await wait_all_tasks_blocked(0.001)
    assert world.found[0].task.asked == {"q": '"who?"'}


async def test_a_reading_waits_for_any_change_after_the_one_that_was_seen(world):
    await world.put("a")
    seen = (await world.queue.get(GetTask(id="a"))).task.updated_at
    await world.soon(world.queue.get, GetTask(id="a", wait_s=30.0, newer_than=seen))
    assert world.found == []
    world.box.later(0.001)
    await world.queue.do(WORK)
    await wait_all_tasks_blocked(0.001)
    assert world.found[0].task.state == TaskState.LEASED
    assert world.found[0].task.updated_at > seen
    again = await world.queue.get(GetTask(id="a", wait_s=30.0, newer_than=seen))
    assert again.task == world.found[0].task, "what changed before is told at once"


async def test_tasks_are_listed_and_counted(world):
    await world.put("a")
    await world.put("b")
    assert [task.id for task in (await world.ask("tasks/scan", ScanTasks(limit=1))).tasks] == ["b"]
    assert (await world.ask("tasks/stats", None)).counts["queued"] == 2
    events = msgspec.msgpack.decode(await world.ask("tasks/history", GetTask(id="a")))
    assert [event["what"] for event in events] == ["submitted"]


# --- watching ------------------------------------------------------------------------------------------------------


async def test_a_watcher_hears_which_tasks_changed(world):
    call = FakeCall("tasks/watch", None)
    await world.soon(world.queue.methods()["tasks/watch"], call)
    await world.put("a")
    await world.put("b")
    await wait_all_tasks_blocked(0.001)
    assert sorted(task_id for news in call.items for task_id in news.ids) == ["a", "b"]


async def heard(call):
    with trio.fail_after(5):
        while not call.items:
            await trio.sleep(0.01)
    return call.items


async def test_a_slow_watcher_hears_all_of_it_later(world):
    call = FakeCall("tasks/watch", None)
    call.full = True
    await world.soon(world.queue.methods()["tasks/watch"], call)
    await world.put("a")
    await world.put("b")
    assert call.items == []
    call.full = False
    assert [sorted(news.ids) for news in await heard(call)] == [["a", "b"]]


async def test_a_watcher_who_missed_too_many_hears_that_any_may_have_changed(world, monkeypatch):
    monkeypatch.setattr(changes, "MOST_CHANGED", 3)
    call = FakeCall("tasks/watch", None)
    call.full = True
    await world.soon(world.queue.methods()["tasks/watch"], call)
    for number in range(5):
        await world.put(f"t{number}")
    call.full = False
    assert (await heard(call))[0].ids == []


async def test_watching_ends_when_the_queue_leaves(world):
    await world.soon(world.queue.methods()["tasks/watch"], FakeCall("tasks/watch", None))
    world.leaving = True
    world.queue.leave()
    await wait_all_tasks_blocked(0.001)
    assert world.found == [None]


# --- its clockwork -------------------------------------------------------------------------------------------------


async def test_a_task_becomes_ready_at_its_time(world):
    await world.put("a", run_at=world.box.clock.now + 100)
    await world.soon(world.queue.do, Claim(worker="w", wait_s=30.0))
    world.box.later(101)
    await world.put("b", run_at=world.box.clock.now + 1000)  # the alarm is set anew with each group
    with trio.fail_after(5):
        while not world.found:
            await trio.sleep(0.001)
    assert ids(world.found[0]) == ["a"]


async def test_a_lease_that_nobody_keeps_ends_by_itself(world):
    await world.put("a")
    await world.queue.do(Claim(worker="w", lease_s=5.0))
    seen = (await world.queue.get(GetTask(id="a"))).task.updated_at
    world.box.later(6)
    await world.put("b")
    view = await world.queue.get(GetTask(id="a", wait_s=5.0, newer_than=seen))
    assert view.task.state in {TaskState.SCHEDULED, TaskState.READY}
