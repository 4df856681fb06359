# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the queue tells, and whom it wakes."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing
from task_boxes import BIG, code

from actors.messages import ErrorInfo
from actors.p2p.task_queue.limits import Rate
from actors.task_messages import (
    AckCancel,
    AnswerOwner,
    AskOwner,
    Beat,
    Cancel,
    Claim,
    Complete,
    Enqueue,
    Expire,
    Fail,
    Pause,
    RegisterWorker,
    Release,
    Reprioritise,
    Resume,
)
from actors.task_views import GetTask, ScanTasks

HOPELESS = ErrorInfo(code="HOPELESS", message="it cannot work")


async def ids(box, **ask):
    return [task.id for task in (await box.store.scan(ScanTasks(**ask))).tasks]


async def some(box):
    """Two that ended and are kept elsewhere, one that ended just now, one that runs, two that wait."""
    for n, (id_, more) in enumerate(
        {
            "a1": {"owner": "ann", "tags": ["x"]},
            "a2": {"owner": "bob", "tags": ["x", "y"], "priority": 9.0},
            "b3": {"owner": "ann", "type_": "other"},
            "b4": {"owner": "ann", "tags": ["y"], "priority": 2.0},
            "c5": {},
            "c6": {"owner": "ann", "tags": ["x", "y"]},
        }.items()
    ):
        await box.put(id_, metadata='{"m":1}', **more)
        if n < 2:
            lease = await box.take("w1")
            await box.do(Complete(id=id_, token=lease.token, result="1"))
            await box.settle()
        elif n == 2:
            lease = await box.take("w2")
            await box.do(Fail(id=id_, token=lease.token, error=HOPELESS))
        elif n == 3:
            await box.take("w1")
        box.later(1)


async def test_tasks_are_listed_newest_first_wherever_they_are(box):
    await some(box)
    assert await ids(box) == ["c6", "c5", "b4", "b3", "a2", "a1"]
    assert await ids(box, oldest_first=True) == ["a1", "a2", "b3", "b4", "c5", "c6"]


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_pages_follow_one_another(box, oldest_first):
    await some(box)
    whole = await ids(box, oldest_first=oldest_first)
    pages = []
    for offset in range(0, 8, 2):
        page = await box.store.scan(ScanTasks(limit=2, offset=offset, oldest_first=oldest_first))
        assert page.total == 6
        pages += [task.id for task in page.tasks]
    assert pages == whole


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        ({"status": "completed"}, ["a2", "a1"]),
        ({"status": "failed"}, ["b3"]),
        ({"status": "running"}, ["b4"]),
        ({"status": "queued"}, ["c6", "c5"]),
        ({"status": "skipped"}, []),
        ({"owner": "ann"}, ["c6", "b4", "b3", "a1"]),
        ({"owner": ""}, ["c5"]),
        ({"worker": "w1"}, ["b4", "a2", "a1"]),
        ({"types": ["other", "unknown"]}, ["b3"]),
        ({"tags": ["x"]}, ["c6", "a2", "a1"]),
        ({"tags": ["y", "x"]}, ["c6", "a2"]),
        ({"id_prefix": "a"}, ["a2", "a1"]),
        ({"priority_min": 5.5}, ["a2"]),
        ({"owner": "ann", "tags": ["y"], "status": "queued"}, ["c6"]),
    ],
)
async def test_what_is_listed_can_be_chosen(box, ask, found):
    await some(box)
    page = await box.store.scan(ScanTasks(**ask))
    assert ([task.id for task in page.tasks], page.total) == (found, len(found))
    assert len((await box.store.scan(ScanTasks(limit=1, **ask))).tasks) == min(1, len(found))


async def test_a_list_shows_no_payloads_and_results_and_a_look_does(box):
    await box.put("t", payload='{"a":1}')
    lease = await box.take()
    await box.do(Complete(id="t", token=lease.token, result="42"))
    for _ in range(2):
        [listed] = (await box.store.scan(ScanTasks())).tasks
        assert (listed.payload, listed.result) == ("{}", None)
        task = await box.task("t")
        assert (task.payload, task.result) == ('{"a":1}', "42")
        await box.settle()


async def test_a_task_is_the_same_wherever_it_is_kept(box):
    await box.put("t", tags=["a"], key="k", metadata='{"m":1}')
    lease = await box.take()
    await box.do(Beat(id="t", token=lease.token, logs=["one"]))
    await box.do(Fail(id="t", token=lease.token, error=HOPELESS))
    before, events = await box.task("t"), await box.store.history("t")
    await box.settle()
    assert (await box.task("t"), await box.store.history("t")) == (before, events)
    await box.reopen()
    assert (await box.task("t"), await box.store.history("t")) == (before, events)
    assert [event.what for event in events] == ["submitted", "claimed", "failed"]
    assert (events[1].worker, events[1].attempt, events[2].note) == ("w", 1, "it cannot work")


async def test_each_change_of_a_task_has_a_later_time_than_the_one_before(box):
    await box.put("t")
    times = [(await box.task("t")).updated_at]

    async def changed(op):
        outcome = await box.do(op)
        times.append((await box.task("t")).updated_at)
        return outcome

    await changed(Reprioritise(id="t", priority=9.0))
    [lease] = (await changed(Claim(worker="w"))).tasks
    await changed(AskOwner(id="t", token=lease.token, questions={"q": "{}"}))
    await changed(AnswerOwner(id="t", answers={"q": "1"}))
    await box.reopen()
    box.later(-3600)
    await box.reopen()
    await changed(Beat(id="t", token=lease.token))
    await changed(Cancel(id="t"))
    await changed(AckCancel(id="t", token=lease.token))
    assert times == sorted(set(times))


async def test_what_was_shown_does_not_change_later(box):
    await box.put("t")
    before = await box.task("t")
    await box.take()
    assert before.state == "ready"


async def test_of_what_happened_the_first_and_the_latest_are_kept(make_box):
    box = await make_box(msgspec.structs.replace(BIG, max_task_events=4))
    await box.put("t")
    for _ in range(5):
        lease = await box.take()
        await box.do(Release(id="t", token=lease.token, counts=False))
    assert [event.what for event in await box.store.history("t")] == ["submitted", "released", "claimed", "released"]


async def test_the_place_of_a_ready_task_is_told_when_it_is_asked_for(box):
    await box.put("a")
    await box.put("b")
    await box.put("later", run_at=box.clock.now + 9)
    assert (await box.store.get(GetTask(id="b", position=True))).position == 2
    assert (await box.store.get(GetTask(id="later", position=True))).position is None
    assert (await box.store.get(GetTask(id="b"))).position is None
    await box.take()
    view = await box.store.get(GetTask(id="b", position=True))
    assert view.position == 1
    assert view.estimated_start > box.clock.now


async def test_an_unknown_task_has_no_view_and_no_history(box):
    assert await box.store.get(GetTask(id="nobody")) is None
    assert await box.store.history("nobody") == []


async def test_a_task_says_why_it_waits(make_box):
    box = await make_box(
        msgspec.structs.replace(
            BIG, concurrency={"one": 1}, rates={"slow": Rate(per_s=0.1)}, max_running_per_key=1, weights={"k": 1.0}
        )
    )

    async def why(id_):
        return (await box.store.get(GetTask(id=id_))).why_waiting

    await box.put("later", run_at=box.clock.now + 9)
    await box.put("after", depends_on=["later"])
    assert await why("later") == "scheduled"
    assert await why("after") == "blocked by 1 task"
    for n, (type_, more) in enumerate((("one", {}), ("slow", {"fairness_key": "s"}), ("any", {"fairness_key": "k"}))):
        for i in range(2):
            await box.put(f"{type_}{i}", type_, **more)
        await box.take(f"w{n}", types=[type_])
    assert await why("one0") == ""
    assert await why("one1") == "limit of its type reached"
    assert await why("slow1") == "rate of its type reached"
    assert await why("any1") == "limit of its fairness key reached"
    await box.do(RegisterWorker(worker="mine"))
    await box.put("sticky", sticky_worker="mine", fairness_key="x")
    assert await why("sticky") == "kept for worker mine"
    await box.put("gpu", needs=["gpu"], fairness_key="x")
    assert await why("gpu") == "waits for a worker that has gpu"
    await box.put("free", fairness_key="x")
    assert await why("free") == "waits for a worker"
    await box.do(Pause())
    assert await why("free") == "paused"


async def test_many_tasks_are_told_at_once_wherever_they_are_kept(box):
    await some(box)
    asked = ["c6", "nobody", "a1", "b4", "b3", "a1"]
    told = await box.store.results(asked)
    assert [fact.id for fact in told.facts] == ["c6", "a1", "b4", "b3"]
    assert (told.unknown, told.left) == (["nobody"], [])
    for fact in told.facts:
        task = await box.task(fact.id)
        for field in fact.__struct_fields__:
            assert getattr(fact, field) == getattr(task, field), field
    assert [fact.result for fact in told.facts] == [None, "1", None, None]
    await box.settle()
    assert await box.store.results(asked) == told
    await box.reopen()
    assert [fact.id for fact in (await box.store.results(asked)).facts] == ["c6", "a1", "b4", "b3"]


@pytest.mark.parametrize("kept", ["here", "elsewhere", "both"])
async def test_what_does_not_fit_into_one_answer_is_left_for_the_next(make_box, kept):
    box = await make_box(msgspec.structs.replace(BIG, max_facts_bytes=700))
    wanted = [f"t{n}" for n in range(7)]
    for n, id_ in enumerate(wanted):
        await box.put(id_)
        lease = await box.take()
        await box.do(Complete(id=id_, token=lease.token, result=f'"{str(n) * (2000 if n == 3 else 100)}"'))
        if kept == "elsewhere" or (kept == "both" and n == 2):
            await box.settle()
    found, unknown, sizes = {}, [], []
    left = [*wanted, "nobody"]
    while left:
        told = await box.store.results(left)
        assert not (told.left and told.unknown)  # what was not looked for is not unknown
        assert sorted([fact.id for fact in told.facts] + told.left + told.unknown) == sorted(left)
        found |= {fact.id: fact.result for fact in told.facts}
        unknown += told.unknown
        sizes.append(sum(len(fact.result) for fact in told.facts))
        left = told.left
    assert unknown == ["nobody"]
    assert found == {id_: (await box.task(id_)).result for id_ in wanted}
    assert all(size == 2002 or size < 700 for size in sizes if size != 0)


async def test_the_queue_in_numbers(box):
    await some(box)
    await box.put("later", run_at=box.clock.now + 9)
    await box.put("after", depends_on=["later"])
    await box.do(Cancel(id="c5"))
    await box.do(Complete(id="a1", token=1))
    box.later(3)
    for _ in range(2):
        stats = await box.store.stats()
        assert stats.counts == {"completed": 2, "failed": 1, "cancelled": 1, "running": 1, "queued": 3}
        assert stats.by_type["other"] == {"failed": 1}
        assert stats.by_state == {"blocked": 1, "scheduled": 1, "ready": 1, "leased": 1}
        assert stats.oldest_ready_s == 4.0
        assert {k: n for k, n in stats.counters.items() if n} == {
            "submitted": 8,
            "completed": 2,
            "failed": 1,
            "cancelled": 1,
            "stale_fence": 1,
        }
        assert sum(hour.submitted for hour in stats.hours) == 8
        assert stats.throughput_per_s > 0
        assert stats.average_run_s == 0.0
        await box.settle()


async def test_an_empty_queue_in_numbers(box):
    stats = await box.store.stats()
    assert (stats.counts, stats.by_state, stats.workers, stats.hours) == ({}, {}, [], [])
    assert stats.oldest_ready_s is stats.average_wait_s is stats.average_run_s is stats.throughput_per_s is None


async def test_of_hours_the_last_24_are_told(box):
    for hour in range(30):
        await box.put(str(hour))
        box.later(3600)
    hours = (await box.store.stats()).hours
    assert len(hours) == 23  # in the running hour nothing has happened yet
    assert [hour.submitted for hour in hours] == [1] * 23
    assert hours == sorted(hours, key=lambda hour: hour.at)


async def test_counts_go_on_after_a_crash(box):
    await some(box)
    before = await box.store.stats()
    await box.reopen()
    after = await box.store.stats()
    assert (after.counts, after.counters, after.hours) == (before.counts, before.counters, before.hours)


async def test_ids_of_changed_tasks_are_told_once(box):
    await box.do_all(Enqueue(type="echo", id="a"), Enqueue(type="echo", id="b", depends_on=["a"]))
    assert sorted(box.store.take_changed()) == ["a", "b"]
    assert box.store.take_changed() == []
    lease = await box.take()
    await box.do(Beat(id="a", token=lease.token, progress=5.0))
    assert box.store.take_changed() == ["a"]
    await box.do(Beat(id="a", token=lease.token, progress=6.0))
    assert box.store.take_changed() == []
    await box.do(AskOwner(id="a", token=lease.token, questions={"q": "{}"}))
    assert box.store.take_changed() == ["a"]
    await box.do(Complete(id="a", token=lease.token))
    assert sorted(box.store.take_changed()) == ["a", "b"]
    await box.settle()
    assert box.store.take_changed() == []


# --- waiting -------------------------------------------------------------------------------------------------------


class Returned:
    """Whether a call has returned, and what."""

    def __init__(self):
        self.returned = None
        self._event = trio.Event()
        self.set, self.wait, self.is_set = self._event.set, self._event.wait, self._event.is_set


class Waiting:
    """Calls that wait, and whether they have returned."""

    def __init__(self, nursery):
        self.nursery = nursery

    async def start(self, wait):
        done = Returned()

        async def call():
            done.returned = await wait()
            done.set()

        self.nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        return done


@pytest.fixture
async def waiting():
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            yield Waiting(nursery)
            nursery.cancel_scope.cancel()


async def woken(event):
    with trio.move_on_after(1):
        await event.wait()
    return event.is_set()


async def test_who_waits_for_a_task_to_claim_is_given_one_that_it_may_have(box, waiting):
    done = await waiting.start(lambda: box.store.claim_later(Claim(worker="w", types=["wanted"])))
    await box.put("a", "other")
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    await box.put("b", "wanted")
    assert await woken(done)
    [lease] = done.returned.tasks
    assert (lease.id, await box.state("b"), await box.state("a")) == ("b", "leased", "ready")
    await box.reopen()
    assert (await box.task("b")).token == lease.token


async def test_who_asks_when_there_is_a_task_does_not_wait(box, waiting):
    await box.put("t")
    done = await waiting.start(lambda: box.store.claim_later(Claim(worker="w")))
    assert await woken(done)
    assert [lease.id for lease in done.returned.tasks] == ["t"]


async def test_who_waits_longest_is_given_a_task_first(box, waiting):
    done = [await waiting.start(lambda n=n: box.store.claim_later(Claim(worker=f"w{n}"))) for n in range(3)]
    await box.put("a")
    await box.do_all(Enqueue(type="echo", id="b"), Enqueue(type="echo", id="c"))
    for event in done:
        assert await woken(event)
    assert [event.returned.tasks[0].id for event in done] == ["a", "b", "c"]


async def test_a_claim_that_waited_is_given_no_more_than_it_asked_for(box, waiting):
    done = await waiting.start(lambda: box.store.claim_later(Claim(worker="w", n=2)))
    await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in "abc"))
    assert await woken(done)
    assert [lease.id for lease in done.returned.tasks] == ["a", "b"]


async def test_a_claim_that_waited_can_be_repeated_when_its_answer_was_lost(box, waiting):
    claim = Claim(worker="w", request="r")
    done = await waiting.start(lambda: box.store.claim_later(claim))
    await box.put("t")
    assert await woken(done)
    await box.put("u")
    assert await box.do(claim) == done.returned


async def test_a_claim_that_is_not_allowed_any_more_is_refused(make_box, waiting):
    box = await make_box(msgspec.structs.replace(BIG, max_workers=1))
    done = [await waiting.start(lambda n=n: box.store.claim_later(Claim(worker=f"w{n}"))) for n in range(2)]
    await box.do_all(Enqueue(type="echo", id="a"), Enqueue(type="echo", id="b"))
    for event in done:
        assert await woken(event)
    assert [code(event.returned) for event in done] == ["", "LIMIT_EXCEEDED"]
    assert await box.state("b") == "ready"


@pytest.mark.parametrize(
    "how", ["given back", "expired", "due", "resumed", "unblocked", "room", "refilled", "worker silent"]
)
async def test_whatever_makes_a_task_ready_wakes_who_waits(make_box, waiting, how):
    box = await make_box(
        msgspec.structs.replace(BIG, concurrency={"one": 1}, rates={"slow": Rate(per_s=1.0)}, lease_s=30.0)
    )
    type_ = {"room": "one", "refilled": "slow"}.get(how, "echo")
    await box.put("a", type_)
    lease = await box.take("w1")
    if how in ("room", "refilled"):
        await box.put("b", type_)
    if how == "worker silent":
        await box.do(RegisterWorker(worker="mine"))
        box.later(5)
        await box.do(Beat(id="a", token=lease.token, lease_s=1000.0))
        await box.put("b", sticky_worker="mine")
    if how == "unblocked":
        await box.put("b", depends_on=["a"])
    if how == "due":
        await box.put("b", run_at=box.clock.now + 5)
    if how == "resumed":
        await box.do(Pause())
        await box.put("b")
    done = await waiting.start(lambda: box.store.claim_later(Claim(worker="w2")))
    assert not done.is_set()
    if how == "given back":
        await box.do(Release(id="a", token=lease.token))
    elif how in ("unblocked", "room"):
        await box.do(Complete(id="a", token=lease.token))
    elif how == "resumed":
        await box.do(Resume())
    else:
        due = box.store.next_due()
        assert due == box.clock.now + {"expired": 30, "due": 5, "refilled": 1, "worker silent": 85}[how]
        box.clock.now = due
        await box.do(Expire())
    assert await woken(done)
    assert [lease.id for lease in done.returned.tasks] == ["a" if how in ("given back", "expired") else "b"]


async def test_a_worker_that_holds_all_that_it_may_waits_until_it_has_room(box, waiting):
    await box.do(RegisterWorker(worker="w", max_tasks=1))
    await box.put("a")
    lease = await box.take()
    done = await waiting.start(lambda: box.store.claim_later(Claim(worker="w")))
    await box.put("b")
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    await box.do(Complete(id="a", token=lease.token))
    assert await woken(done)


async def change(box, waiting, task_id="t"):
    """Wait for a change of the task as it is now."""
    since = (await box.task(task_id)).updated_at
    return await waiting.start(lambda: box.store.wait_change(task_id, since))


async def test_who_waits_for_a_change_is_woken_by_any_but_progress(box, waiting):
    await box.put("t")
    done = await change(box, waiting)
    await box.put("other")
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    lease = await box.take()
    assert await woken(done)
    done = await change(box, waiting)
    await box.do(Beat(id="t", token=lease.token, progress=3.0))
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    await box.do(AskOwner(id="t", token=lease.token, questions={"q": "{}"}))
    assert await woken(done)
    done = await change(box, waiting)
    await box.do(Complete(id="t", token=lease.token))
    assert await woken(done)


async def test_who_waits_for_a_change_that_came_before_does_not_wait(box, waiting):
    await box.put("t")
    seen = (await box.task("t")).updated_at
    await box.take()
    assert await woken(await waiting.start(lambda: box.store.wait_change("t", seen)))


async def test_nobody_waits_for_a_task_that_has_ended_or_is_not_there(box, waiting):
    assert await woken(await waiting.start(lambda: box.store.wait_change("nobody", 0.0)))
    await box.put("t")
    await box.do(Cancel(id="t"))
    assert await woken(await change(box, waiting))
    await box.settle()
    assert await woken(await change(box, waiting))


async def test_who_waits_may_go_away(box, waiting):
    await box.put("t")
    await box.take()
    with trio.move_on_after(0):
        await box.store.wait_change("t", (await box.task("t")).updated_at)
    with trio.move_on_after(0):
        await box.store.claim_later(Claim(worker="left"))
    done = await waiting.start(lambda: box.store.claim_later(Claim(worker="w")))
    await box.do_all(Cancel(id="t", force=True), Enqueue(type="echo", id="u"))
    assert await woken(done)
    assert [lease.id for lease in done.returned.tasks] == ["u"]
