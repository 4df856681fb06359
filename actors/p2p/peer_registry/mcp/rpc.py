# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON-RPC messages: reading them, errors, and the bytes of answers. What both dialects have in common.

`parse` reads only what routing needs; everything else stays JSON. Values may have any JSON type here: whoever uses a
field checks it.
"""

from __future__ import annotations

from typing import Any, Final, TypeGuard, TypeVar

import msgspec
from msgspec import UNSET, Raw, field

PROTOCOL: Final = "/mcp+p2p/1.0.0"
"""Of the streams that carry these messages."""

CURRENT_VERSION: Final = "2026-07-28"
CURRENT_BINDING: Final = "mcp-binding/2026-07-28"
LEGACY_VERSION: Final = "2024-11-05"
LEGACY_BINDING: Final = "mcp-binding/legacy-2024-11-05"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
UNSUPPORTED_VERSION: Final = -32022
"""Of the current binding alone, which forbids those below."""
INIT_REQUIRED: Final = -32000
LEGACY_UNAUTHORIZED: Final = -32001
LEGACY_TOOL_ERROR: Final = -32002
LEGACY_FRAMING: Final = -32003
LEGACY_RATE_LIMITED: Final = -32010

META: Final = "io.modelcontextprotocol/"
BINDING_KEY: Final = "io.mcplusplus/bindingId"
TOKEN_KEY: Final = "io.greenroom/callToken"  # noqa: S105 - a name
"""In `_meta` of a request: a proof that the sender knows the shared secret, made by `call_tokens.make`."""

MAX_ID_LENGTH: Final = 256
"""Characters of a request's id that is text; three times as many bits of a number."""

T = TypeVar("T")


class RpcError(Exception):
    """The `error` member of an answer: one that is to be sent, or that the other side has sent."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    @property
    def symbol(self) -> str:
        """The word for it; empty when there is none."""
        said = self.data.get("code") if isinstance(self.data, dict) else None
        return said if isinstance(said, str) else ""


class Frame(msgspec.Struct, gc=False):
    """One message. UNSET and b'' = absent."""

    jsonrpc: Any = UNSET
    id: Any = UNSET
    method: Any = UNSET
    params: Raw = Raw(b"")
    result: Raw = Raw(b"")
    error: Any = UNSET
    type: Any = UNSET
    """Of messages that are no JSON-RPC."""


class Meta(msgspec.Struct, gc=False):
    """`params._meta`, as far as it is ours to read."""

    version: Any = field(name=META + "protocolVersion", default=UNSET)
    capabilities: Any = field(name=META + "clientCapabilities", default=UNSET)
    binding: Any = field(name=BINDING_KEY, default=UNSET)
    token: Any = field(name=TOKEN_KEY, default=UNSET)


class Params(msgspec.Struct, gc=False):
    """The `params` of all methods that are answered here."""

    meta: Meta | None = field(name="_meta", default=None)
    name: Any = UNSET
    arguments: Raw = Raw(b"")
    cursor: Any = UNSET
    request_id: Any = field(name="requestId", default=UNSET)


encode = msgspec.json.Encoder().encode
_frame = msgspec.json.Decoder(Frame)
_params = msgspec.json.Decoder(Params)


def parse(message: bytes) -> Frame:
    """Read one message. Raises `RpcError`."""
    try:
        return _frame.decode(message)
    except msgspec.ValidationError:
        raise RpcError(INVALID_REQUEST, "a message is one JSON object") from None
    except RecursionError:
        raise RpcError(PARSE_ERROR, "the JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as problem:
        raise RpcError(PARSE_ERROR, f"not JSON: {problem}") from None


def params_of(frame: Frame) -> Params:
    """The `params` of a request; absent or null is an empty object. Raises INVALID_PARAMS."""
    return decoded(frame.params, _params, "params")


def decoded(text: Raw, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """JSON text as a type; absent or null is an empty object. Raises INVALID_PARAMS."""
    raw = bytes(text)
    try:
        return decoder.decode(b"{}" if raw in (b"", b"null") else raw)
    except RecursionError:
        raise RpcError(INVALID_PARAMS, f"{what}: nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError) as problem:
        raise RpcError(INVALID_PARAMS, f"{what}: {problem}") from None


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether a value may be a request's id: text or an integer of bounded length."""
    if type(value) is str:
        return len(value) <= MAX_ID_LENGTH
    return type(value) is int and value.bit_length() <= 3 * MAX_ID_LENGTH


def id_json(value: object) -> bytes:
    """An id as JSON; b'' when it can't be echoed."""
    if not is_id(value):
        return b""
    return encode(value) if isinstance(value, str) else b"%d" % value


def check_envelope(frame: Frame) -> None:
    """Raise INVALID_REQUEST unless this is a well-formed request or notification."""
    if frame.jsonrpc != "2.0":
        raise RpcError(INVALID_REQUEST, 'jsonrpc must be "2.0"')
    if type(frame.method) is not str:
        raise RpcError(INVALID_REQUEST, "method must be text")
    if frame.id is not UNSET and not is_id(frame.id):
        raise RpcError(INVALID_REQUEST, f"id must be text or an integer of at most {MAX_ID_LENGTH} characters")


def result_message(id_: bytes, result: bytes) -> bytes:
    """An answer from the JSON of its id and result."""
    return b'{"jsonrpc":"2.0","id":' + id_ + b',"result":' + result + b"}"


def error_message(id_: bytes, error: RpcError) -> bytes:
    """The answer to a request that failed. Without an id (b'') the member is left out."""
    content: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        content["data"] = error.data
    middle = b',"id":' + id_ if id_ else b""
    return b'{"jsonrpc":"2.0"' + middle + b',"error":' + encode(content) + b"}"


def request_message(id_: int | None, method: str, params: dict[str, object]) -> bytes:
    """A request, or a notification when there is no id."""
    start = b'{"jsonrpc":"2.0",' + (b'"id":%d,' % id_ if id_ is not None else b"")
    return start + b'"method":' + encode(method) + b',"params":' + encode(params) + b"}"
