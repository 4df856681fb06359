# SPDX-License-Identifier: AGPL-3.0-or-later
"""Errors of Greenroom as errors of each dialect, and back.

The current binding has numbers of its own for what applications refuse, none of which JSON-RPC or MCP reserve; the word
for it stands in `data.code`. In the legacy binding the numbers are those of deployed nodes.
"""

from __future__ import annotations

from typing import Final

from actors.errors import (
    DeadlineExceededError,
    InvalidArgumentsError,
    MCPServerError,
    NotFoundError,
    ToolExecutionError,
    UnavailableError,
    UnknownToolError,
    code_of,
    from_info,
)
from actors.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from actors.messages import ErrorInfo
from actors.p2p.peer_registry.mcp.rpc import INIT_REQUIRED, LEGACY_RATE_LIMITED, LEGACY_TOOL_ERROR, LEGACY_UNAUTHORIZED

UNAUTHORIZED: Final = "UNAUTHORIZED"
FORBIDDEN: Final = "FORBIDDEN"
RATE_LIMITED: Final = "RATE_LIMITED"
LIMIT_EXCEEDED: Final = "LIMIT_EXCEEDED"
TIMEOUT: Final = "TIMEOUT"
_NUMBERS: Final = {
    UNAUTHORIZED: 401,
    FORBIDDEN: 403,
    NotFoundError.code: 404,
    TIMEOUT: 408,
    LIMIT_EXCEEDED: 413,
    RATE_LIMITED: 429,
    UnavailableError.code: 503,
}
"""Of the current binding; all other words have the one of an internal error."""
_OLD_WORDS: Final = {
    METHOD_NOT_FOUND: UnavailableError.code,
    INVALID_PARAMS: InvalidArgumentsError.code,
    INIT_REQUIRED: UnavailableError.code,
    LEGACY_UNAUTHORIZED: UNAUTHORIZED,
    LEGACY_TOOL_ERROR: ToolExecutionError.code,
    LEGACY_RATE_LIMITED: RATE_LIMITED,
}
"""For numbers that come without a word."""
_MOST_TEXT: Final = 2000
"""Characters of a message from the other side that are kept."""
_MOST_WORD: Final = 100


def refused(word: str, message: str, *, retryable: bool = False) -> MCPServerError:
    """An error of this word."""
    return from_info(ErrorInfo(code=word, message=message, retryable=retryable))


def rate_limited(wait_s: float) -> MCPServerError:
    """Too much was asked; more is taken after so many seconds."""
    return refused(RATE_LIMITED, f"too many messages; try again in {wait_s:.2f} seconds", retryable=True)


def is_refusal(error: MCPServerError) -> bool:
    """Whether a call did not fail as a call: it was refused, or its time ran out."""
    refusals = (UNAUTHORIZED, FORBIDDEN, RATE_LIMITED, TIMEOUT, LIMIT_EXCEEDED)
    return isinstance(error, UnknownToolError) or _word(error) in refusals


def as_current(error: MCPServerError) -> RpcError:
    """As the current binding says it."""
    word = _word(error)
    invalid = isinstance(error, (InvalidArgumentsError, UnknownToolError))
    number = INVALID_PARAMS if invalid else _NUMBERS.get(word, INTERNAL_ERROR)
    return RpcError(number, error.message, {"code": word, "retryable": error.retryable})


def as_legacy(error: MCPServerError) -> RpcError:
    """As the legacy binding says it."""
    word, number, message = _word(error), LEGACY_TOOL_ERROR, error.message
    if word in (UNAUTHORIZED, FORBIDDEN):
        number, message = LEGACY_UNAUTHORIZED, f"unauthorized: {message}"
    elif word == RATE_LIMITED:
        number, message = LEGACY_RATE_LIMITED, f"rate_limited: {message}"
    elif isinstance(error, UnknownToolError):
        number = INVALID_PARAMS
    return RpcError(number, message, {"code": word, "retryable": error.retryable})


def from_peer(error: RpcError, what: str) -> MCPServerError:
    """What the other side answered to `what` (a tool, or a method), as near as this side knows it."""
    retryable = isinstance(error.data, dict) and error.data.get("retryable") is True
    word = _symbol(error) or _OLD_WORDS.get(error.code, "")
    if not word:
        return refused("REMOTE_ERROR", f"the peer refused {what}: {error.message[:_MOST_TEXT]}", retryable=retryable)
    return failed_at_peer(word, error.message, what, retryable=retryable or word == RATE_LIMITED)


def failed_at_peer(word: str, message: str, what: str, *, retryable: bool) -> MCPServerError:
    """A failure for which the other side has this word."""
    code = DeadlineExceededError.code if word == TIMEOUT else word
    if code in (ToolExecutionError.code, MCPServerError.code):
        return ToolExecutionError(what, "p2p", message[:_MOST_TEXT])
    return refused(code[:_MOST_WORD], message[:_MOST_TEXT], retryable=retryable)


def _symbol(error: RpcError) -> str:
    """The word that the other side gave; '' = none."""
    said = error.data.get("code") if isinstance(error.data, dict) else None
    return said if isinstance(said, str) else ""


def _word(error: MCPServerError) -> str:
    return TIMEOUT if isinstance(error, DeadlineExceededError) else code_of(error)
