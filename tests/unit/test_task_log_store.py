# SPDX-License-Identifier: AGPL-3.0-or-later
"""The embedded task store: what is durable when, what is kept where, and what a log gives back."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import libipld
import msgspec
import pytest
import trio
import trio.testing
from task_boxes import BIG, MemoryBox, code
from task_files import MemoryLog

from actors.errors import UnavailableError
from actors.messages import ErrorInfo
from actors.p2p.task_queue import events as ev
from actors.p2p.task_queue.apply import replay
from actors.p2p.task_queue.carry import carried, pack_globals
from actors.p2p.task_queue.limits import QueueLimits, Rate
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.operations import decide
from actors.p2p.task_queue.state import State
from actors.task_messages import (
    AskOwner,
    Beat,
    Cancel,
    Claim,
    Clear,
    Complete,
    Enqueue,
    Expire,
    Fail,
    Pause,
    RegisterWorker,
    Release,
    Reprioritise,
    Task,
    TaskState,
    UnregisterWorker,
)
from actors.task_views import GetTask, ScanTasks

BROKEN = ErrorInfo(code="BROKEN", message="it broke", retryable=True)


class HeldLog(MemoryLog):
    """Appends wait until they are let go."""

    def __init__(self):
        super().__init__()
        self.let_go = threading.Event()
        self.let_go.set()
        self.checkpoint_wanted = False

    def append(self, events):
        assert self.let_go.wait(10)
        super().append(events)

    def checkpoint_due(self):
        return self.checkpoint_wanted

    def checkpoint(self):
        super().checkpoint()
        self.checkpoint_wanted = False


class HeldBox(MemoryBox):
    def __init__(self, limits=BIG):
        super().__init__(Path(), limits)
        self.log = HeldLog()
        self.store = self.make_store()


@pytest.fixture
async def box():
    box = HeldBox()
    await box.open()
    return box


@pytest.fixture
async def nursery():
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()


async def hold(box, nursery, *ops):
    """Begin a group whose append does not return before `box.log.let_go` is set."""
    box.log.let_go.clear()
    nursery.start_soon(box.store.apply, ops)
    await trio.testing.wait_all_tasks_blocked()


# --- nobody sees what is not on disk -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get(GetTask(id="t")),
        lambda store: store.history("t"),
        lambda store: store.results(["t"]),
        lambda store: store.scan(ScanTasks()),
        lambda store: store.stats(),
    ],
)
async def test_who_reads_what_a_group_changes_waits_for_its_end(box, nursery, read):
    await box.put("t")
    before = await read(box.store)
    await hold(box, nursery, Cancel(id="t"))
    found = []

    async def reader():
        found.append(await read(box.store))

    nursery.start_soon(reader)
    await trio.testing.wait_all_tasks_blocked(0.02)  # long enough for what it does in threads
    assert found == []
    box.log.let_go.set()
    with trio.fail_after(5):
        while not found:
            await trio.sleep(0.001)
    assert found != [before]


async def test_a_task_that_the_group_does_not_touch_is_shown_at_once(box, nursery):
    await box.put("t")
    await hold(box, nursery, Enqueue(type="echo", id="new"))
    with trio.fail_after(5):
        assert await box.state("t") == "ready"
    box.log.let_go.set()


async def test_those_who_wait_are_woken_after_the_group_is_on_disk(box, nursery):
    ready, changed = trio.Event(), trio.Event()
    await box.put("t", run_at=box.clock.now + 9)

    async def wait(call, event):
        await call
        event.set()

    nursery.start_soon(wait, box.store.claim_later(Claim(worker="w")), ready)
    nursery.start_soon(wait, box.store.wait_change("t", box.clock.now), changed)
    box.later(9)
    box.store.take_changed()
    await hold(box, nursery, Expire())
    assert not ready.is_set()
    assert not changed.is_set()
    assert box.store.take_changed() == []
    box.log.let_go.set()
    with trio.fail_after(5):
        await ready.wait()
        await changed.wait()
    assert box.store.take_changed() == ["t"]


async def test_a_failed_append_raises_and_the_store_is_of_no_use_any_more(box, nursery):
    await box.put("t")
    box.log.fail_next = True
    refused = []

    async def expect(call):
        with pytest.raises(UnavailableError):
            await call()
        refused.append(call)

    nursery.start_soon(expect, lambda: box.store.claim_later(Claim(worker="w", types=["none"])))
    nursery.start_soon(expect, lambda: box.store.claim_later(Claim(worker="w", types=["lost"])))
    nursery.start_soon(expect, lambda: box.store.wait_change("t", box.clock.now))
    await trio.testing.wait_all_tasks_blocked()
    await expect(lambda: box.store.apply([Enqueue(type="lost", id="lost")]))
    for call in (
        lambda: box.store.apply([Expire()]),
        lambda: box.store.get(GetTask(id="lost")),
        lambda: box.store.scan(ScanTasks()),
        lambda: box.store.stats(),
        lambda: box.store.claim_later(Claim(worker="w")),
        box.store.run,
    ):
        await expect(call)
    await trio.testing.wait_all_tasks_blocked()
    assert len(refused) == 10
    await box.reopen()
    assert await box.store.get(GetTask(id="lost")) is None
    assert await box.state("t") == "ready"


async def test_a_group_is_finished_even_if_who_asked_for_it_is_cancelled(box):
    with trio.move_on_after(0):
        await box.store.apply([Enqueue(type="echo", id="t")])
    await box.reopen()
    assert await box.state("t") == "ready"


# --- what is worth a place in the log ------------------------------------------------------------------------------


async def test_what_changes_nothing_is_not_stored(box):
    await box.put("t")
    before = box.log.appended
    await box.do_all(Claim(worker="w", types=["none"]), Beat(id="t", token=1), Expire(), Complete(id="x", token=1))
    assert box.log.appended == before


async def test_most_beats_stay_in_memory(box):
    await box.put("t")
    lease = await box.take()
    before = box.log.appended
    for _ in range(9):
        box.later(1)
        await box.do(Beat(id="t", token=lease.token, progress=1.0))
    assert box.log.appended == before
    box.later(1)
    await box.do(Beat(id="t", token=lease.token, progress=2.0))
    assert box.log.appended == before + 1
    await box.reopen()
    assert (await box.task("t")).progress == 2.0


async def test_lines_of_a_log_are_stored_at_once(box):
    await box.put("t")
    lease = await box.take()
    await box.do(Beat(id="t", token=lease.token, logs=["one"]))
    await box.reopen()
    assert (await box.task("t")).logs == ["one"]


# --- history -------------------------------------------------------------------------------------------------------


async def test_a_task_leaves_the_memory_after_the_history_has_it(box):
    await box.put("t")
    await box.do(Cancel(id="t"))
    state = box.store._machine.state
    assert await box.store.archive() == 1
    assert list(box.kept.kept) == ["t"]
    assert "t" in state.tasks
    assert await box.store.archive() == 0
    await box.do_all()
    assert state.tasks == {}
    stored = box.log.appended
    await box.do_all()
    assert box.log.appended == stored
    await box.reopen()
    assert await box.state("t") == "cancelled"
    assert box.store._machine.state.tasks == {}


async def test_a_crash_between_history_and_log_is_harmless(box):
    await box.put("t", key="k")
    await box.do(Cancel(id="t"))
    await box.store.archive()
    await box.reopen()
    assert (await box.store.scan(ScanTasks())).total == 1
    await box.settle()
    assert (await box.store.scan(ScanTasks())).total == 1
    assert (await box.put("t", key="k")).replayed


async def test_ended_tasks_are_put_into_the_history_in_batches(box):
    box = HeldBox(msgspec.structs.replace(BIG, archive_batch=4))
    await box.open()
    await box.do_all(*(Enqueue(type="echo", id=str(n)) for n in range(10)))
    await box.do_all(*(Cancel(id=str(n)) for n in range(10)))
    assert [await box.store.archive() for _ in range(4)] == [4, 4, 2, 0]


async def test_a_batch_for_the_history_is_no_larger_than_it_may(box):
    box = HeldBox(msgspec.structs.replace(BIG, archive_chars=1000))
    await box.open()
    await box.do_all(*(Enqueue(type="echo", id=str(n), payload="x" * 400) for n in range(7)))
    await box.do_all(*(Cancel(id=str(n)) for n in range(7)))
    assert [await box.store.archive() for _ in range(4)] == [3, 3, 1, 0]


async def test_the_memory_that_tasks_take_is_bounded(box):
    box = HeldBox(msgspec.structs.replace(BIG, max_held_chars=1000))
    await box.open()
    assert code(await box.put("a", payload="x" * 400)) == ""
    lease = await box.take()
    await box.do(Complete(id="a", token=lease.token, result="y" * 400))
    for _ in range(2):
        refused = await box.put("b", payload="x" * 200)
        assert (code(refused), refused.error.retryable) == ("QUEUE_FULL", True)
        await box.reopen()
    await box.settle()
    assert code(await box.put("b", payload="x" * 200)) == ""
    assert box.store._machine.state.chars == 202


async def test_house_is_kept_beside(box, nursery):
    nursery.start_soon(box.store.run)
    await box.put("t")
    box.log.checkpoint_wanted = True
    await box.do(Cancel(id="t"))
    with trio.fail_after(5):
        while box.store.next_due() is None or not box.log.checkpoints:
            await trio.sleep(0.001)
    assert list(box.kept.kept) == ["t"]
    await box.do(Expire())
    assert box.store._machine.state.tasks == {}


async def test_a_task_that_nobody_else_knows_is_not_looked_up(box):
    looked = []
    find = box.kept.find
    box.kept.find = lambda ids, keys: looked.append((list(ids), list(keys))) or find(ids, keys)
    await box.do_all(Enqueue(type="echo", id="fresh", fresh=True), Enqueue(type="echo"))
    assert looked == []
    await box.do_all(Enqueue(type="echo", id="a"), Enqueue(type="echo", key="k"), Cancel(id="b"), Cancel(id="fresh"))
    assert looked == [(["a", "b"], [("", "k")])]


# --- a log gives back the state ------------------------------------------------------------------------------------

LIMITS = QueueLimits(
    lease_s=30.0, max_running_per_key=3, rates={"slow": Rate(per_s=5.0, burst=2)}, weights={"a": 2.0}, max_workers=9
)


def whole(state: State):
    """All that a state holds, but for what beats changed in memory."""
    for worker in state.workers.values():
        worker.seen_at = 0.0
    items = sorted(state.tasks.values(), key=lambda item: item.seq)
    own = [(i.where, i.seq, i.order, i.waits, i.ready_at, i.lease_s, i.closed, i.closed_by, i.log) for i in items]
    return pack_globals(state), [item.task for item in items], own


def some_life(rng, machine, at, ids):
    """One random operation."""
    one = rng.choice(ids)
    item = machine.state.tasks.get(one)
    token = item.task.token if item is not None else 1
    return rng.choice(
        [
            lambda: Enqueue(
                type=rng.choice(["slow", "fast"]),
                id=one,
                key=rng.choice(["", "k" + one]),
                priority=rng.choice([1.0, 5.0]),
                fairness_key=rng.choice(["a", "b"]),
                depends_on=[other for other in rng.sample(ids, 2) if other in machine.state.tasks],
                run_at=rng.choice([None, at + 5]),
                deadline=rng.choice([None, at + 40]),
                tags=rng.choice([[], ["x"]]),
            ),
            lambda: Claim(worker=rng.choice(["w", "v"]), n=3, request=str(rng.random())),
            lambda: Claim(worker=rng.choice(["w", "v"]), n=3, types=["slow"]),
            lambda: Complete(id=one, token=token, result='"done"', logs=["a line"]),
            lambda: Fail(id=one, token=token, error=BROKEN),
            lambda: Release(id=one, token=token, counts=rng.random() < 0.5, reason="why"),
            lambda: Beat(id=one, token=token, logs=["still here"], progress=5.0),
            lambda: AskOwner(id=one, token=token, questions={"q": "{}"}),
            lambda: Cancel(id=one, force=rng.random() < 0.5, reason="why"),
            lambda: Reprioritise(id=one, priority=9.0, requeue=rng.random() < 0.5),
            lambda: Expire(),
            lambda: RegisterWorker(worker="w", owner="ann", max_tasks=5),
            lambda: UnregisterWorker(worker="w", owner="ann", release=rng.random() < 0.5),
            lambda: Pause(type=rng.choice(["slow", "other"])),
            lambda: Clear(statuses=["cancelled"]),
        ]
    )()


@pytest.mark.parametrize("number", range(10))
def test_a_log_gives_back_the_state_at_each_group(number):
    rng = random.Random(number)
    machine = Machine(LIMITS, rng)
    log = MemoryLog(rotate_at=7)
    at, ids = 1000.0, [str(n) for n in range(12)]
    machine.opened(at)
    log.append(machine.end())
    for _ in range(60):
        at += rng.random() * 8
        if log.rotation_due():
            rotate(log, machine.state)
        machine.begin(at)
        machine.state.segment = log.segment()
        for _ in range(rng.randint(1, 4)):
            decide(machine, some_life(rng, machine, at, ids))
        if ended := list(machine.state.ended)[: rng.randint(0, 2)]:
            machine.emit([ev.ARCHIVED, *ended])
        events = machine.end()
        machine._counted = [0, 0, 0]
        if events:
            log.append(events)
        again = State(LIMITS)
        replay(again, log.open().groups, log.segment())
        assert whole(again) == whole(machine.state)
        assert indexes(again) == indexes(machine.state)
    assert log.oldest_segment() > 1


def rotate(log, state):
    leaving = [item for item in state.tasks.values() if item.segment <= log.oldest_segment()]
    leaving = leaving if log.segment() > log.oldest_segment() else []
    log.rotate(carried(state, leaving))
    for item in leaving:
        item.segment = log.segment()


def indexes(s: State):
    """What an index says, without what it may hold in vain."""
    return (
        {type_: counts for type_, counts in s.types.items() if any(counts)},
        s.totals,
        s.chars,
        s.keys,
        {parent: sorted(children) for parent, children in s.children.items()},
        {timer[1:] for timer in s.timers if s.timer_counts(timer)},
        sorted(item.entry for item in s.tasks.values() if item.entry is not None),
        {name: (key.ready, key.leased) for name, key in s.ready.keys.items() if key.ready or key.leased},
        {name: sorted(worker.running) for name, worker in s.workers.items()},
        sorted(s.ended),
    )


def test_an_event_of_a_task_that_is_not_there_stops_the_queue():
    with pytest.raises(UnavailableError, match="speaks of task t"):
        replay(State(BIG), [(1, [[ev.CANCEL_ASKED, 1.0, "t", ""]])], 1)


def test_in_a_segment_before_the_newest_it_is_of_a_task_that_was_dropped():
    replay(State(BIG), [(1, [[ev.CANCEL_ASKED, 1.0, "t", ""]]), (2, [])], 2)


def test_a_log_that_an_older_version_wrote_is_read():
    """It knows neither links nor paused keys: fields 0 to 37, events 1 to 26."""
    tallies = {"counters": {"submitted": 2}, "hours": [], "wait_s": None, "run_s": None}
    tallies |= {"starts": [None, []], "ends": [None, []]}
    ready = {"time": 3.0, "keys": [["k", 4.0]], "buckets": []}
    packed = {"epoch": 1, "last_token": 0, "seq": 2, "paused": {"echo": "why"}, "workers": []}
    packed |= {"ready": ready, "tallies": tallies}
    carried_ = [24, "a", "echo", 2, 1, [], [1.0, 0.0, 0.0, 0, ""], [[1.0, "submitted", "", 0, 0, ""]], 0, "{}", 18, 1.0]
    groups = [(2, [carried_, [25, packed]]), (2, [[2, 5.0, "b", "echo", 2, None, 0, '{"n":1}', 6, "k"]])]
    s = State(BIG)
    replay(s, groups, 2)
    assert {item.task.id: (item.task.payload, item.task.links) for item in s.tasks.values()} == {
        "a": ("{}", False),
        "b": ('{"n":1}', False),
    }
    assert (s.paused, s.ready.paused) == ({"echo": "why"}, {})
    assert ev.FIELDS.index("blocked_by") == 37


def test_numbers_in_the_log_name_every_state_and_field():
    assert set(ev.STATES) == set(TaskState)
    assert {"id", "type", "state", *ev.FIELDS} == set(Task.__struct_fields__)
    assert len(set(ev.FIELDS)) == len(ev.FIELDS)


# --- bounds --------------------------------------------------------------------------------------------------------


def test_memory_stays_bounded_under_endless_churn():
    machine = Machine(QueueLimits(), random.Random(1))
    machine.opened(0.0)
    for n in range(6000):
        machine.begin(float(n))
        decide(machine, Enqueue(type=f"type {n}", id=str(n), fairness_key=f"key {n}", needs=[f"need {n % 7}"]))
        [lease] = decide(machine, Claim(worker="w", capabilities=[f"need {n % 7}"])).tasks
        assert code(decide(machine, Complete(id=lease.id, token=lease.token))) == ""
        machine.emit([ev.ARCHIVED, lease.id])
        machine.end()
    s = machine.state
    assert (len(s.tasks), len(s.keys), len(s.children), len(s.ended)) == (0, 0, 0, 0)
    assert len(s.timers) <= 4096
    assert len(s.ready.keys) <= 1024
    assert len(s.types) <= 4096
    assert len(s.ready.lanes) == 0


def test_a_task_is_found_beside_those_of_many_keys_that_were_cancelled():
    machine = Machine(QueueLimits(), random.Random(1))
    machine.opened(0.0)
    machine.begin(0.0)
    decide(machine, Enqueue(type="echo", id="t", priority=1.0))
    for n in range(2000):
        machine.begin(float(n))
        decide(machine, Enqueue(type="echo", id=str(n), fairness_key=f"key {n}"))
        decide(machine, Cancel(id=str(n)))
        machine.end()
    assert [lease.id for lease in decide(machine, Claim(worker="w")).tasks] == ["t"]


def test_tasks_of_a_paused_key_that_come_and_go_leave_nothing():
    machine = Machine(QueueLimits(), random.Random(1))
    machine.opened(0.0)
    machine.begin(0.0)
    decide(machine, Pause(fairness_key="k"))
    for n in range(1000):
        machine.begin(float(n))
        decide(machine, Enqueue(type=f"type {n % 3}", id=str(n), fairness_key="k"))
        assert decide(machine, Claim(worker="w")).tasks == []
        decide(machine, Cancel(id=str(n)))
        machine.end()
    assert len(machine.state.ready.keys["k"].parked) <= 64
    assert len(machine.state.ready.lanes) == 0


def test_a_new_segment_begins_with_groups_of_bounded_size():
    machine = Machine(QueueLimits(), random.Random(1))
    machine.opened(0.0)
    for n in range(2500):
        decide(machine, Enqueue(type="echo", id=str(n), payload="x" * (100_000 if n < 10 else 2)))
    groups = list(carried(machine.state, list(machine.state.tasks.values())))
    assert sum(map(len, groups)) == 2501
    assert max(map(len, groups)) <= 1001
    assert max(len(libipld.encode_dag_cbor(group)) for group in groups) < 1 << 20


def test_entries_of_cancelled_tasks_do_not_pile_up():
    machine = Machine(QueueLimits(), random.Random(1))
    machine.opened(0.0)
    for n in range(2000):
        machine.begin(float(n))
        decide(machine, Enqueue(type="echo", id=str(n)))
        if n:
            decide(machine, Cancel(id=str(n)))
            machine.emit([ev.ARCHIVED, str(n)])
    [lane] = machine.state.ready.all_lanes()
    assert sum(len(heap) for heap in lane.heaps.values()) <= 200
