# SPDX-License-Identifier: AGPL-3.0-or-later
"""The oldest dialect: one message for each stream, `{type, method, params, id, result, error, sender, timestamp}`. Its
method is a tool's name. What it says of its sender proves nothing and is not looked at."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from msgspec import UNSET

from actors.errors import MCPServerError, code_of
from actors.jsonrpc import RpcError, encode, is_id
from actors.p2p.peer_registry.mcp.answering import Answering
from actors.p2p.peer_registry.mcp.rpc import TOKEN_KEY, Frame, Meta, Params, decoded
from actors.tool_messages import ToolResult

REQUEST: Final = "request"
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_meta = msgspec.json.Decoder(Meta)


def is_p2p_message(frame: Frame) -> bool:
    """Whether this is a message of this dialect."""
    return frame.jsonrpc is UNSET and type(frame.type) is str


async def answer(answering: Answering, peer_id: str, frame: Frame) -> bytes | None:
    """The answer to a message; None when it is not one that is answered."""
    if frame.type != REQUEST:
        return None
    said: dict[str, Any] = {"result": None, "error": None}
    try:
        result = await _called(answering, peer_id, frame)
        if result.is_error:
            said["error"] = result.value.decode()
        else:
            said["result"] = msgspec.Raw(result.value)
    except RpcError as error:
        said["error"] = error.message
    except MCPServerError as error:
        said["error"] = f"{code_of(error)}: {error.message}"
    return message(answering.face.peer_id, frame.id, said)


def message(sender: str, id_: object, said: dict[str, Any]) -> bytes:
    """An answer; ids are text in this dialect."""
    return encode(
        {"type": "response", "id": str(id_) if is_id(id_) else "", **said, "sender": sender, "timestamp": time.time()}
    )


async def _called(answering: Answering, peer_id: str, frame: Frame) -> ToolResult:
    arguments = decoded(frame.params, _object, "params")
    meta = arguments.pop("_meta", None)
    answering.authorize(peer_id, None if meta is None else decoded(meta, _meta, f"params._meta ({TOKEN_KEY})"))
    return await answering.call(peer_id, Params(name=frame.method, arguments=msgspec.Raw(encode(arguments))))
