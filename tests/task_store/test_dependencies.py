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


# --- many ----------------------------------------------------------------------------------------------------------


async def complete_all(box, ids):
    """Have these tasks done, which are all that is ready."""
    for start in range(0, len(ids), 100):
        leases = await box.claim(n=100)
        assert [lease.id for lease in leases] == ids[start : start + 100]
        await box.do_all(*(Complete(id=lease.id, token=lease.token) for lease in leases))


async def test_a_task_may_wait_for_a_thousand(box):
    parents = [f"p{n}" for n in range(1000)]
    await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in parents))
    await complete_all(box, parents[:300])
    await box.settle()
    assert (await box.put("child", depends_on=parents)).state == "blocked"
    assert (await box.task("child")).blocked_by == 700
    await box.reopen()
    await complete_all(box, parents[300:])
    assert (await box.take()).id == "child"
    await box.settle()
    assert (await box.put("later", depends_on=parents)).state == "ready"


async def test_a_thousand_may_wait_for_one(box):
    await box.put("parent")
    children = [f"c{n}" for n in range(1000)]
    await box.do_all(*(Enqueue(type="echo", id=id_, depends_on=["parent"]) for id_ in children))
    await box.reopen()
    lease = await box.take()
    await box.do(Complete(id="parent", token=lease.token))
    await complete_all(box, children)


async def test_what_a_thousand_wait_for_may_fail(box):
    await box.put("a")
    await box.do_all(*(Enqueue(type="echo", id=f"c{n}", depends_on=["a"]) for n in range(1000)))
    await box.put("last", depends_on=[f"c{n}" for n in range(1000)])
    await failed(box)
    assert [await box.state(id_) for id_ in ("c0", "c999", "last")] == ["skipped"] * 3
    await box.settle()
    assert (await box.put("later", depends_on=[f"c{n}" for n in range(1000)])).state == "skipped"


async def test_a_graph_of_a_thousand_steps_is_one_group(box):
    """Ten layers, each task after all of the layer before."""
    layers = [[f"{layer}.{n}" for n in range(100)] for layer in range(10)]
    ops = []
    for layer, ids in enumerate(layers):
        ops += [Enqueue(type="echo", id=id_, depends_on=layers[layer - 1] if layer else []) for id_ in ids]
    assert {code(outcome) for outcome in await box.do_all(*ops)} == {""}
    for ids in layers:
        await complete_all(box, ids)
    assert await box.claim() == []


async def test_of_a_list_of_dependencies_all_count_up_to_the_limit(make_box):
    box = await make_box()
    most = box.limits.max_depends_on
    assert most == 10_000
    parents = [f"p{n}" for n in range(most)]
    await box.do_all(*(Enqueue(type="echo", id=id_) for id_ in parents))
    too_many = await box.put("no", depends_on=[*parents, "p0"])
    assert code(too_many) == "LIMIT_EXCEEDED"
    assert "10001 entries; at most 10000" in too_many.error.message
    assert (await box.put("child", depends_on=parents)).state == "blocked"
    await box.reopen()
    assert (await box.task("child")).blocked_by == most
    assert (await box.task("child")).depends_on == parents
    [listed] = (await box.store.scan(ScanTasks(id_prefix="child"))).tasks
    assert listed.depends_on == []


async def test_an_unknown_dependency_is_named(box):
    await box.put("a")
    refused = await box.put("b", depends_on=["a", "nobody"])
    assert code(refused) == "INVALID_PARAMS"
    assert "depends_on names task nobody, which does not exist" in refused.error.message
    assert refused.error.details == {"parent": "nobody"}


async def test_one_that_is_depended_on_and_repeated_in_one_group_is_known_whole(box):
    """Of the first it is enough to know that it has ended; what is repeated is held against all of it."""
    await box.put("a", payload='{"n":1}', key="k")
    lease = await box.take()
    await box.do(Complete(id="a", token=lease.token, result="1"))
    await box.settle()
    outcomes = await box.do_all(
        Enqueue(type="echo", id="b", depends_on=["a"]),
        Enqueue(type="echo", id="a", payload='{"n":1}', key="k"),
        Enqueue(type="echo", key="k", payload='{"n":1}'),
        Enqueue(type="echo", id="a", payload="{}", key="k"),
    )
    assert [code(outcome) for outcome in outcomes] == ["", "", "", "ID_CONFLICT"]
    assert [outcome.replayed for outcome in outcomes[:3]] == [False, True, True]
