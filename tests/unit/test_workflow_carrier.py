# SPDX-License-Identifier: AGPL-3.0-or-later
"""Carrying out what a run wants: in its order, in messages of a bounded size, and again until the queue answers."""

from __future__ import annotations

import pytest
import trio

from actors.errors import DeadlineExceededError, InvalidArgumentsError, MCPServerError, RuntimeUnavailableError
from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler import carrier as module
from actors.p2p.workflow_scheduler.carrier import Carrier, persist
from actors.p2p.workflow_scheduler.live import Live
from actors.p2p.workflow_scheduler.news import News
from actors.p2p.workflow_scheduler.run_values import Commands, MemoAsk
from actors.task_messages import Cancel, Ended, Enqueue, Pause, Refused, Resume, Submitted
from actors.task_views import TaskFact, TaskFacts


class FakeRun:
    """Writes down what it is told."""

    workflow_id = "w"
    status = "running"

    def __init__(self):
        self.told = []

    def accepted(self, ids):
        self.told.append(("accepted", *ids))

    def refused(self, task_id, error, now):
        self.told.append(("refused", task_id, error.code))

    def observe(self, facts, now):
        self.told.append(("observe", *[fact.id for fact in facts]))

    def gone(self, ids, now):
        self.told.append(("gone", *ids))

    def memo_found(self, step, index, output, now):
        self.told.append(("memo", step, output))


class FakeQueue:
    """Answers as it is told; `errors` are raised first."""

    def __init__(self):
        self.messages = []
        self.errors = []
        self.refuse = {}
        self.most = 1000
        self.unknown = set()
        self.on_changed = None

    async def do_all(self, ops):
        await trio.lowlevel.checkpoint()
        self.messages.append([getattr(op, "id", type(op).__name__) for op in ops])
        if self.errors:
            error = self.errors.pop(0)
            if callable(error):
                error = error(ops)
            if error is not None:
                raise error
        return [self._outcome(op) for op in ops]

    def _outcome(self, op):
        if getattr(op, "id", None) in self.refuse:
            return Refused(error=ErrorInfo(code=self.refuse[op.id], message="no"))
        return (
            Ended(id=op.id, state="cancelled", at=0.0)
            if isinstance(op, Cancel)
            else Submitted(id="", state="ready", created_at=0.0)
        )

    async def read_results(self, ask):
        await trio.lowlevel.checkpoint()
        self.messages.append(ask.ids)
        if self.errors:
            raise self.errors.pop(0)
        some, left = ask.ids[: self.most], ask.ids[self.most :]
        return TaskFacts(
            facts=[TaskFact(id=one, state="ready") for one in some if one not in self.unknown],
            unknown=[one for one in some if one in self.unknown],
            left=left,
        )

    async def watch(self, on_changed):
        self.on_changed = on_changed
        on_changed([])
        await trio.sleep_forever()


class World:
    def __init__(self, memos=()):
        self.queue = FakeQueue()
        self.run = FakeRun()
        self.live = Live(self.run)
        self.settled = 0
        self.carrier = Carrier(self.queue, lambda _: dict(memos), settle=self._settle, now=lambda: 0.0)

    def _settle(self, _):
        self.settled += 1

    async def carry(self, **commands):
        with trio.fail_after(1000):
            await self.carrier.carry_out(self.live, Commands(**commands))


def tasks(*ids, **more):
    return [Enqueue(type="echo", id=one, **more) for one in ids]


async def test_all_is_done_in_its_order_and_told():
    world = World(memos={b"k": "1"})
    world.queue.refuse = {"b": "QUEUE_FULL", "c": "NOT_FOUND"}
    await world.carry(
        pause=True,
        look=["x"],
        memo=[MemoAsk("m", None, b"k"), MemoAsk("n", None, b"other")],
        enqueue=tasks("a", "b"),
        cancel=[Cancel(id="c"), Cancel(id="d")],
    )
    assert world.queue.messages == [["Pause"], ["x"], ["a", "b", "c", "d"]]
    assert world.run.told == [
        ("observe", "x"),
        ("gone",),
        ("memo", "m", "1"),
        ("memo", "n", None),
        ("accepted", "a"),
        ("refused", "b", "QUEUE_FULL"),
        ("refused", "c", "NOT_FOUND"),
    ]
    assert world.settled == 4, "after each part that told it something"


@pytest.mark.parametrize(("pause", "kind"), [(True, Pause), (False, Resume)])
async def test_a_pause_is_one_of_its_lane(pause, kind, monkeypatch):
    world = World()
    asked = []

    async def do_all(ops):
        asked.extend(ops)
        return [Submitted(id="", state="ready", created_at=0.0)]

    monkeypatch.setattr(world.queue, "do_all", do_all)
    await world.carry(pause=pause)
    assert asked == [kind(fairness_key="workflow:w")]


async def test_messages_have_a_bounded_size():
    world = World()
    await world.carry(enqueue=tasks(*map(str, range(1100))))
    assert [len(message) for message in world.queue.messages] == [512, 512, 76]
    world = World()
    half = "x" * (module._CHUNK_CHARS // 2)
    await world.carry(enqueue=[*tasks("a", "b", "c", payload=half), *tasks("d", payload=half * 4), *tasks("e")])
    assert world.queue.messages == [["a", "b"], ["c"], ["d"], ["e"]]


async def test_looks_go_on_until_nothing_is_left():
    world = World()
    world.queue.most = 400
    world.queue.unknown = {"0"}
    await world.carry(look=[str(number) for number in range(1500)])
    seen = [one for what, *ids in world.run.told if what == "observe" for one in ids]
    assert sorted(seen, key=int) == [str(number) for number in range(1, 1500)]
    assert ("gone", "0") in world.run.told
    assert max(map(len, world.queue.messages)) <= 1000


async def test_a_queue_that_is_away_is_asked_again_at_a_bounded_pace(autojump_clock):
    world = World()
    world.queue.errors = [RuntimeUnavailableError("away")] * 20 + [DeadlineExceededError("late")]
    began = trio.current_time()
    await world.carry(enqueue=tasks("a"))
    assert world.queue.messages == [["a"]] * 22
    assert world.run.told == [("accepted", "a")]
    assert 70 < trio.current_time() - began < 100, "0.05 s at first, 5 s at last"


async def test_what_the_queue_refuses_as_a_whole_is_asked_one_by_one(autojump_clock):
    world = World()

    def bad(ops):
        return InvalidArgumentsError("not that") if any(op.id == "b" for op in ops) else None

    world.queue.errors = [bad] * 10
    await world.carry(enqueue=tasks("a", "b", "c"))
    assert world.queue.messages == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert world.run.told == [("accepted", "a"), ("refused", "b", "INVALID_ARGUMENTS"), ("accepted", "c")]


async def test_persisting_goes_on_whatever_it_is_unless_told_otherwise(autojump_clock):
    errors = [MCPServerError("odd"), None]

    async def do():
        await trio.lowlevel.checkpoint()
        error = errors.pop(0)
        if error is not None:
            raise error
        return "done"

    assert await persist(do) == "done"
    errors = [MCPServerError("odd")]
    with pytest.raises(MCPServerError, match="odd"):
        await persist(do, whatever=False)


# --- news ----------------------------------------------------------------------------------------------------------


class NewsWorld:
    def __init__(self, nursery):
        self.queue = FakeQueue()
        self.told = []
        self.looked = []
        self.all = 0
        self.calm = False
        self.news = News(
            self.queue,
            is_ours=lambda task_id: task_id.startswith("w:"),
            tell=lambda facts: self.told.append([fact.id for fact in facts]),
            look=self.looked.extend,
            look_all=self._look_all,
            calm=lambda: self.calm,
        )
        nursery.start_soon(self.news.run)

    def _look_all(self):
        self.all += 1


async def test_changed_tasks_are_read_together_and_others_are_not(nursery, autojump_clock):
    world = NewsWorld(nursery)
    await trio.sleep(1)
    assert world.all == 1, "any task may have changed before it listened"
    world.queue.on_changed(["w:a", "other", "w:b"])
    world.queue.on_changed(["w:a"])
    await trio.sleep(1)
    assert world.told == [["w:a", "w:b"]]
    world.queue.on_changed([])
    assert world.all == 2


@pytest.mark.parametrize(("calm", "looks"), [(False, 4), (True, 2)])
async def test_while_nobody_waits_for_the_news_more_of_it_is_read_together(nursery, autojump_clock, calm, looks):
    world = NewsWorld(nursery)
    world.calm = calm
    await trio.sleep(1)
    for number in range(4):
        world.queue.on_changed([f"w:{number}"])
        await trio.sleep(0.006)
    await trio.sleep(1)
    assert sorted(one for some in world.told for one in some) == ["w:0", "w:1", "w:2", "w:3"]
    assert len(world.told) == looks


async def test_what_does_not_fit_into_one_answer_is_read_next_and_the_unknown_is_handed_on(nursery, autojump_clock):
    world = NewsWorld(nursery)
    world.queue.most = 2
    world.queue.unknown = {"w:1"}
    await trio.sleep(1)
    world.queue.on_changed([f"w:{number}" for number in range(5)])
    await trio.sleep(1)
    assert sorted(one for some in world.told for one in some) == ["w:0", "w:2", "w:3", "w:4"]
    assert world.looked == ["w:1"]


async def test_a_change_while_it_reads_is_read_again(nursery, autojump_clock):
    world = NewsWorld(nursery)
    await trio.sleep(1)
    world.queue.errors = [RuntimeUnavailableError("away")]
    world.queue.on_changed(["w:a"])
    await trio.sleep(0.01)
    world.queue.on_changed(["w:a"])
    await trio.sleep(1)
    assert world.told == [["w:a"], ["w:a"]]
