# SPDX-License-Identifier: AGPL-3.0-or-later
"""The embedded task store while groups are on their way to the disk: what is decided meanwhile, what is told when, and
claims that were waiting."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
import trio.testing
from task_boxes import BIG, MemoryBox, code
from task_files import HeldLog

from actors.errors import UnavailableError
from actors.p2p.task_queue import waits
from actors.p2p.task_queue.apply import replay
from actors.p2p.task_queue.carry import pack_globals
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.state import State
from actors.task_messages import Cancel, Claim, Clear, Complete, Enqueue, Expire
from actors.task_views import GetTask, ScanTasks

A, B, C = (Enqueue(type="echo", id=id_, fresh=True) for id_ in "abc")
"""Fresh: nothing is looked up before they are decided."""


class HeldBox(MemoryBox):
    """Its log can be held."""

    def __init__(self, limits: QueueLimits = BIG, *, rotate_at: int = 10**9) -> None:
        super().__init__(Path(), limits)
        self.log = HeldLog(rotate_at=rotate_at)
        self.store = self.make_store()
        self.ended = []
        """Names of calls that have returned, in order."""

    async def begin(self, nursery, *ops, name="", call=None):
        """Begin operations, or a call, while the log is held."""
        self.log.held = True

        async def run():
            try:
                await (call() if call is not None else self.store.apply(ops))
                self.ended.append(name)
            except UnavailableError:
                self.ended.append(f"{name} failed")

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked(0.0)

    async def until_ended(self, count):
        """What has returned, once it is so many."""
        with trio.fail_after(5):
            while len(self.ended) < count:
                await trio.sleep(0)
        await trio.testing.wait_all_tasks_blocked(0.0)
        return self.ended


@pytest.fixture
async def box():
    box = HeldBox()
    await box.open()
    return box


@pytest.fixture
async def nursery(box):
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            yield nursery
            box.log.let_go()
            nursery.cancel_scope.cancel()


# --- two groups in work --------------------------------------------------------------------------------------------


async def test_what_is_decided_while_a_group_is_written_is_the_next_group(box, nursery):
    before = box.log.appended
    for op, name in ((A, "a"), (B, "b"), (C, "c")):
        await box.begin(nursery, op, name=name)
    assert box.ended == []
    box.log.go_on()
    assert await box.until_ended(1) == ["a"]
    box.log.go_on()
    assert sorted(await box.until_ended(3)) == ["a", "b", "c"]
    assert box.log.appended == before + 2


async def test_later_operations_see_what_earlier_ones_decided(box, nursery):
    found = []

    async def claim():
        found.append(await box.store.apply([Claim(worker="w")]))

    await box.begin(nursery, A, name="a")
    await box.begin(nursery, call=claim, name="claim")
    box.log.go_on()
    assert await box.until_ended(1) == ["a"]
    box.log.go_on()
    await box.until_ended(2)
    assert [lease.id for lease in found[0][0].tasks] == ["a"]


async def test_an_operation_that_changes_nothing_waits_for_what_it_saw(box, nursery):
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, Complete(id="a", token=7), name="refused")
    assert box.ended == []
    box.log.go_on()
    assert sorted(await box.until_ended(2)) == ["a", "refused"]


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get(GetTask(id="b")),
        lambda store: store.history("b"),
        lambda store: store.scan(ScanTasks()),
        lambda store: store.stats(),
        lambda store: store.worker("w"),
        lambda store: store.archive(),
    ],
    ids=["get", "history", "scan", "stats", "worker", "archive"],
)
async def test_a_reading_is_told_when_all_that_it_shows_is_on_disk(box, nursery, read):
    await box.put("b")
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, Cancel(id="b"), name="b")
    await box.begin(nursery, call=lambda: read(box.store), name="read")
    await trio.testing.wait_all_tasks_blocked(0.005)  # what it does in threads
    assert box.ended == []
    box.log.go_on()
    assert await box.until_ended(1) == ["a"]
    assert box.kept.kept == {}
    box.log.go_on()
    assert sorted(await box.until_ended(3)) == ["a", "b", "read"]


async def test_a_reading_does_not_wait_for_what_comes_later(box, nursery):
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, call=lambda: box.store.worker("w"), name="read")
    await box.begin(nursery, B, name="b")
    box.log.go_on()
    assert sorted(await box.until_ended(2)) == ["a", "read"]


async def test_a_reading_of_a_task_waits_only_for_what_changed_it(box, nursery):
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, B, name="b")
    await box.begin(nursery, call=lambda: box.store.get(GetTask(id="a")), name="read")
    box.log.go_on()
    assert sorted(await box.until_ended(2)) == ["a", "read"]


async def test_who_is_cancelled_waits_until_it_is_on_disk(box, nursery):
    await box.begin(nursery, A, name="a")
    scope = trio.CancelScope()

    async def leave():
        with scope:
            await box.store.apply([B])

    await box.begin(nursery, call=leave, name="b")
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked(0.0)
    assert box.ended == []
    box.log.go_on(2)
    assert await box.until_ended(2) == ["a", "b"]
    assert await box.state("b") == "ready"


async def test_what_changed_is_told_group_by_group(box, nursery):
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, B, name="b")
    assert box.store.take_changed() == []
    box.log.go_on()
    await box.until_ended(1)
    assert box.store.take_changed() == ["a"]
    box.log.go_on()
    await box.until_ended(2)
    assert box.store.take_changed() == ["b"]


async def test_when_a_group_fails_it_and_the_next_are_answered_with_that_and_nothing_else_is_written(box, nursery):
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, B, name="b")
    await box.begin(nursery, call=lambda: box.store.get(GetTask(id="b")), name="read")
    await box.begin(nursery, call=lambda: box.store.claim_later(Claim(worker="w", types=["x"])), name="claim")
    before = box.log.appended
    box.log.fail_next = True
    box.log.go_on(9)
    assert sorted(await box.until_ended(4)) == ["a failed", "b failed", "claim failed", "read failed"]
    assert box.log.appended == before
    await box.begin(nursery, C, name="c")
    await box.begin(nursery, call=lambda: box.store.scan(ScanTasks()), name="scan")
    assert sorted(await box.until_ended(6))[2:4] == ["c failed", "claim failed"]


async def test_what_was_on_disk_before_a_group_failed_counts(box, nursery):
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, B, name="b")
    box.log.go_on()
    assert await box.until_ended(1) == ["a"]
    box.log.fail_next = True
    box.log.go_on()
    assert await box.until_ended(2) == ["a", "b failed"]
    box.log.let_go()
    await box.reopen()
    assert await box.state("a") == "ready"
    assert await box.store.get(GetTask(id="b")) is None


async def test_clearing_is_decided_beside_others_and_told_when_it_is_done(box, nursery):
    await box.put("old")
    await box.begin(nursery, A, name="a")
    await box.begin(nursery, Clear(), name="clear")
    await box.begin(nursery, B, name="b")
    box.log.go_on(2)
    assert sorted(await box.until_ended(3)) == ["a", "b", "clear"]
    assert [await box.store.get(GetTask(id=id_)) is None for id_ in ("old", "a", "b")] == [True, True, False]


async def test_before_the_log_is_rotated_all_that_was_decided_is_written(box, nursery):
    await box.put("t")
    box.log.rotate_at = 1
    await box.put("a")
    box.log.rotate_at = 10**9
    await box.begin(nursery, B, name="b")
    await box.begin(nursery, Cancel(id="t"), name="cancel")
    box.log.rotate_at = 1
    await box.begin(nursery, C, name="c")
    box.log.rotate_at = 10**9
    box.log.go_on(3)
    assert await box.until_ended(3) == ["b", "cancel", "c"]
    assert (box.log.oldest_segment(), box.log.segment()) == (2, 3)
    state = State(box.limits)
    replay(state, box.log.open().groups, box.log.segment())
    assert pack_globals(state) == pack_globals(box.store._machine.state)
    assert state.tasks.keys() == {"t", "a", "b", "c"}


class FailingLog(HeldLog):
    """Fails at this append, for ever."""

    def __init__(self, at, rotate_at):
        super().__init__(rotate_at=rotate_at)
        self.left = at

    def append(self, events):
        self.left -= 1
        if self.left < 0:
            raise UnavailableError("the disk is full")
        super().append(events)


@pytest.mark.parametrize("seed", range(8))
async def test_what_was_told_before_a_failure_at_any_moment_is_there_afterwards(seed):
    rng = random.Random(seed)
    box = HeldBox()
    box.log = FailingLog(at=rng.randint(3, 40), rotate_at=rng.choice([3, 7, 100]))
    box.store = box.make_store()
    await box.open()
    told = {}

    async def live(name):
        try:
            for n in range(20):
                id_ = f"{name}{n}"
                [submitted] = await box.store.apply([Enqueue(type="echo", id=id_)])
                told[submitted.id] = submitted.state
                for _ in range(rng.randint(0, 2)):
                    await trio.sleep(0)
                [claimed] = await box.store.apply([Claim(worker=name, n=rng.randint(1, 2))])
                for lease in claimed.tasks:
                    told[lease.id] = "leased"
                    [ended] = await box.store.apply([Complete(id=lease.id, token=lease.token)])
                    told[ended.id] = ended.state
                    view = await box.store.get(GetTask(id=lease.id))
                    assert view.task.state == "completed"
        except UnavailableError:
            pass

    async with trio.open_nursery() as nursery:
        for name in "uvwxyz":
            nursery.start_soon(live, name)
    assert box.log.left < 0
    box.log.left = 10**9
    await box.reopen()
    order = ["ready", "leased", "completed"]
    for id_, state in told.items():
        assert order.index(await box.state(id_)) >= order.index(state)


# --- claims that wait ----------------------------------------------------------------------------------------------


class Waiting:
    """Workers that wait for a task, and what they were given."""

    def __init__(self, box, nursery):
        self.box = box
        self.nursery = nursery
        self.given = {}
        self.scopes = {}

    async def add(self, *names, **fields):
        for name in names:
            self.nursery.start_soon(self._wait, name, fields)
            await trio.testing.wait_all_tasks_blocked()

    async def _wait(self, name, fields):
        with trio.CancelScope() as self.scopes[name]:
            outcome = await self.box.store.claim_later(Claim(worker=name, **fields))
            self.given[name] = code(outcome) or [lease.id for lease in outcome.tasks]

    async def until(self, count):
        with trio.fail_after(5):
            while len(self.given) < count:
                await trio.sleep(0.001)
        return self.given


@pytest.fixture
async def waiting(box, nursery):
    return Waiting(box, nursery)


async def test_the_group_that_makes_a_task_ready_gives_it_to_who_waits(box, waiting):
    await waiting.add("w")
    before = box.log.appended
    await box.put("t")
    assert await waiting.until(1) == {"w": ["t"]}
    assert box.log.appended == before + 1


async def test_the_end_of_a_task_gives_the_one_that_depends_on_it_to_who_waits(box, waiting):
    await box.put("t")
    await box.put("next", depends_on=["t"])
    lease = await box.take("first")
    await waiting.add("w")
    before = box.log.appended
    await box.do(Complete(id="t", token=lease.token))
    assert await waiting.until(1) == {"w": ["next"]}
    assert box.log.appended == before + 1


async def test_who_waits_is_given_nothing_before_it_is_on_disk(box, nursery, waiting):
    await waiting.add("w")
    await box.begin(nursery, Enqueue(type="echo", id="t", fresh=True))
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert waiting.given == {}
    box.log.go_on()
    assert await waiting.until(1) == {"w": ["t"]}


async def test_who_leaves_while_its_claim_is_stored_is_told_all_the_same(box, nursery, waiting):
    await waiting.add("w")
    await box.begin(nursery, Enqueue(type="echo", id="t", fresh=True))
    waiting.scopes["w"].cancel()
    await trio.testing.wait_all_tasks_blocked(0.01)
    box.log.go_on()
    assert await waiting.until(1) == {"w": ["t"]}


async def test_who_left_before_is_given_nothing(box, waiting):
    await waiting.add("left", "w")
    waiting.scopes["left"].cancel()
    await trio.testing.wait_all_tasks_blocked()
    await box.put("t")
    assert await waiting.until(1) == {"w": ["t"]}


async def test_for_one_task_not_every_idle_worker_is_looked_at(box, waiting, monkeypatch):
    looked = []
    may = waits.may_claim
    monkeypatch.setattr(waits, "may_claim", lambda s, claim, now: looked.append(claim.worker) or may(s, claim, now))
    await waiting.add(*(f"w{n}" for n in range(20)))
    await box.put("t")
    assert await waiting.until(1) == {"w0": ["t"]}
    assert looked == ["w0"]
    await box.do(Cancel(id="t"))
    assert looked == ["w0"], "nothing is ready"


async def test_one_group_decides_a_bounded_number_of_claims_and_the_clock_asks_for_the_rest(box, waiting, monkeypatch):
    monkeypatch.setattr(waits, "_MOST_TOGETHER", 2)
    await waiting.add("a", "b", "c")
    await box.do_all(*(Enqueue(type="echo", id=str(n)) for n in range(3)))
    assert await waiting.until(2) == {"a": ["0"], "b": ["1"]}
    assert box.store.next_due() == box.clock.now
    await box.do(Expire())
    assert (await waiting.until(3))["c"] == ["2"]
    assert box.store.next_due() > box.clock.now


async def test_a_lease_that_ends_while_claims_are_decided_makes_room_for_those_that_were_passed_over(waiting, box):
    await box.put("late", "one")
    await box.take("silent", lease_s=5.0)
    await waiting.add("passed over", types=["one"])
    await waiting.add("w", types=["two"])
    box.later(6)
    await box.put("t", "two")
    assert await waiting.until(2) == {"passed over": ["late"], "w": ["t"]}
