# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON-RPC frames of clients: reading them in one pass, and errors. No MCP state.

`parse` reads only what routing needs; everything else stays JSON. Values may have any JSON type here: whoever uses a
field checks it, so that errors are found in the order that the protocol wants. What `params_as` decodes is typed.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, field

from actors.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, MAX_ID_LENGTH, META, PARSE_ERROR, RpcError, encode, is_id

HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
URL_REQUIRED: Final = -32042
"""Of 2025-11-25 alone."""

MAX_BATCH: Final = 100
"""Messages in one array (2025-03-26). Ours."""


class McpError(RpcError):
    """A protocol error; it becomes the `error` member of a response. `status` overrides the HTTP status of its code."""

    def __init__(self, code: int, message: str, data: object = None, *, status: int | None = None) -> None:
        super().__init__(code, message, data)
        self.status = status


class Meta(msgspec.Struct, gc=False):
    """`params._meta`, as far as it is ours to read. UNSET = absent; `version` may hold any JSON value."""

    version: Any = field(name=META + "protocolVersion", default=UNSET)
    capabilities: Any = field(name=META + "clientCapabilities", default=UNSET)
    log_level: Any = field(name=META + "logLevel", default=UNSET)
    progress_token: Any = field(name="progressToken", default=None)


class Params(msgspec.Struct, gc=False):
    """The `params` that routing and the hot path look at; other members are skipped."""

    meta: Meta | None = field(name="_meta", default=None)
    name: Any = UNSET
    uri: Any = UNSET
    arguments: Raw = Raw(b"")
    """b'' when absent."""
    task_id: Any = field(name="taskId", default=UNSET)
    task: Any = UNSET
    """The wish to have the call run as a task (2025-11-25)."""


class Frame(msgspec.Struct, gc=False):
    """One JSON-RPC message of a client."""

    jsonrpc: Any = UNSET
    id: Any = UNSET
    method: Any = UNSET
    params: Params | None = None
    result: Raw = Raw(b"")
    error: Raw = Raw(b"")

    @property
    def is_response(self) -> bool:
        """An answer to a request of ours, not a request or notification."""
        return self.method is UNSET and (bool(self.result) or bool(self.error))


MALFORMED: Final = Params()
"""Stands for `params` that are not an object, or whose `_meta` is not one. Compare by identity."""

_frame = msgspec.json.Decoder(Frame)
_array = msgspec.json.Decoder(list[Raw])

T = TypeVar("T")


def parse(body: bytes) -> Frame | list[Raw]:
    """Read one message, or the raw elements of an array. Raises `McpError` for anything else."""
    try:
        return _frame.decode(body)
    except msgspec.ValidationError:
        return _parse_odd(body)
    except RecursionError:
        raise McpError(PARSE_ERROR, "the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as problem:
        raise McpError(PARSE_ERROR, f"not JSON: {problem}") from None


def _parse_odd(body: bytes) -> Frame | list[Raw]:
    """Valid JSON of an unexpected shape: keep what can still be answered to."""
    try:
        value = msgspec.json.decode(body)
        if isinstance(value, list):
            return _array.decode(body)
    except RecursionError:
        raise McpError(PARSE_ERROR, "the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as problem:
        raise McpError(PARSE_ERROR, f"not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise McpError(INVALID_REQUEST, "the body must be one JSON-RPC object")
    return Frame(
        jsonrpc=value.get("jsonrpc", UNSET),
        id=value.get("id", UNSET),
        method=value.get("method", UNSET),
        params=MALFORMED,
        result=Raw(b"null" if "result" in value else b""),
        error=Raw(b"null" if "error" in value else b""),
    )


def check_envelope(frame: Frame) -> None:
    """Raise INVALID_REQUEST unless this is a well-formed request or notification."""
    if frame.jsonrpc != "2.0":
        raise McpError(INVALID_REQUEST, 'jsonrpc must be "2.0"', status=400)
    if type(frame.method) is not str:
        raise McpError(INVALID_REQUEST, "method must be a string", status=400)
    if frame.id is not UNSET and not is_id(frame.id):
        raise McpError(
            INVALID_REQUEST, f"id must be a string or an integer of at most {MAX_ID_LENGTH} characters", status=400
        )


class _ParamsOnly(msgspec.Struct):
    params: Raw = Raw(b"{}")


_params_only = msgspec.json.Decoder(_ParamsOnly)


def params_as(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The `params` of a request (absent or null: `{}`) as a type. Raises INVALID_PARAMS."""
    try:
        raw = bytes(_params_only.decode(body).params)
        return decoder.decode(b"{}" if raw == b"null" else raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as problem:
        raise McpError(INVALID_PARAMS, f"params: {problem}") from None


def notification(method: str, params: dict[str, object] | None = None) -> bytes:
    """A notification of ours."""
    message: dict[str, object] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return encode(message)
