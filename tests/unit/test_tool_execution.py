# SPDX-License-Identifier: AGPL-3.0-or-later
"""While a tool runs: its task or thread, what it reports, and how a call is cancelled."""

from __future__ import annotations

import threading

import pytest
import trio
from tool_calls import Caller, loaded

from actors.settings import ToolsSettings
from actors.tool_messages import LogItem, Progress
from actors.toolkit import CallCancelledError, ToolContext, tool
from actors.tools import execution
from actors.tools.execution import abandoned_threads
from actors.tools.files import Files


def caller(tmp_path, *functions, **settings):
    return Caller(loaded(*functions), tmp_path, **settings)


# --- the two kinds of tools ------------------------------------------------------------------------------------------


@tool()
async def where_async() -> int:
    """Tell the thread."""
    return threading.get_ident()


@tool()
def where_plain() -> int:
    """Tell the thread."""
    return threading.get_ident()


async def test_async_tools_run_on_the_loop_and_plain_ones_in_a_thread(tmp_path):
    call = caller(tmp_path, where_async, where_plain)
    assert await call("where_async") == threading.get_ident()
    assert await call("where_plain") != threading.get_ident()


class Gate:
    """Where a plain tool of a test waits until the test opens it."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.reached = trio.Event()
        self.token = trio.lowlevel.current_trio_token()
        self.inside = 0
        self.most = 0
        self.lock = threading.Lock()
        self.ends = trio.Event()

    def wait(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.token.run_sync_soon(self.reached.set)
        assert self.opened.wait(10)
        with self.lock:
            self.inside -= 1

    def ended(self) -> None:
        self.token.run_sync_soon(self.ends.set)


GATE: list[Gate] = []


@pytest.fixture
async def gate():
    GATE[:] = [Gate()]
    yield GATE[0]
    GATE[0].opened.set()


@tool()
def wait_at_gate(ctx: ToolContext) -> str:
    """Wait in a thread."""
    GATE[0].wait()
    try:
        ctx.check_cancelled()
    except CallCancelledError:
        GATE[0].ended()
        raise
    return "through"


async def test_the_loop_goes_on_while_a_plain_tool_blocks(tmp_path, gate):
    call = caller(tmp_path, wait_at_gate, where_async)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "wait_at_gate")
        await gate.reached.wait()
        await call("where_async")
        gate.opened.set()


async def test_no_more_plain_tools_run_at_once_than_there_are_threads(tmp_path, gate):
    call = caller(tmp_path, wait_at_gate, threads=2)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call, "wait_at_gate")
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert gate.most <= 2


# --- what a tool reports ---------------------------------------------------------------------------------------------


@tool()
async def report_async(ctx: ToolContext) -> str:
    """Report from the loop."""
    ctx.progress(1, 2, "half")
    ctx.log("info", {"at": 1})
    ctx.log("debug", "detail")
    ctx.progress(2, 2)
    return "done"


@tool()
def report_plain(ctx: ToolContext) -> str:
    """Report from a thread."""
    for step in range(1, 1001):
        ctx.progress(step, 1000)
    ctx.log("info", {"at": 1})
    ctx.log("debug", "detail")
    return "done"


async def test_an_async_tools_reports_come_in_order(tmp_path):
    call = caller(tmp_path, report_async)
    await call("report_async")
    assert call.items == [
        Progress(progress=1, total=2, message="half"),
        LogItem(level="info", data=b'{"at":1}', logger="report_async"),
        LogItem(level="debug", data=b'"detail"', logger="report_async"),
        Progress(progress=2, total=2),
    ]


async def test_a_plain_tools_last_report_and_all_its_logs_arrive_before_the_result(tmp_path):
    call = caller(tmp_path, report_plain)
    await call("report_plain")
    steps = [item.progress for item in call.items if isinstance(item, Progress)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 1000
    assert [item.level for item in call.items if isinstance(item, LogItem)] == ["info", "debug"]


@pytest.mark.parametrize("name", ["report_async", "report_plain"])
async def test_a_caller_gets_only_the_reports_it_asked_for(tmp_path, name):
    call = caller(tmp_path, report_async, report_plain)
    await call.result(name, b"{}", log_level="", progress=False)
    assert call.items == []
    await call.result(name, b"{}", log_level="info", progress=False)
    assert [item.level for item in call.items] == ["info"]


@tool()
async def keep_context(ctx: ToolContext) -> str:
    """Keep the context beyond the call."""
    KEPT.append(ctx)
    return ctx.call_id


KEPT: list[ToolContext] = []


async def test_what_is_reported_after_the_end_is_dropped(tmp_path):
    KEPT.clear()
    call = caller(tmp_path, keep_context)
    assert await call("keep_context") == "call-1"
    KEPT[0].progress(1)
    KEPT[0].log("alert", "late")
    await trio.to_thread.run_sync(KEPT[0].log, "alert", "later")
    await trio.testing.wait_all_tasks_blocked()
    assert call.items == []


@tool()
async def time_left(ctx: ToolContext) -> float:
    """Tell how long the call may take."""
    return ctx.remaining_s


async def test_a_tool_can_tell_how_much_time_it_has(tmp_path):
    call = caller(tmp_path, time_left)
    with trio.fail_after(5):
        assert 4 < await call("time_left") <= 5


# --- cancelling ------------------------------------------------------------------------------------------------------


@tool()
async def wait_forever(ctx: ToolContext) -> str:
    """Wait on the loop."""
    KEPT.append(ctx)
    await trio.sleep_forever()
    return "never"


async def test_a_cancelled_async_tool_ends_at_once(tmp_path):
    call = caller(tmp_path, wait_forever)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "wait_forever")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_time_out_cancels_an_async_tool(tmp_path, autojump_clock):
    call = caller(tmp_path, wait_forever)
    with trio.move_on_after(7) as scope:
        await call("wait_forever")
    assert scope.cancelled_caught
    assert trio.current_time() == 7


async def cancel_at(gate, call, name):
    """Start a call and cancel it once its thread waits at the gate."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, name)
        await gate.reached.wait()
        nursery.cancel_scope.cancel()


async def test_nobody_waits_for_the_thread_of_a_cancelled_call(tmp_path, gate):
    call = caller(tmp_path, wait_at_gate)
    before = abandoned_threads()
    await cancel_at(gate, call, "wait_at_gate")
    assert abandoned_threads() == before + 1
    assert call.environment.limiter.borrowed_tokens == 1


async def test_an_abandoned_thread_ends_at_its_next_check_and_gives_its_place_back(tmp_path, gate):
    call = caller(tmp_path, wait_at_gate, threads=1)
    before = abandoned_threads()
    await cancel_at(gate, call, "wait_at_gate")
    gate.opened.set()
    with trio.fail_after(5):
        await gate.ends.wait()
        assert await call("wait_at_gate") == "through"
    assert abandoned_threads() == before


@tool()
def wait_interruptibly(ctx: ToolContext) -> str:
    """Wait in a thread until interrupted."""
    wake = threading.Event()
    ctx.on_cancel(wake.set)
    ctx.on_cancel(lambda: 1 / 0)
    GATE[0].token.run_sync_soon(GATE[0].reached.set)
    assert wake.wait(10)
    ctx.check_cancelled()
    return "never"


async def test_an_interrupted_wait_leaves_no_thread_behind(tmp_path, gate):
    call = caller(tmp_path, wait_interruptibly)
    before = abandoned_threads()
    await cancel_at(gate, call, "wait_interruptibly")
    assert abandoned_threads() == before


RAN: list[str] = []


@tool()
def never_run() -> str:
    """Must not run."""
    RAN.append("ran")
    return "ran"


async def test_a_call_cancelled_before_its_thread_began_never_runs(tmp_path, gate):
    RAN.clear()
    call = caller(tmp_path, wait_at_gate, never_run, threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "wait_at_gate")
        await gate.reached.wait()
        with trio.move_on_after(0):
            await call("never_run")
        gate.opened.set()
    assert RAN == []


async def test_a_call_cancelled_while_its_thread_begins_never_runs(tmp_path):
    RAN.clear()
    context = ToolContext(
        call_id="call-1", principal="", settings=ToolsSettings(), data_dir=tmp_path, files=Files([], tmp_path),
        report=None, wants_progress=False, log_level="", logger="",
    )  # fmt: skip
    context.cancel()
    assert execution._ThreadRun(lambda *_: never_run(), None, context)() is None
    assert RAN == []
