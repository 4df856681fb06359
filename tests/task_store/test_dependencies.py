# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks that wait for others."""

from __future__ import annotations

from itertools import permutations

import pytest
from task_boxes import code

from actors.messages import ErrorInfo
from actors.task_messages import Cancel, Complete, Enqueue, Expire, Fail
from actors.task_views import ScanTasks

HOPELESS = ErrorInfo(code="HOPELESS", message="it cannot work")


async def finish(box, id_, tokens):
    return await box.do(Complete(id=id_, token=tokens[id_]))


async def test_a_task_starts_after_all_that_it_depends_on_and_once(box):
    for n, order in enumerate(permutations("abc")):
        ids = [f"{n}{id_}" for id_ in order]
        await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in ids))
        child = f"{n}child"
        assert (await box.put(child, depends_on=sorted(ids))).state == "blocked"
        tokens = {lease.id: lease.token for lease in await box.claim(n=9)}
        assert child not in tokens
        for left, id_ in zip((2, 1, 0), ids, strict=True):
            await finish(box, id_, tokens)
            assert (await finish(box, id_, tokens)).replayed
            assert (await box.task(child)).blocked_by == left
        assert [lease.id for lease in await box.claim(n=9)] == [child]


async def test_all_in_one_group(box):
    await box.do_all(
        Enqueue(type="echo", id="a"), Enqueue(type="echo", id="b"), Enqueue(type="echo", id="c", depends_on=["a", "b"])
    )
    leases = await box.claim(n=9)
    await box.do_all(*(Complete(id=lease.id, token=lease.token) for lease in leases))
    assert (await box.take()).id == "c"


async def test_counts_are_right_after_a_crash_at_each_step(box):
    await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in "abc"))
    await box.put("child", depends_on=["a", "b", "c"])
    tokens = {lease.id: lease.token for lease in await box.claim(n=9)}
    for left, id_ in ((2, "b"), (1, "c"), (0, "a")):
        await finish(box, id_, tokens)
        await box.settle()
        await box.reopen()
        assert (await box.task("child")).blocked_by == left
    assert (await box.take()).id == "child"


async def test_a_task_may_depend_on_one_that_has_ended_long_ago(box):
    await box.put("a")
    lease = await box.take()
    await box.do(Complete(id="a", token=lease.token))
    assert (await box.put("b", depends_on=["a"])).state == "ready"
    await box.settle()
    assert (await box.put("c", depends_on=["a"])).state == "ready"


async def test_a_dependency_may_be_named_twice(box):
    await box.put("a")
    await box.put("b", depends_on=["a", "a"])
    assert (await box.task("b")).blocked_by == 1
    lease = await box.take()
    await box.do(Complete(id="a", token=lease.token))
    assert (await box.take()).id == "b"


async def test_an_unknown_dependency_is_refused_whole(box):
    one, two = await box.do_all(
        Enqueue(type="echo", id="a", depends_on=["b"]), Enqueue(type="echo", id="b", depends_on=["a"])
    )
    assert (code(one), code(two)) == ("INVALID_PARAMS", "INVALID_PARAMS")
    assert (await box.store.scan(ScanTasks())).total == 0


async def test_a_start_time_counts_after_the_dependencies(box):
    await box.put("a")
    await box.put("b", depends_on=["a"], run_at=box.clock.now + 50)
    lease = await box.take()
    await box.do(Complete(id="a", token=lease.token))
    assert await box.state("b") == "scheduled"
    box.later(50)
    assert (await box.take()).id == "b"


async def test_a_start_time_counts_though_the_dependencies_are_completed(box):
    await box.put("a")
    lease = await box.take()
    await box.do(Complete(id="a", token=lease.token))
    assert (await box.put("b", depends_on=["a"], run_at=box.clock.now + 50)).state == "scheduled"


async def failed(box):
    lease = await box.take()
    await box.do(Fail(id="a", token=lease.token, error=HOPELESS))


async def cancelled(box):
    await box.do(Cancel(id="a"))


async def too_late(box):
    box.later(100)
    await box.do(Expire())


async def silent(box):
    for _ in range(3):
        await box.take(types=["echo"])
        box.later(30)
    await box.do(Expire())


@pytest.mark.parametrize("end", [failed, cancelled, too_late, silent])
async def test_what_depends_on_a_task_without_success_is_skipped_to_the_last(box, end):
    await box.put("a", deadline=box.clock.now + 100)
    await box.put("b", depends_on=["a"])
    await box.put("free", "other")
    await box.put("c", depends_on=["b", "free"])
    await box.put("d", depends_on=["c", "a"])
    await end(box)
    for _ in range(2):
        assert [await box.state(id_) for id_ in "bcd"] == ["skipped"] * 3
        assert "task a" in (await box.task("d")).reason
        await box.settle()
        await box.reopen()
    assert [lease.id for lease in await box.claim(n=9)] == ["free"]


async def test_what_depends_on_a_task_that_had_no_success_is_skipped_at_once(box):
    await box.put("a")
    await box.do(Cancel(id="a"))
    assert (await box.put("b", depends_on=["a"])).state == "skipped"
    await box.settle()
    assert (await box.put("c", depends_on=["b"])).state == "skipped"


async def test_a_blocked_task_that_was_cancelled_stays_so(box):
    await box.put("a")
    await box.put("b", depends_on=["a"])
    await box.do(Cancel(id="b"))
    lease = await box.take()
    await box.do(Complete(id="a", token=lease.token))
    assert await box.state("b") == "cancelled"


async def test_a_long_chain_ends_in_one_group(box):
    await box.put("0")
    await box.do_all(*(Enqueue(type="echo", id=str(n), depends_on=[str(n - 1)]) for n in range(1, 2000)))
    await box.do(Cancel(id="0"))
    assert await box.state("1999") == "skipped"
