# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a call ends: a result that is what was promised, or one error that its caller may see."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from tool_calls import Caller, loaded

from actors.errors import (
    BusyError,
    ForbiddenError,
    InvalidArgumentsError,
    MCPServerError,
    ToolExecutionError,
    to_info,
)
from actors.toolkit import TextContent, ToolContext, UnavailableError, tool
from actors.tools.execution import MAX_ERROR_CHARS, ResultTooLargeError


def caller(tmp_path, *functions, **settings):
    return Caller(loaded(*functions), tmp_path, **settings)


@dataclass
class Point:
    x: int


@tool()
async def give_text(n: int) -> str:
    """Give some text."""
    return "x" * n


@tool()
async def give_block() -> TextContent:
    """Give one block."""
    return TextContent("hi")


@tool()
async def give_point() -> Point:
    """Give a point."""
    return Point("wrong")


@tool()
async def give_number() -> str:
    """Give what was not promised."""
    return 5


@tool()
async def give_object() -> Any:
    """Give what JSON does not know."""
    return object()


@tool()
async def give_ring() -> list[Any]:
    """Give a list that holds itself."""
    ring = []
    ring.append(ring)
    return ring


async def test_a_single_content_block_becomes_a_list_of_one(tmp_path):
    result = await caller(tmp_path, give_block).result("give_block", b"")
    assert (result.shape, json.loads(result.value)) == ("content", [{"type": "text", "text": "hi"}])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (give_point, "its result is not what it promises: Expected `int`, got `str` - at `$.x`"),
        (give_number, "the tool promised text and returned int"),
        (give_object, "its result can't be sent: Encoding objects of type object is unsupported"),
        (give_ring, "its result can't be sent: "),
    ],
)
async def test_a_result_that_is_not_what_was_promised_is_the_tools_failure(tmp_path, function, said):
    with pytest.raises(ToolExecutionError) as failed:
        await caller(tmp_path, function)(function.__name__)
    assert said in failed.value.message


async def test_a_result_larger_than_the_limit_is_refused_with_its_size(tmp_path):
    call = caller(tmp_path, give_text, max_result_bytes=100)
    assert len(await call("give_text", n=98)) == 98
    with pytest.raises(ResultTooLargeError, match=r"101 bytes, more than tools.max_result_bytes \(100\)") as refused:
        await call("give_text", n=99)
    assert to_info(refused.value).code == "RESULT_TOO_LARGE"


# --- failures --------------------------------------------------------------------------------------------------------


class OddExit(BaseException):
    """Not an `Exception`: what only a careless library raises."""


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


FAILURES = {
    "value": lambda: ValueError("no such colour"),
    "empty": KeyError,
    "unprintable": UnprintableError,
    "long": lambda: ValueError("x" * 10_000),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "generator": GeneratorExit,
    "odd": OddExit,
    "asyncio": asyncio.CancelledError,
    "group": lambda: BaseExceptionGroup("several", [ExceptionGroup("inner", [ValueError("first")]), KeyError("b")]),
    "stop": lambda: StopAsyncIteration("over"),
    "forbidden": lambda: ForbiddenError("not this"),
    "unavailable": lambda: UnavailableError("no ffmpeg"),
    "busy": lambda: BusyError("full"),
    "arguments": lambda: InvalidArgumentsError("a and b exclude each other"),
    "group of ours": lambda: ExceptionGroup("one", [ForbiddenError("inside")]),
}


@tool()
async def fail_async(how: str) -> str:
    """Fail on the loop."""
    raise FAILURES[how]()  # noqa: RSE102 - it makes an exception


@tool()
def fail_plain(how: str) -> str:
    """Fail in a thread."""
    raise FAILURES[how]()  # noqa: RSE102 - it makes an exception


KINDS = pytest.mark.parametrize("name", ["fail_async", "fail_plain"])


@KINDS
@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("value", "ValueError: no such colour"),
        ("empty", "KeyError"),
        ("unprintable", "UnprintableError"),
        ("exit", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt"),
        ("generator", "GeneratorExit"),
        ("odd", "OddExit"),
        ("asyncio", "CancelledError"),
        ("group", "ValueError: first"),
        ("stop", "StopAsyncIteration: over"),
    ],
)
async def test_whatever_a_tool_raises_ends_its_call_only(tmp_path, name, how, cause):
    with pytest.raises(ToolExecutionError) as failed:
        await caller(tmp_path, fail_async, fail_plain)(name, how=how)
    assert failed.value.message == f"Tool {name} failed on general runtime: {cause}"


@KINDS
async def test_a_failure_shows_its_caller_no_traceback_and_no_endless_text(tmp_path, name):
    with pytest.raises(ToolExecutionError) as failed:
        await caller(tmp_path, fail_async, fail_plain)(name, how="long")
    info = to_info(failed.value)
    assert len(info.message) < MAX_ERROR_CHARS + 100
    assert "Traceback" not in repr(info)
    assert __file__ not in repr(info)


@KINDS
@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("forbidden", "FORBIDDEN"),
        ("unavailable", "UNAVAILABLE"),
        ("busy", "BUSY"),
        ("arguments", "INVALID_ARGUMENTS"),
        ("group of ours", "FORBIDDEN"),
    ],
)
async def test_errors_of_our_own_keep_their_meaning(tmp_path, name, how, code):
    with pytest.raises(MCPServerError) as failed:
        await caller(tmp_path, fail_async, fail_plain)(name, how=how)
    assert to_info(failed.value).code == code


@tool()
async def fail_in_nursery(ctx: ToolContext) -> str:
    """Fail in one of two tasks."""

    async def fail():
        raise ValueError("from a task")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail)
    return "never"


async def test_an_error_in_a_tools_own_nursery_is_shown_as_itself(tmp_path):
    with pytest.raises(ToolExecutionError, match="ValueError: from a task"):
        await caller(tmp_path, fail_in_nursery)("fail_in_nursery")
