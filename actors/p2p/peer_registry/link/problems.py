# SPDX-License-Identifier: AGPL-3.0-or-later
"""Errors on their way to a peer and from it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from actors.errors import (
    BusyError,
    DeadlineExceededError,
    DrainingError,
    ForbiddenError,
    InvalidArgumentsError,
    MCPServerError,
    NotFoundError,
    OutcomeUnknownError,
    QuarantinedError,
    RemoteError,
    RuntimeUnavailableError,
    ToolExecutionError,
    UnavailableError,
    UnknownToolError,
    from_info,
    to_info,
)
from actors.messages import ErrorInfo
from actors.p2p.peer_registry.link.messages import Problem

_MOST_MESSAGE: Final = 2000
_MOST_DETAILS: Final = 4096
_TAKEN: Final = frozenset(
    kind.code
    for kind in (
        BusyError,
        DeadlineExceededError,
        DrainingError,
        ForbiddenError,
        InvalidArgumentsError,
        NotFoundError,
        OutcomeUnknownError,
        QuarantinedError,
        RuntimeUnavailableError,
        ToolExecutionError,
        UnavailableError,
        UnknownToolError,
    )
)
"""Codes that become exceptions of their own. Not among them are those that make this side do something, such as sending
the user to an address."""


def problem_of(error: BaseException) -> Problem:
    """An error as a peer is told of it; of one that was not raised on purpose it learns the type only. What is too long
    is cut."""
    info = to_info(error)
    details = b""
    if info.details:
        try:
            details = msgspec.json.encode(info.details)
        except (TypeError, ValueError, RecursionError):
            details = b""
    shown = details.decode() if len(details) <= _MOST_DETAILS else ""
    return Problem(info.code[:64] or "INTERNAL", info.message[:_MOST_MESSAGE], info.retryable, shown)


def error_of(problem: Problem) -> MCPServerError:
    """A peer's problem as an exception; whatever the peer says, this makes one."""
    details: dict[str, Any] = {}
    if problem.details:
        try:
            details = msgspec.json.decode(problem.details, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            details = {}
    info = ErrorInfo(code=problem.code, message=problem.message, retryable=problem.retryable)
    if problem.code == ToolExecutionError.code:
        named = {name: str(details[name]) for name in ("tool", "runtime") if name in details}
        error = from_info(msgspec.structs.replace(info, details=named))
    else:
        error = from_info(info) if problem.code in _TAKEN else RemoteError(info)
    error.details = details  # not by from_info: it takes names of details for those of its parameters
    return error
