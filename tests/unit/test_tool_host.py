# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a pool process answers, and when it asks to be replaced."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
import trio
from tool_calls import loaded
from trio.testing import wait_all_tasks_blocked

from actors.channel import Channel
from actors.errors import BreakerOpenError, BusyError, ToolExecutionError, UnknownToolError
from actors.flight import flight_path
from actors.messages import PROTOCOL_VERSION, Breaker, Hello, Marks
from actors.settings import Settings
from actors.tool_messages import Answers, Progress, ToolCall, ToolDescriptor, ToolResult
from actors.toolkit import ToolContext, tool
from actors.tools import host
from actors.tools.host import StuckThreadError, ToolHost


@tool()
async def count(ctx: ToolContext, to: int) -> int:
    """Count."""
    for number in range(1, to + 1):
        ctx.progress(number, to)
    return to


@tool()
async def fail() -> str:
    """Fail."""
    raise ValueError("no luck")


class FakeActor:
    """What the host needs of an actor."""

    def __init__(self, data_dir) -> None:
        self.name = "tools.general#0"
        self.settings = Settings()
        self.boot = SimpleNamespace(data_dir=str(data_dir), runtime_dir=str(data_dir), incarnation=7)
        self.marks = Marks()
        self.on_marks = None
        self.told = []
        self.survived = self.told.append
        self.open_calls = 1
        self.draining = trio.Event()
        self.logged = []
        self.finished = 0
        note = lambda event, **fields: self.logged.append((event, fields))  # noqa: E731
        self.log = SimpleNamespace(error=note, warning=note)

    async def finish_calls(self) -> None:
        assert self.draining.is_set()
        self.finished += 1


class FakeCall:
    """A call as the channel hands it over."""

    def __init__(self, name, arguments=b"{}", **wants) -> None:
        self.body = msgspec.msgpack.encode(ToolCall(name=name, arguments=arguments, call_id="call-1", **wants))
        self.items = []
        self.item = self.items.append


@pytest.fixture
async def actor(tmp_path):
    return FakeActor(tmp_path)


@pytest.fixture
async def tools(actor):
    broken = ToolDescriptor(
        name="bad", title="", description="", category="", runtime="general", pool="general", input_schema=b"{}",
        broken="bad.py: syntax error",
    )  # fmt: skip
    return ToolHost(actor, loaded(count, fail), [broken], 2)


async def test_the_catalogue_names_usable_and_broken_tools(tools):
    catalogue = await tools.catalogue(FakeCall("any"))
    assert [(tool.name, tool.broken) for tool in catalogue.tools] == [
        ("count", ""), ("fail", ""), ("bad", "bad.py: syntax error"),
    ]  # fmt: skip


@pytest.mark.parametrize(("wanted", "items"), [(True, 2), (False, 0)])
async def test_a_call_is_answered_with_the_progress_it_asked_for(tools, wanted, items):
    call = FakeCall("count", b'{"to": 2}', progress=wanted)
    assert (await tools.call(call)).value == b"2"
    assert call.items == [Progress(progress=number, total=2) for number in range(1, items + 1)]


async def test_the_host_goes_by_what_the_root_says_before_and_after(actor):
    refused = Breaker(tool="count", deaths=3, retry_after_s=9.0)
    actor.marks = Marks(breakers=[refused])
    tools = ToolHost(actor, loaded(count), [], 2)
    with pytest.raises(BreakerOpenError):
        await tools.call(FakeCall("count", b'{"to": 1}'))
    actor.on_marks(Marks(watched_tools=["count"]))
    await tools.call(FakeCall("count", b'{"to": 1}'))
    assert [one.tool for one in actor.told] == ["count"]
    assert flight_path(actor.boot.runtime_dir, actor.boot.incarnation).exists()


async def test_a_process_that_can_keep_no_record_says_so_and_works(actor):
    actor.boot.runtime_dir = f"{actor.boot.runtime_dir}/missing"
    tools = ToolHost(actor, loaded(count), [], 2)
    assert [event for event, _ in actor.logged] == ["no record of running calls"]
    assert (await tools.call(FakeCall("count", b'{"to": 1}'))).value == b"1"


@pytest.mark.parametrize("name", ["none", "bad"])
async def test_a_tool_that_is_not_here_is_unknown(tools, name):
    with pytest.raises(UnknownToolError):
        await tools.call(FakeCall(name))


async def test_calls_beyond_the_limit_are_refused_before_anything_starts(tools, actor):
    actor.open_calls = 2
    await tools.call(FakeCall("count", b'{"to": 1}'))
    actor.open_calls = 3
    with pytest.raises(BusyError, match="runs 2 calls"):
        await tools.call(FakeCall("count", b'{"to": 1}'))


async def test_a_failure_is_logged_with_its_place(tools, actor):
    with pytest.raises(ToolExecutionError):
        await tools.call(FakeCall("fail"))
    ((event, fields),) = actor.logged
    assert (event, fields["tool"], fields["call_id"]) == ("tool failed", "fail", "call-1")
    assert fields["exc_info"].__traceback__ is not None
    assert str(fields["exc_info"]) == "no luck"


async def test_a_process_whose_threads_do_not_end_finishes_its_calls_and_ends(
    tools, actor, monkeypatch, autojump_clock
):
    monkeypatch.setattr(host, "abandoned_threads", lambda: 1)
    with pytest.raises(StuckThreadError):
        await tools.replace_when_stuck()
    assert 30 < trio.current_time() < 33
    assert actor.finished == 1


async def test_threads_that_end_within_their_grace_cost_nothing(tools, actor, monkeypatch, autojump_clock):
    # Each time one is there for 20 seconds, then none for 10.
    monkeypatch.setattr(host, "abandoned_threads", lambda: int(trio.current_time() % 30 < 20))
    with trio.move_on_after(300) as scope:
        await tools.replace_when_stuck()
    assert scope.cancelled_caught
    assert not actor.draining.is_set()


# --- time ------------------------------------------------------------------------------------------------------------


class Name(msgspec.Struct):
    name: str


@tool()
async def time_left(ctx: ToolContext) -> float:
    """Tell the time that is left."""
    return ctx.remaining_s


@tool()
def time_left_in_a_thread(ctx: ToolContext) -> float:
    """Tell the time that is left."""
    return ctx.remaining_s


@tool()
async def time_left_around_a_question(ctx: ToolContext) -> list[float | None]:
    """Tell the time that is left before, while and after the client is asked."""
    found = [ctx.remaining_s]

    async def ask() -> None:
        await ctx.elicit("?", Name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        found.append(ctx.remaining_s)
    return [left if left < float("inf") else None for left in (*found, ctx.remaining_s)]


async def over_a_channel(actor, name: str, timeout_s: float, on_ask=None):
    """The result of a call that comes over a real channel."""
    host_ = ToolHost(actor, loaded(time_left, time_left_in_a_thread, time_left_around_a_question), [], 2)
    near, far = trio.socket.socketpair()
    caller = Channel(near, me=Hello(PROTOCOL_VERSION, "gateway#0", 1))
    pool = Channel(far, me=Hello(PROTOCOL_VERSION, actor.name, 1), handler=host_.call)
    call = ToolCall(name=name, arguments=b"{}", call_id="call-1", can=("elicitation",) if on_ask else ())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        await nursery.start(caller.run)
        reply = await caller.call(ToolCall.METHOD, call, timeout_s=timeout_s, on_ask=on_ask)
        nursery.cancel_scope.cancel()
    return msgspec.json.decode(msgspec.msgpack.decode(reply, type=ToolResult).value)


@pytest.mark.parametrize("name", ["time_left", "time_left_in_a_thread"])
async def test_a_tool_knows_the_time_that_its_caller_gave_it(actor, name):
    assert 15 < await over_a_channel(actor, name, 20) <= 20


async def test_a_tools_time_stands_still_while_it_asks(actor, autojump_clock):
    async def think(_method, _questions):
        await trio.sleep(100)
        accepted = msgspec.json.encode({"action": "accept", "content": {"name": "Ada"}})
        return Answers(answers={"q1": accepted})

    before, meanwhile, after = await over_a_channel(actor, "time_left_around_a_question", 20, think)
    assert meanwhile is None
    # The context reads a clock that does not jump: for it the deadline has moved by the time that the question took.
    assert 115 < after <= before + 100 <= 120
