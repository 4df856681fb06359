# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stopping a tree: the order, the grace times, and what happens to those that do not end.

Lives are tasks in this process and follow plans (`supervisor/spawn_fake.py`); core, runtime, control server and
channels are the real ones. Seconds are those of the mock clock: they cost nothing.
"""

from __future__ import annotations

import trio
from driving import child, root
from fake_tree import SHORT, SLOW_RESTARTS, tree
from trio.testing import wait_all_tasks_blocked

from supervisor.spawn_fake import NEVER, Plan


async def test_children_stop_in_reverse_order_each_after_the_one_before(autojump_clock, tmp_path):
    plans = {name: [Plan(stop_s=1.0)] for name in "abc"}
    async with tree(tmp_path, child("a"), child("b"), child("c"), plans=plans) as t:
        t.runtime.stop("told to")
        end = await t.stopped()
    assert t.log[3:] == [(what, name) for name in "cba" for what in ("stop", "end")]
    assert (end.exit_code, end.reason) == (0, "told to")
    assert 3.0 <= trio.current_time() < 3.5


async def test_a_child_is_told_how_long_it_may_take_to_stop(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", shutdown=7.5), child("b", shutdown=None)) as t:
        t.runtime.stop("told to")
        await t.stopped()
    assert t.process("a").stop_order.grace_s == 7.5
    assert t.process("b").stop_order.grace_s >= 3600


async def test_a_child_that_ignores_the_order_is_killed_after_its_grace_time_and_only_then(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b", shutdown=5.0), plans={"b": [Plan(stop_s=NEVER)]}) as t:
        t.runtime.stop("told to")
        end = await t.stopped()
    assert end.exit_code == 0
    assert t.log[2:] == [("stop", "b"), ("kill", "b"), ("end", "b"), ("stop", "a"), ("end", "a")]
    assert 5.0 <= trio.current_time() < 5.5
    assert t.reason("b") == "stopped, signal 9: did not end within its 5 s of grace"


async def test_a_child_that_closes_its_connection_while_it_stops_may_finish(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), plans={"a": [Plan(stop_s=2.0)]}) as t:
        t.runtime.stop("told to")
        await t.until("a", "draining")
        await wait_all_tasks_blocked()
        t.process("a").disconnect()
        await t.stopped()
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]


async def test_a_child_that_may_take_as_long_as_it_needs_is_waited_for(autojump_clock, tmp_path):
    plans = {"a": [Plan(stop_s=200.0)]}
    async with tree(tmp_path, child("a", shutdown=None), plans=plans) as t:
        t.runtime.stop("told to")
        await t.stopped(within_s=201.0)
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]
    assert trio.current_time() >= 200


async def test_a_child_of_the_kind_that_is_killed_gets_no_order(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", shutdown="kill")) as t:
        t.runtime.stop("told to")
        await t.stopped()
    assert t.log == [("spawn", "a"), ("kill", "a"), ("end", "a")]


async def test_a_second_stop_kills_what_is_left_at_once(autojump_clock, tmp_path):
    plans = {name: [Plan(stop_s=NEVER)] for name in "ab"}
    async with tree(tmp_path, child("a"), child("b"), plans=plans) as t:
        t.runtime.stop("first")
        await t.until("b", "draining")
        t.runtime.stop("second")
        end = await t.stopped()
    assert sorted(t.log[-4:]) == [("end", "a"), ("end", "b"), ("kill", "a"), ("kill", "b")]
    assert trio.current_time() < 1.0
    assert end.reason == "first"


async def test_a_child_that_hangs_does_not_delay_the_stop_for_longer_than_its_grace_time(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", **SHORT)) as t:
        t.process("a").hang()
        before = trio.current_time()
        t.runtime.stop("told to")
        await t.stopped()
        assert trio.current_time() - before <= 5.5


async def test_a_stop_during_the_boot_reaches_a_child_that_has_not_connected_yet(autojump_clock, tmp_path):
    plans = {"a": [Plan(spawn_s=2.0)]}
    async with tree(tmp_path, child("a", shutdown=None), plans=plans, up=False) as t:
        await trio.sleep(1.0)
        t.runtime.stop("told to")
        assert (await t.stopped()).exit_code == 0
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]


async def test_a_stop_during_the_boot_of_a_process_that_never_connects_is_asked_through_the_spawner(
    autojump_clock, tmp_path
):
    plans = {"a": [Plan(connect_s=NEVER)]}
    async with tree(tmp_path, child("a"), plans=plans, up=False) as t:
        await wait_all_tasks_blocked()
        t.runtime.stop("told to")
        await t.stopped()
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]


async def test_a_process_that_is_killed_before_it_exists_is_killed_as_soon_as_it_does(autojump_clock, tmp_path):
    plans = {"a": [Plan(spawn_s=2.0, boot_s=NEVER, stop_s=NEVER)]}
    async with tree(tmp_path, child("a", shutdown="kill"), plans=plans, up=False) as t:
        await trio.sleep(1.0)
        t.runtime.stop("told to")
        assert (await t.stopped()).exit_code == 0
    assert t.log == [("spawn", "a"), ("kill", "a"), ("end", "a")]
    assert trio.current_time() < 2.5


async def test_a_stop_wins_over_a_delayed_restart(autojump_clock, tmp_path):
    async with tree(tmp_path, root(backoff=SLOW_RESTARTS), child("a"), child("b")) as t:
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
        t.process("a").crash()
        await t.until("a", "restarting")
        before = trio.current_time()
        t.runtime.stop("told to")
        await t.stopped()
        assert trio.current_time() - before < 1.0
        assert t.spawner.lives("a") == 2
