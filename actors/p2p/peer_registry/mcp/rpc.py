# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON-RPC messages between nodes: reading them, and asking. What both dialects have in common.

`parse` reads only what routing needs; everything else stays JSON. Values may have any JSON type here: whoever uses a
field checks it.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, field

from actors.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, MAX_ID_LENGTH, META, PARSE_ERROR, RpcError, encode, is_id

PROTOCOL: Final = "/mcp+p2p/1.0.0"
"""Of the streams that carry these messages."""

CURRENT_VERSION: Final = "2026-07-28"
CURRENT_BINDING: Final = "mcp-binding/2026-07-28"
LEGACY_VERSION: Final = "2024-11-05"
LEGACY_BINDING: Final = "mcp-binding/legacy-2024-11-05"

INIT_REQUIRED: Final = -32000
LEGACY_UNAUTHORIZED: Final = -32001
LEGACY_TOOL_ERROR: Final = -32002
LEGACY_FRAMING: Final = -32003
LEGACY_RATE_LIMITED: Final = -32010
"""These five are of the legacy binding alone; the current one forbids them."""

BINDING_KEY: Final = "io.mcplusplus/bindingId"
TOKEN_KEY: Final = "io.greenroom/callToken"  # noqa: S105 - a name
"""In `_meta` of a request: a proof that the sender knows the shared secret, made by `call_tokens.make`."""

T = TypeVar("T")


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


def check_envelope(frame: Frame) -> None:
    """Raise INVALID_REQUEST unless this is a well-formed request or notification."""
    if frame.jsonrpc != "2.0":
        raise RpcError(INVALID_REQUEST, 'jsonrpc must be "2.0"')
    if type(frame.method) is not str:
        raise RpcError(INVALID_REQUEST, "method must be text")
    if frame.id is not UNSET and not is_id(frame.id):
        raise RpcError(INVALID_REQUEST, f"id must be text or an integer of at most {MAX_ID_LENGTH} characters")


def request_message(id_: int | None, method: str, params: dict[str, object]) -> bytes:
    """A request, or a notification when there is no id."""
    start = b'{"jsonrpc":"2.0",' + (b'"id":%d,' % id_ if id_ is not None else b"")
    return start + b'"method":' + encode(method) + b',"params":' + encode(params) + b"}"
