# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool's side of questions: what is asked together, under which keys, and what a cancelled call leaves behind."""

from __future__ import annotations

import msgspec
import pytest
import trio
from asking_tools import TOOLS, Name
from tool_calls import loaded
from trio.testing import wait_all_tasks_blocked

from actors import asking
from actors.asking import MAX_KEY_CHARS
from actors.errors import CannotAskError, ToolExecutionError
from actors.settings import ToolsSettings
from actors.tool_messages import CLOSE_STREAM, Answers, ToolCall
from actors.toolkit import ToolContext, tool
from actors.tools.execution import Environment, abandoned_threads
from actors.tools.loader import load_functions

ALL = ("elicitation", "sampling", "roots", "stream")


class Caller:
    """Answers a tool's questions by their message, and keeps what it was asked."""

    def __init__(self):
        self.rounds = []
        self.told = []
        self.hold = False

    async def __call__(self, method, value):
        if value is None:
            self.told.append(method)
            return msgspec.Raw(msgspec.msgpack.encode(None))
        self.rounds.append({q.key: msgspec.json.decode(q.params)["message"] for q in value.questions})
        if self.hold:
            await trio.sleep_forever()
        answers = {
            q.key: msgspec.json.encode(
                {"action": "accept", "content": {"name": msgspec.json.decode(q.params)["message"]}}
            )
            for q in value.questions
        }
        return msgspec.Raw(msgspec.msgpack.encode(Answers(answers=answers)))


@pytest.fixture
def run(tmp_path):
    async def run(tool, caller, can=ALL):
        call = ToolCall(name=tool.descriptor.name, arguments=b"{}", call_id="1", can=can)
        result = await tool.run(call, Environment(ToolsSettings(), tmp_path), None, caller)
        return msgspec.json.decode(result.value)

    return run


@tool()
async def keyed(ctx: ToolContext) -> str:
    """Ask under the same key twice, then without one."""
    for key in ("again", "again", None, "q1", None):
        await ctx.elicit("?", Name, key=key)
    return "done"


@tool()
async def never_stops(ctx: ToolContext) -> str:
    """Ask and ask."""
    while True:
        await ctx.elicit("?", Name)


@tool()
async def one_gives_up(ctx: ToolContext) -> str:
    """The first of two tasks that ask is cancelled in the very turn."""
    heard = []
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await ctx.elicit("first", Name)

    async def second() -> None:
        answer = await ctx.elicit("second", Name)
        heard.append(answer.action)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        nursery.start_soon(second)
        await trio.lowlevel.checkpoint()
        scope.cancel()
    return " ".join(heard)


@tool()
async def bad_key(ctx: ToolContext) -> str:
    """A key that is too long."""
    await ctx.elicit("?", Name, key="x" * (MAX_KEY_CHARS + 1))
    return ""


@tool()
async def bad_form(ctx: ToolContext) -> str:
    """Something that is no form."""
    await ctx.elicit("?", {"type": "array"})
    return ""


MORE = loaded(keyed, never_stops, one_gives_up, bad_key, bad_form)


async def test_each_question_has_a_key_of_its_own(run):
    caller = Caller()
    assert await run(MORE["keyed"], caller) == "done"
    assert [list(asked) for asked in caller.rounds] == [["again"], ["again-2"], ["q1"], ["q1-2"], ["q2"]]


async def test_a_tool_that_asks_without_end_is_stopped(run, monkeypatch):
    monkeypatch.setattr(asking, "MAX_QUESTIONS", 5)
    caller = Caller()
    with pytest.raises(ToolExecutionError, match="a call may ask 5 questions; this one is in a loop"):
        await run(MORE["never_stops"], caller)
    assert len(caller.rounds) == 5


async def test_questions_of_one_turn_travel_together_and_keep_their_keys(run):
    for _ in range(10):
        caller = Caller()
        assert await run(TOOLS["ask_in_parallel"], caller) == "a=a? b=b? c=c?"
        assert caller.rounds == [{"q1": "a?", "q2": "b?", "q3": "c?"}]


async def test_a_task_that_gives_up_does_not_take_the_others_with_it(run):
    for _ in range(10):
        assert await run(MORE["one_gives_up"], Caller()) == "accept"


async def test_what_can_not_be_asked_is_said_without_asking(run):
    caller = Caller()
    with pytest.raises(CannotAskError) as caught:
        await run(TOOLS["ask_name"], caller, ("sampling",))
    assert caught.value.details["capabilities"] == {"elicitation": {}}
    assert caller.rounds == []
    with pytest.raises(CannotAskError):
        await run(TOOLS["ask_name"], None)


async def test_a_stream_is_closed_only_for_a_caller_that_has_one(run, autojump_clock):
    caller = Caller()
    assert await run(TOOLS["long_work"], caller) == "done"
    assert caller.told == [CLOSE_STREAM]
    assert await run(TOOLS["long_work"], caller, ()) == "done"
    assert await run(TOOLS["long_work"], None, ()) == "done"
    assert caller.told == [CLOSE_STREAM]


@pytest.mark.parametrize(("name", "text"), [("bad_key", "1 to 128"), ("bad_form", "a form's schema")])
async def test_a_tools_mistake_is_named(run, name, text):
    with pytest.raises(ToolExecutionError, match=text):
        await run(MORE[name], Caller())


@pytest.mark.parametrize("name", ["ask_name", "ask_in_a_thread"])
async def test_a_cancelled_call_leaves_no_thread_and_no_question(run, name):
    caller = Caller()
    caller.hold = True
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, TOOLS[name], caller)
            while not caller.rounds:
                await trio.sleep(0.001)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert abandoned_threads() == 0


def test_a_capability_that_no_client_can_have_is_a_mistake_of_the_author():
    with pytest.raises(ValueError, match="clients may have elicitation"):
        tool(requires=("telepathy",))


def test_a_tool_with_a_context_may_ask():
    @tool(requires=("sampling",))
    async def asks(ctx: ToolContext) -> str:
        """Ask."""
        return ""

    @tool()
    async def plain() -> str:
        """Do not."""
        return ""

    found = load_functions([asks, plain], runtime="general", actor="general", category="c", default_timeout_s=1).tools
    assert (found["asks"].descriptor.asks, found["asks"].descriptor.requires) == (True, ("sampling",))
    assert (found["plain"].descriptor.asks, found["plain"].descriptor.requires) == (False, ())
