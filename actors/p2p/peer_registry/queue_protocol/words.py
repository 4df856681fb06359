# SPDX-License-Identifier: AGPL-3.0-or-later
"""Errors of the protocol: words in `error` of a reply, and what they are here."""

from __future__ import annotations

from typing import Any, Final

from actors.errors import (
    DeadlineExceededError,
    ForbiddenError,
    InvalidArgumentsError,
    MCPServerError,
    NotFoundError,
    RuntimeUnavailableError,
    UnavailableError,
    code_of,
    from_info,
)
from actors.messages import ErrorInfo

PROTOCOL: Final = "/ipfs-datasets/task-queue/1.0.0"
"""Of the streams."""

FRAME_TOO_LARGE: Final = "frame_too_large"
INVALID_JSON: Final = "invalid_json"
INVALID_MESSAGE: Final = "invalid_message"
UNAUTHORIZED: Final = "unauthorized"
UNKNOWN_OP: Final = "unknown_op"
INTERNAL_ERROR: Final = "internal_error"
MISSING_WORKER_ID: Final = "missing_worker_id"
MISSING_TASK_ID: Final = "missing_task_id"
MISSING_PEER_ID: Final = "missing_peer_id"
MISSING_KEY: Final = "missing_key"
MISSING_TOOL_NAME: Final = "missing_tool_name"
CACHE_DISABLED: Final = "cache_disabled"
TOOLS_DISABLED: Final = "tools_disabled"
NO_REGISTRY: Final = "mcp_registry_unavailable"
TIMEOUT: Final = "timeout"
TASK_MISSING: Final = "task_missing"
STALE_FENCE: Final = "stale_fence"
RATE_LIMITED: Final = "rate_limited"
"""Ours: more was asked than may be."""

_WORDS: Final = {
    "NOT_FOUND": TASK_MISSING,
    "STALE_FENCE": STALE_FENCE,
    "LEASE_EXPIRED": STALE_FENCE,
    "NOT_OWNER": UNAUTHORIZED,
    "FORBIDDEN": UNAUTHORIZED,
    "UNAUTHORIZED": UNAUTHORIZED,
    "INVALID_PARAMS": INVALID_MESSAGE,
    "INVALID_ARGUMENTS": INVALID_MESSAGE,
    "LIMIT_EXCEEDED": INVALID_MESSAGE,
    "DEADLINE_EXCEEDED": TIMEOUT,
    "RATE_LIMITED": RATE_LIMITED,
    "ID_CONFLICT": "id_conflict",
    "INVALID_STATE": "invalid_state",
}
"""For our codes; all others are an internal error."""
_CODES: Final = {
    FRAME_TOO_LARGE: "LIMIT_EXCEEDED",
    INVALID_JSON: InvalidArgumentsError.code,
    INVALID_MESSAGE: InvalidArgumentsError.code,
    UNAUTHORIZED: "UNAUTHORIZED",
    UNKNOWN_OP: UnavailableError.code,
    MISSING_WORKER_ID: InvalidArgumentsError.code,
    MISSING_TASK_ID: InvalidArgumentsError.code,
    MISSING_PEER_ID: InvalidArgumentsError.code,
    MISSING_KEY: InvalidArgumentsError.code,
    MISSING_TOOL_NAME: InvalidArgumentsError.code,
    CACHE_DISABLED: UnavailableError.code,
    TOOLS_DISABLED: ForbiddenError.code,
    NO_REGISTRY: RuntimeUnavailableError.code,
    TIMEOUT: DeadlineExceededError.code,
    TASK_MISSING: NotFoundError.code,
    STALE_FENCE: "STALE_FENCE",
    RATE_LIMITED: "RATE_LIMITED",
    "id_conflict": "ID_CONFLICT",
    "invalid_state": "INVALID_STATE",
}
_RETRYABLE: Final = (NO_REGISTRY, RATE_LIMITED)
_MOST_TEXT: Final = 500


class Refusal(Exception):  # noqa: N818 - a reply, not a fault
    """The request is answered with this word."""

    def __init__(self, word: str, detail: str = "") -> None:
        super().__init__(detail or word)
        self.word = word
        self.detail = detail


def refusal_of(error: MCPServerError) -> Refusal:
    """What a request failed with, in a word of the protocol."""
    word = _WORDS.get(code_of(error), INTERNAL_ERROR)
    return Refusal(word, error.message)


def error_of(reply: dict[str, Any], op: str) -> MCPServerError:
    """What a peer's reply that is not `ok` says."""
    said = reply.get("error")
    word = said[:_MOST_TEXT] if isinstance(said, str) and said else "no reason given"
    detail = reply.get("detail")
    why = f"{word} ({detail[:_MOST_TEXT]})" if isinstance(detail, str) and detail else word
    code = _CODES.get(word, "REMOTE_ERROR")
    return from_info(
        ErrorInfo(code=code, message=f"the peer's queue refused {op}: {why}", retryable=word in _RETRYABLE)
    )
