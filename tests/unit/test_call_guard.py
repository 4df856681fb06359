# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a process that runs tools lets in, what it keeps on record, and what it tells the root."""

from __future__ import annotations

import threading

import msgspec
import pytest
import trio
from tool_calls import loaded
from trio.testing import wait_all_tasks_blocked

from actors.errors import BreakerOpenError, InvalidArgumentsError, QuarantinedError, ToolExecutionError
from actors.flight import FlightRecorder, read_flight
from actors.keys import DIGEST_KEY, load_or_create_key
from actors.messages import Breaker, Marks, QuarantinedCall
from actors.settings import ToolsSettings
from actors.tool_messages import Answers, ToolCall
from actors.toolkit import ToolContext, tool
from actors.tools.execution import Environment
from actors.tools.guard import CallGuard

KEY = b"k" * 32


class Point(msgspec.Struct):
    """A point."""

    x: int
    y: int = 0


@tool()
async def add(a: int, b: int = 1, names: dict[str, int] | None = None, at: Point | None = None) -> int:
    """Add."""
    if a < 0:
        raise ValueError("no luck")
    return a + b


@tool()
async def other(a: int, b: int = 1) -> int:
    """Do."""
    return a + b


@tool()
async def hold(a: int) -> int:
    """Wait until cancelled."""
    await trio.sleep_forever()
    return a


GATE = threading.Event()


@tool()
def stuck(ctx: ToolContext) -> str:
    """Wait in a thread that hears nothing."""
    GATE.wait(10)
    return "done"


class Yes(msgspec.Struct):
    """An answer."""

    yes: bool


@tool()
async def ask_first(ctx: ToolContext, a: int) -> str:
    """Ask."""
    return (await ctx.elicit("Sure?", Yes)).action


@tool()
def ask_in_a_thread(ctx: ToolContext, a: int) -> str:
    """Ask."""
    return ctx.elicit("Sure?", Yes).wait().action


@tool()
async def ask_beside_work(ctx: ToolContext, a: int) -> str:
    """Ask while another task works."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        answer = await ctx.elicit("Sure?", Yes)
        nursery.cancel_scope.cancel()
    return answer.action


TOOLS = loaded(add, other, hold, stuck, ask_first, ask_in_a_thread, ask_beside_work)


class Process:
    """A process that runs tools, without the process."""

    def __init__(self, folder, key=KEY):
        self.path = folder / "1.flight"
        self.told = []
        self.guard = CallGuard(FlightRecorder.create(self.path, 8), key, self.told.append)
        self.environment = Environment(ToolsSettings(), folder, self.guard)

    async def run(self, name, arguments=b'{"a": 1}'):
        call = ToolCall(name=name, arguments=arguments, call_id="call-1")
        return (await TOOLS[name].run(call, self.environment)).value

    def on_record(self):
        return [one.tool for one in read_flight(self.path).calls]

    async def digest(self, name, arguments):
        """What the record says of a call while it runs."""
        found = []
        begin = self.guard.recorder.begin
        self.guard.recorder.begin = lambda tool, digest, call_id: found.append(digest) or begin(tool, digest, call_id)
        await self.run(name, arguments)
        self.guard.recorder.begin = begin
        return found[0].hex()

    async def quarantine(self, name, arguments):
        digest = await self.digest(name, arguments)
        one = QuarantinedCall(id=digest[:12], digest=digest, tool=name, deaths=2, last_at="then", cause="signal 9")
        self.guard.take(Marks(quarantined=[one]))
        return one


@pytest.fixture
async def process(tmp_path):
    return Process(tmp_path)


async def cancelled(process, name, arguments=b'{"a": 1}'):
    """Run a call, look at the record while it runs, then leave it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run, name, arguments)
        await wait_all_tasks_blocked(0.01)
        seen = process.on_record()
        nursery.cancel_scope.cancel()
    return seen


@pytest.mark.parametrize(
    "same",
    [
        b'{ "a" : 1 }',
        b'{"b":1,"a":1}',
        b'{"a":1,"names":null}',
        b'{"at":null,"b":1,"a":1}',
    ],
)
async def test_space_order_and_defaults_make_no_difference(process, same):
    assert await process.digest("add", same) == await process.digest("add", b'{"a":1}')


async def test_the_order_of_keys_within_makes_no_difference(process):
    one = await process.digest("add", b'{"a":1,"names":{"x":1,"y":2},"at":{"x":1}}')
    assert one == await process.digest("add", b'{"at":{"y":0,"x":1},"names":{"y":2,"x":1},"a":1}')


async def test_values_tools_and_keys_make_a_difference(process, tmp_path):
    (tmp_path / "else").mkdir()
    another = Process(tmp_path / "else", b"x" * 32)
    digests = [
        await process.digest("add", b'{"a":1}'),
        await process.digest("add", b'{"a":2}'),
        await process.digest("other", b'{"a":1}'),
        await another.digest("add", b'{"a":1}'),
    ]
    assert len(set(digests)) == 4


async def test_numbers_too_large_for_the_plain_form_are_told_apart_by_their_text(process):
    large = b'{"a":%d}' % 10**30
    assert await process.digest("add", large) == await process.digest("add", large)
    assert await process.digest("add", large) != await process.digest("add", b'{"a":%d}' % (10**30 + 1))


async def test_a_call_is_on_record_while_it_runs_only(process):
    assert await cancelled(process, "hold") == ["hold"]
    assert process.on_record() == []
    with pytest.raises(ToolExecutionError):
        await process.run("add", b'{"a":-1}')
    assert process.on_record() == []


async def test_arguments_that_do_not_fit_leave_no_trace(process):
    begun = []
    process.guard.recorder.begin = lambda *seen: begun.append(seen)
    with pytest.raises(InvalidArgumentsError):
        await process.run("add", b'{"a":"x"}')
    assert begun == []


async def test_a_thread_that_is_left_behind_stays_on_record_until_it_ends(process):
    GATE.clear()
    assert await cancelled(process, "stuck", b"{}") == ["stuck"]
    assert process.on_record() == ["stuck"]
    GATE.set()
    with trio.fail_after(5):
        while process.on_record():
            await trio.sleep(0.001)


async def test_a_quarantined_call_is_refused_and_others_of_the_tool_run(process):
    one = await process.quarantine("add", b'{"a":1}')
    with pytest.raises(QuarantinedError, match=f"2 processes.*then.*greenroom quarantine release {one.id}") as refused:
        await process.run("add", b'{"b":1,"a":1}')
    assert not refused.value.retryable
    assert refused.value.details["id"] == one.id
    assert process.on_record() == []
    assert await process.run("add", b'{"a":2}') == b"3"
    process.guard.take(Marks())
    assert await process.run("add", b'{"a":1}') == b"2"


async def test_an_open_breaker_refuses_the_tool_and_says_when_to_come_back(process):
    process.guard.take(Marks(breakers=[Breaker(tool="add", deaths=3, retry_after_s=20.0)]))
    with pytest.raises(BreakerOpenError, match="3 processes") as refused:
        await process.run("add")
    assert refused.value.retryable
    assert 19 < refused.value.details["retry_after_s"] <= 20
    assert await process.run("other") == b"2"


async def test_half_open_lets_one_call_in_at_a_time(process):
    process.guard.take(Marks(breakers=[Breaker(tool="hold", deaths=3, half_open=True)], watched_tools=["hold"]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run, "hold")
        await wait_all_tasks_blocked()
        with pytest.raises(BreakerOpenError, match="one call at a time"):
            await process.run("hold", b'{"a":2}')
        nursery.cancel_scope.cancel()
    assert process.told == []
    assert await cancelled(process, "hold", b'{"a":2}') == ["hold"]


async def test_quarantine_goes_before_a_trial(process):
    one = await process.quarantine("add", b'{"a":1}')
    process.guard.take(Marks(quarantined=[one], breakers=[Breaker(tool="add", deaths=3, half_open=True)]))
    with pytest.raises(QuarantinedError):
        await process.run("add", b'{"a":1}')
    assert await process.run("add", b'{"a":2}') == b"3"


@pytest.mark.parametrize("arguments", [b'{"a":1}', b'{"a":-1}'])
async def test_an_answer_to_a_watched_call_is_told_once_for_each_list(process, arguments):
    async def run():
        try:
            await process.run("add", arguments)
        except ToolExecutionError:
            return

    await run()
    assert process.told == []
    digests = []
    begin = process.guard.recorder.begin
    process.guard.recorder.begin = lambda tool, digest, id_: digests.append(digest.hex()) or begin(tool, digest, id_)
    await run()
    for _ in range(2):
        process.guard.take(Marks(watched=digests[:1]))
        await process.run("add", b'{"a":77}')
        await run()
        await run()
    assert [(one.tool, one.digest) for one in process.told] == [("add", digests[0])] * 2


async def test_any_answer_of_a_watched_tool_is_told(process):
    process.guard.take(Marks(watched_tools=["add"]))
    await process.run("other")
    await process.run("add", b'{"a":5}')
    assert [one.tool for one in process.told] == ["add"]


async def test_a_call_whose_caller_left_proves_nothing(process):
    process.guard.take(Marks(watched_tools=["hold"]))
    await cancelled(process, "hold")
    assert process.told == []


def test_the_key_is_private_and_the_same_for_all(tmp_path):
    key = load_or_create_key(tmp_path, DIGEST_KEY)
    assert len(key) == 32
    assert load_or_create_key(tmp_path, DIGEST_KEY) == key
    assert (tmp_path / DIGEST_KEY).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [DIGEST_KEY]


async def test_a_question_is_no_answer_but_what_follows_it_is(process):
    asked, decline = trio.Event(), Answers(answers={"q1": b'{"action": "decline"}'})
    call = ToolCall(name="ask_first", arguments=b'{"a": 1}', call_id="call-1", can=("elicitation",))

    async def never(_method, _questions):
        asked.set()
        await trio.sleep_forever()

    async def at_once(_method, _questions):
        return msgspec.Raw(msgspec.msgpack.encode(decline))

    process.guard.take(
        Marks(breakers=[Breaker(tool="ask_first", deaths=3, half_open=True)], watched_tools=["ask_first"])
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(TOOLS["ask_first"].run, call, process.environment, None, never)
        await asked.wait()
        assert process.on_record() == ["ask_first"]
        nursery.cancel_scope.cancel()
    assert (process.on_record(), process.told) == ([], [])
    # The trial of the half-open breaker goes on with the round that brings the answer.
    await TOOLS["ask_first"].run(call, process.environment, None, at_once)
    assert [one.tool for one in process.told] == ["ask_first"]


@pytest.mark.parametrize(
    ("name", "waits"), [("ask_first", True), ("ask_in_a_thread", True), ("ask_beside_work", False)]
)
async def test_the_record_says_that_nothing_of_a_call_runs_while_it_asks(process, name, waits):
    asked, answered = trio.Event(), trio.Event()
    call = ToolCall(name=name, arguments=b'{"a": 1}', call_id="call-1", can=("elicitation",))
    after = []

    async def later(_method, _questions):
        asked.set()
        await answered.wait()
        return msgspec.Raw(msgspec.msgpack.encode(Answers(answers={"q1": b'{"action": "decline"}'})))

    def waiting():
        return [one.waiting for one in read_flight(process.path).calls]

    end = process.guard.end
    process.guard.end = lambda *seen, **how: (after.extend(waiting()), end(*seen, **how))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(TOOLS[name].run, call, process.environment, None, later)
        await asked.wait()
        assert waiting() == [waits]
        answered.set()
    assert (after, waiting()) == ([False], [])
