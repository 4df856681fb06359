# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool's call as a task of the queue: the texts that its row carries. For the gateway, which makes such tasks, the
worker, which runs them, and the tools, which show them.

A task whose type is the name of a tool is a call of that tool: its payload is the tool's arguments, its result what
`result_text` makes of the tool's, its questions and answers those of the tool's context.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from actors.errors import NoAnswerError
from actors.tool_messages import Question, QuestionMethod, Runtime, Shape, ToolResult

LOCAL: Final = "local"
"""Capability of this node's own worker (`Claim.capabilities`): tasks that need it run here."""
MCP_TAG: Final = "mcp"
"""Tag of the tasks that were made by MCP's `tools/call`."""
_encode = msgspec.json.Encoder().encode


# --- who called ----------------------------------------------------------------------------------------------------


class Caller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of the client that had the task made; without it a tool can't ask."""

    can: tuple[str, ...] = ()
    """What it can be asked, as in `ToolCall.can`."""
    answers: dict[str, str] = {}
    """What it answered before the task was made: key -> `answer_text`."""


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
    result with structured content; what is no JSON is shown as it is."""
    try:
        stored = _decode_stored(text)
    except msgspec.MsgspecError:
        return _foreign(text)
    return ToolResult(
        value=bytes(stored.value),
        shape=stored.shape,
        runtime=stored.runtime,
        duration_ms=stored.duration_ms,
        is_error=stored.is_error,
    )


def _foreign(text: str) -> ToolResult:
    shape: Shape
    try:
        value = text.encode()
        shape = "object" if isinstance(msgspec.json.decode(value), dict) else "wrapped"
    except (msgspec.MsgspecError, RecursionError):
        value, shape = _encode(text), "text"
    return ToolResult(value=value, shape=shape, runtime="general", duration_ms=0.0)


# --- questions and answers -----------------------------------------------------------------------------------------


class _Asked(msgspec.Struct, frozen=True):
    method: QuestionMethod
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    to: str
    answer: msgspec.Raw = msgspec.Raw(b"")
    no_answer: str = ""


_decode_asked = msgspec.json.Decoder(_Asked).decode
_decode_answered = msgspec.json.Decoder(_Answered).decode


def fingerprint(question: Question) -> bytes:
    """Tells two questions with the same key apart."""
    return hashlib.sha256(question.method.encode() + b"\n" + question.params).digest()[:12]


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


def answer_text(print_: bytes, answer: bytes) -> str:
    """The answer (JSON) to the question with this fingerprint, as one to a task."""
    return _encode(_Answered(to=print_.hex(), answer=msgspec.Raw(answer))).decode()


def no_answer_text(print_: bytes, reason: str) -> str:
    """Stands for the answer to a question that nobody will answer, for this reason."""
    return _encode(_Answered(to=print_.hex(), no_answer=reason)).decode()


def is_answer_to(question: Question, text: str) -> bool:
    """Whether this answers the question, or says that nobody will."""
    try:
        return _decode_answered(text).to == fingerprint(question).hex()
    except msgspec.MsgspecError:
        return False


def answer_of(question: Question, text: str) -> bytes | None:
    """What was answered to this question; None when it was something else that was answered under its key. Raises
    `NoAnswerError` when nobody will answer."""
    if not is_answer_to(question, text):
        return None
    answered = _decode_answered(text)
    if answered.no_answer:
        raise NoAnswerError(answered.no_answer)
    return bytes(answered.answer)
