# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON-RPC as MCP has it, wherever its messages come from: error codes, ids, and the bytes of answers."""

from __future__ import annotations

from typing import Final, TypeGuard

import msgspec

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
UNSUPPORTED_VERSION: Final = -32022

META: Final = "io.modelcontextprotocol/"
"""What MCP's own names in `_meta` begin with."""
MAX_ID_LENGTH: Final = 256
"""Characters of a request's id or a progress token that is text; three times as many bits of a number. Ours."""

encode = msgspec.json.Encoder().encode
"""Value -> JSON on one line."""


class RpcError(Exception):
    """The `error` member of an answer: one that is to be sent, or that the other side has sent."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether a value may be a request's id or a progress token: text or an integer of bounded length."""
    if type(value) is str:
        return len(value) <= MAX_ID_LENGTH
    return type(value) is int and value.bit_length() <= 3 * MAX_ID_LENGTH


def id_json(value: object) -> bytes:
    """An id as JSON; b'' when it can't be echoed."""
    if not is_id(value):
        return b""
    return encode(value) if isinstance(value, str) else b"%d" % value


def result_message(id_: bytes, result: bytes) -> bytes:
    """An answer from the JSON of its id and result."""
    return b'{"jsonrpc":"2.0","id":' + id_ + b',"result":' + result + b"}"


def error_message(id_: bytes, error: RpcError) -> bytes:
    """The answer to a request that failed. Without an id (b'') the member is left out: no schema allows null."""
    content: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        content["data"] = error.data
    middle = b',"id":' + id_ if id_ else b""
    return b'{"jsonrpc":"2.0"' + middle + b',"error":' + encode(content) + b"}"
