# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool's call as a task of the queue: the texts that its row carries. For the gateway, which makes such tasks, the
worker, which runs them, and the tools, which show them.

A task whose type is the name of a tool is a call of that tool: its payload is the tool's arguments, its result what
`result_text` makes of the tool's, its questions and answers those of the tool's context.
"""

from __future__ import annotations

from typing import Final

import msgspec

from actors.messages import Question, QuestionMethod, Runtime, Shape, ToolResult

MCP_TAG: Final = "mcp"
"""Tag of the tasks that were made by MCP's `tools/call`."""
_encode = msgspec.json.Encoder().encode


# --- who called ----------------------------------------------------------------------------------------------------


class Caller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of the client that had the task made; without it a tool can't ask."""

    can: tuple[str, ...] = ()
    """What it can be asked, as in `ToolCall.can`."""
    answers: dict[str, msgspec.Raw] = {}
    """What it answered before the task was made: key -> JSON."""


class _Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    caller: Caller = msgspec.field(default=Caller(), name="greenroom/caller")


_decode_metadata = msgspec.json.Decoder(_Metadata).decode


def metadata_text(caller: Caller) -> str:
    """The metadata of a task."""
    return _encode(_Metadata(caller=caller)).decode()


def caller_of(metadata: str) -> Caller:
    """Who had a task with this metadata made; somebody who can't be asked when it does not say."""
    try:
        return _decode_metadata(metadata).caller
    except msgspec.MsgspecError:
        return Caller()


# --- results -------------------------------------------------------------------------------------------------------


class _Stored(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="tool_result", omit_defaults=True):
    value: msgspec.Raw
    shape: Shape
    runtime: Runtime
    duration_ms: float
    is_error: bool = False


_decode_stored = msgspec.json.Decoder(_Stored).decode


def result_text(result: ToolResult) -> str:
    """A tool's result as that of a task."""
    stored = _Stored(
        value=msgspec.Raw(result.value),
        shape=result.shape,
        runtime=result.runtime,
        duration_ms=result.duration_ms,
        is_error=result.is_error,
    )
    return _encode(stored).decode()


def result_of(text: str) -> ToolResult:
    """The tool's result that a task ended with. Any other JSON, as external workers give it, becomes the value of a
    result with structured content."""
    try:
        stored = _decode_stored(text)
    except msgspec.MsgspecError:
        shape: Shape = "object" if text.lstrip().startswith("{") else "wrapped"
        return ToolResult(value=text.encode(), shape=shape, runtime="general", duration_ms=0.0)
    return ToolResult(
        value=bytes(stored.value),
        shape=stored.shape,
        runtime=stored.runtime,
        duration_ms=stored.duration_ms,
        is_error=stored.is_error,
    )


# --- questions and answers -----------------------------------------------------------------------------------------


class _Asked(msgspec.Struct, frozen=True):
    method: QuestionMethod
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _NoAnswer(msgspec.Struct, frozen=True):
    no_answer: str = msgspec.field(name="greenroom/no_answer")


_decode_asked = msgspec.json.Decoder(_Asked).decode
_decode_no_answer = msgspec.json.Decoder(_NoAnswer).decode


def question_text(question: Question) -> str:
    """A tool's question as one of a task."""
    return _encode(_Asked(method=question.method, params=msgspec.Raw(question.params))).decode()


def question_of(key: str, text: str) -> Question | None:
    """The tool's question that a task asks; None when it is no tool's."""
    try:
        asked = _decode_asked(text)
    except msgspec.MsgspecError:
        return None
    return Question(key=key, method=asked.method, params=bytes(asked.params))


def no_answer_text(reason: str) -> str:
    """Stands for the answer to a question that nobody will answer."""
    return _encode(_NoAnswer(no_answer=reason)).decode()


def why_no_answer(text: str) -> str | None:
    """Why there is no answer; None when this is one."""
    try:
        return _decode_no_answer(text).no_answer
    except msgspec.MsgspecError:
        return None
