# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a tool's author imports: the decorator's marks, content blocks, and a context outside of any pool."""

from __future__ import annotations

import json
import threading

import msgspec
import pytest
import trio

import actors.toolkit
from actors.settings import ToolsSettings
from actors.tool_messages import Progress
from actors.toolkit import (
    SPEC_ATTRIBUTE,
    AudioContent,
    CallCancelledError,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    TextContent,
    ToolContext,
    tool,
)
from actors.tools.files import Files


def spec(**options):
    @tool(**options)
    def function() -> str:
        """Do it."""
        return "done"

    return getattr(function, SPEC_ATTRIBUTE)


def test_everything_that_is_promised_can_be_imported():
    assert all(hasattr(actors.toolkit, name) for name in actors.toolkit.__all__)


def test_the_decorator_leaves_the_function_as_it_is():
    def plain(a: int) -> int:
        """Add one."""
        return a + 1

    assert tool()(plain) is plain
    assert plain(1) == 2


def test_a_tool_is_named_like_its_function_unless_told_otherwise():
    assert spec().name == "function"
    assert spec(name="other").name == "other"


@pytest.mark.parametrize(
    ("options", "retry_safe"),
    [
        ({}, False),
        ({"read_only": True}, True),
        ({"idempotent": True}, True),
        ({"read_only": False, "idempotent": False}, False),
        ({"destructive": True}, False),
        ({"read_only": True, "retry_safe": False}, False),
        ({"retry_safe": True}, True),
    ],
)
def test_a_call_may_be_run_again_only_if_the_tool_says_so(options, retry_safe):
    assert spec(**options).retry_safe is retry_safe


def test_what_is_not_said_is_not_told():
    marked = spec()
    said = {name: getattr(marked, name) for name in marked.__struct_fields__ if name not in ("name", "retry_safe")}
    assert set(said.values()) == {None}


@pytest.mark.parametrize(
    ("block", "wire"),
    [
        (TextContent("hi"), {"type": "text", "text": "hi"}),
        (ImageContent(b"\x00\xff", "image/png"), {"type": "image", "data": "AP8=", "mimeType": "image/png"}),
        (AudioContent(b"\x00", "audio/wav"), {"type": "audio", "data": "AA==", "mimeType": "audio/wav"}),
        (
            EmbeddedResource(ResourceContents(uri="a:b", text="x")),
            {"type": "resource", "resource": {"uri": "a:b", "text": "x"}},
        ),
        (
            ResourceLink(uri="a:b", name="b", mime_type="text/plain"),
            {"type": "resource_link", "uri": "a:b", "name": "b", "mimeType": "text/plain"},
        ),
    ],
)
def test_content_blocks_have_mcps_form(block, wire):
    assert json.loads(msgspec.json.encode(block)) == wire


@pytest.mark.parametrize("holds", [{}, {"text": "a", "blob": b"b"}])
def test_a_resource_holds_text_or_bytes_and_never_both(holds):
    with pytest.raises(ValueError, match="either text or blob"):
        ResourceContents(uri="a:b", **holds)


# --- the context -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def make_context(tmp_path):
    def make(report, *, wants_progress=True, log_level="debug"):
        return ToolContext(
            call_id="call-1", principal="", settings=ToolsSettings(), data_dir=tmp_path, files=Files([], tmp_path),
            report=report, wants_progress=wants_progress, log_level=log_level, logger="tests",
        )  # fmt: skip

    return make


async def test_a_context_without_limits_has_all_the_time(make_context):
    assert make_context(None).remaining_s == float("inf")


async def test_time_left_never_falls_below_nothing(make_context):
    with trio.CancelScope(deadline=trio.current_time() - 1):
        assert make_context(None).remaining_s == 0


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [("debug", 8), ("warning", 5), ("emergency", 1), ("", 0), ("no level", 0)],
)
async def test_only_logs_of_the_wanted_level_and_above_are_sent(make_context, wanted, sent):
    items = []
    context = make_context(items.append, log_level=wanted)
    for level in ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"):
        context.log(level, "x")
    assert len(items) == sent


def in_a_thread(function) -> None:
    """Run it in a thread while the loop is held, so that nothing is sent in between."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


async def test_of_quick_reports_from_a_thread_only_the_latest_is_sent(make_context):
    items = []
    context = make_context(items.append)
    in_a_thread(lambda: [context.progress(step, 100) for step in range(100)])
    await trio.testing.wait_all_tasks_blocked()
    assert items == [Progress(progress=99, total=100)]


async def test_of_quick_logs_from_a_thread_a_bounded_number_is_kept_the_latest(make_context):
    items = []
    context = make_context(items.append)
    in_a_thread(lambda: [context.log("info", step) for step in range(1000)])
    context.end()
    assert [item.data for item in items] == [str(step).encode() for step in range(1000 - 256, 1000)]


async def test_a_cancelled_call_is_told_at_the_next_check(make_context):
    context = make_context(None)
    context.check_cancelled()
    assert not context.cancel()
    assert context.cancelled
    with pytest.raises(CallCancelledError):
        context.check_cancelled()


async def test_every_interrupt_is_called_whatever_the_others_do(make_context):
    context, called = make_context(None), []
    context.on_cancel(lambda: 1 / 0)
    context.on_cancel(lambda: called.append("second"))
    assert context.cancel()
    assert called == ["second"]
