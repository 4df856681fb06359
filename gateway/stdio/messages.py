# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a client's line is, and the HTTP headers that its revision wants for it. Pure functions."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Final

import msgspec
from msgspec import UNSET

from actors.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, error_message, id_json
from actors.param_headers import ParamRule
from gateway.mcp.eras import KNOWN_VERSIONS
from gateway.mcp.headers import NAME_FIELDS
from gateway.mcp.jsonrpc import Frame, McpError, check_envelope, params_as, parse
from gateway.stdio.lines import TooLong

LISTEN: Final = "subscriptions/listen"
CALL: Final = "tools/call"
_BASE: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_WRAP_START: Final = "=?base64?"


class Kind(Enum):
    """What a message is."""

    REQUEST = auto()
    NOTIFICATION = auto()
    RESPONSE = auto()
    """The client's answer to a request of the server."""
    ARRAY = auto()
    """Several in one (2025-03-26)."""


class Message(msgspec.Struct, frozen=True):
    """One line of the client."""

    kind: Kind
    body: bytes
    ids: tuple[int | str, ...] = ()
    """Of the requests in it."""
    method: str = ""
    modern: bool = False
    """It carries its own metadata (2026-07-28), and belongs to no session."""
    version: Any = None
    """As `_meta` says it: any JSON value."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A line that goes nowhere; `answer` is what its sender is told."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self.answer = answer


def read(line: bytes) -> Message:
    """What a line is. Raises `Refused`."""
    try:
        frame = parse(line)
    except McpError as error:
        raise Refused(error_message(b"", error)) from None
    if isinstance(frame, list):
        return Message(Kind.ARRAY, line, tuple(_ids(frame)))
    if frame.is_response:
        return Message(Kind.RESPONSE, line)
    try:
        check_envelope(frame)
    except McpError as error:
        raise Refused(error_message(id_json(frame.id), error)) from None
    version = _version(frame)
    kind, ids = (Kind.NOTIFICATION, ()) if frame.id is UNSET else (Kind.REQUEST, (frame.id,))
    return Message(kind, line, ids, frame.method, modern=version is not UNSET, version=version)


def _version(frame: Frame) -> object:
    meta = frame.params.meta if frame.params is not None else None
    return meta.version if meta is not None else UNSET


def _ids(elements: Iterable[msgspec.Raw]) -> Iterable[int | str]:
    for element in elements:
        try:
            frame = parse(bytes(element))
        except McpError:
            continue
        if isinstance(frame, Frame) and frame.method is not UNSET and id_json(frame.id):
            yield frame.id


class _Cancelled(msgspec.Struct, rename="camel"):
    request_id: Any = None


class _Named(msgspec.Struct, rename="camel"):
    name: Any = None
    uri: Any = None
    task_id: Any = None
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


_cancelled = msgspec.json.Decoder(_Cancelled)
_named = msgspec.json.Decoder(_Named)


def cancelled_id(body: bytes) -> object:
    """Which request `notifications/cancelled` means; None when it does not say."""
    try:
        return params_as(body, _cancelled).request_id
    except McpError:
        return None


def tool_name(body: bytes) -> str:
    """The tool of a `tools/call`; '' when it names none."""
    try:
        name = params_as(body, _named).name
    except McpError:
        return ""
    return name if isinstance(name, str) else ""


def modern_headers(message: Message, rules: tuple[ParamRule, ...] = ()) -> dict[str, str]:
    """The routing headers of a request at 2026-07-28. `rules`: of its tool, when it has arguments that headers repeat.

    Raises `Refused` for what no header can say.
    """
    headers = dict(_BASE)
    if not _plain(message.method):
        raise refused(message, McpError(METHOD_NOT_FOUND, f"Method not found: {message.method[:200]}"))
    headers["mcp-method"] = message.method
    if isinstance(message.version, str) and _plain(message.version):
        headers["mcp-protocol-version"] = message.version
    field = NAME_FIELDS.get(message.method)
    if field is not None or rules:
        try:
            params = params_as(message.body, _named)
        except McpError as error:
            raise refused(message, error) from None
        if field is not None:
            value = getattr(params, "task_id" if field == "taskId" else field)
            if not isinstance(value, str):
                raise refused(message, McpError(INVALID_PARAMS, f"params.{field} must be a string"))
            headers["mcp-name"] = wrap(value)
        headers |= _param_headers(rules, bytes(params.arguments))
    return headers


def _param_headers(rules: tuple[ParamRule, ...], arguments: bytes) -> dict[str, str]:
    headers = {}
    values = msgspec.json.decode(arguments or b"{}")
    for rule in rules:
        value = values
        for name in rule.path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, bool):
            headers[rule.header] = "true" if value else "false"
        elif isinstance(value, (str, int, float)):
            headers[rule.header] = wrap(str(value))
    return headers


def legacy_headers(token: str, version: str) -> dict[str, str]:
    """The headers of a message in a session; without a token those of `initialize`."""
    headers = dict(_BASE)
    if token:
        headers["mcp-session-id"] = token
        if version in KNOWN_VERSIONS:
            headers["mcp-protocol-version"] = version
    return headers


def resume_headers(headers: dict[str, str], last_id: str) -> dict[str, str]:
    """The headers of a GET in a session: of its stream, or (`last_id`) of the rest of another one."""
    of_get = {name: value for name, value in headers.items() if name != "content-type"} | {
        "accept": "text/event-stream"
    }
    return of_get | {"last-event-id": last_id} if _plain(last_id) else of_get


def wrap(text: str) -> str:
    """A text as a header's value: as it is, or in base64 when a header could not carry it."""
    if _plain(text) and text == text.strip(" \t") and not text.startswith(_WRAP_START):
        return text
    return f"{_WRAP_START}{base64.b64encode(text.encode()).decode()}?="


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and text != ""


def refused(message: Message, error: McpError) -> Refused:
    """A request that goes nowhere."""
    return Refused(b"\n".join(errors(message.ids, error)))


def errors(ids: Iterable[int | str], error: McpError) -> list[bytes]:
    """The same error for each of these requests."""
    return [error_message(id_json(id_), error) for id_ in ids]


def too_long(line: TooLong, limit: int) -> bytes:
    """The answer to a line that was not kept."""
    text = f"the message has {line.size} bytes, and may have {limit}; the setting is server.max_body_bytes"
    return error_message(line.id_json, McpError(INVALID_REQUEST, text))


def lost() -> McpError:
    """For a request whose way was cut after it was sent."""
    text = "the connection ended during the request; it may or may not have taken effect: look before you repeat it"
    return McpError(INTERNAL_ERROR, text, {"code": "OUTCOME_UNKNOWN", "retryable": False})


def unreachable(reason: str) -> McpError:
    """For a request that was never sent."""
    data = {"code": "RUNTIME_UNAVAILABLE", "retryable": True}
    return McpError(INTERNAL_ERROR, f"not sent: {reason}. Nothing was started; try again", data)


def busy(limit: int) -> McpError:
    """For a request over the bound."""
    text = f"{limit} requests are open already (stdio.max_requests); nothing was started, try again"
    return McpError(INTERNAL_ERROR, text, {"code": "BUSY", "retryable": True})


class _Answer(msgspec.Struct):
    """What is looked at in a message of the server."""

    id: Any = UNSET
    method: Any = UNSET
    params: msgspec.Raw = msgspec.Raw(b"")
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_answer = msgspec.json.Decoder(_Answer)
_answers = msgspec.json.Decoder(list[_Answer])


def answered(data: bytes) -> tuple[int | str, ...] | None:
    """The ids that a message of the server answers; None when it answers nothing, or is no message at all."""
    try:
        found = _answers.decode(data) if data.startswith(b"[") else [_answer.decode(data)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if any(one.method is not UNSET or not (one.result or one.error) for one in found):
        return None
    return tuple(one.id for one in found if id_json(one.id))


def method_of(data: bytes) -> str:
    """The method of a request or notification of the server; '' of anything else."""
    try:
        method = _answer.decode(data).method
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    return method if isinstance(method, str) else ""


def member(data: bytes, name: str) -> Any:  # noqa: ANN401 - a JSON value
    """`result`, `error` or `params` of a message, decoded; None when it has none."""
    try:
        raw = bytes(getattr(_answer.decode(data), name))
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def one_line(data: bytes) -> bytes:
    """JSON without line breaks: a line is a message."""
    return msgspec.json.format(data, indent=-1) if b"\n" in data or b"\r" in data else data
