# SPDX-License-Identifier: AGPL-3.0-or-later
"""The errors that cross a border: what a caller of a tool or an actor may have to handle.

Each has a stable `code`, says whether the same request may succeed later (`retryable`), and keeps what a program
needs in fields. The message says what happened and what to do. `to_info` and `from_info` carry them over a channel;
an exception of any other type is never shown to a caller in full (it may hold secrets): it becomes `INTERNAL`.
"""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from actors.messages import ErrorInfo


class MCPServerError(Exception):
    """Base of all errors that Greenroom raises on purpose. Catch it at a border to answer in kind."""

    code: ClassVar[str] = "INTERNAL"
    retryable: bool = False

    def __init__(self, message: str, *, retryable: bool | None = None, **details: Any) -> None:  # noqa: ANN401
        super().__init__(message)
        self.details: dict[str, Any] = details
        if retryable is not None:
            self.retryable = retryable

    @property
    def message(self) -> str:
        """What happened and what to do."""
        return str(self)


class ToolExecutionError(MCPServerError):
    """The tool ran and failed: `tool_name` on `runtime`, because of `cause` (the text of the tool's own error)."""

    code = "TOOL_FAILED"

    def __init__(self, tool_name: str, runtime: str, cause: BaseException | str, **details: Any) -> None:  # noqa: ANN401
        self.tool_name = tool_name
        self.runtime = runtime
        self.cause = cause
        super().__init__(
            f"Tool {tool_name} failed on {runtime} runtime: {cause}", tool=tool_name, runtime=runtime, **details
        )


class RuntimeUnavailableError(MCPServerError):
    """The part of the tree that this call needs is off, failed or not reachable in time. Others work on."""

    code = "RUNTIME_UNAVAILABLE"
    retryable = True


class UnknownToolError(MCPServerError):
    """No tool has this name."""

    code = "UNKNOWN_TOOL"


class NotFoundError(MCPServerError):
    """No resource has this URI, or no prompt this name."""

    code = "NOT_FOUND"


class InvalidArgumentsError(MCPServerError):
    """The arguments do not fit the tool's schema; the message names the parameter."""

    code = "INVALID_ARGUMENTS"


class BusyError(MCPServerError):
    """A bound was reached: nothing was started. Try again after a moment."""

    code = "BUSY"
    retryable = True


class RateLimitedError(MCPServerError):
    """The caller asked for more than its share: nothing was started. Try again after `retry_after_s` seconds (among
    the details)."""

    code = "RATE_LIMITED"
    retryable = True


class DrainingError(BusyError):
    """A process is about to end or out of service: nothing was started. The way of a call tries another one."""

    code = "DRAINING"


class DeadlineExceededError(MCPServerError):
    """The time for the call ran out; it was cancelled."""

    code = "DEADLINE_EXCEEDED"


class OutcomeUnknownError(MCPServerError):
    """The process that ran the call ended before it answered. The call may or may not have taken effect."""

    code = "OUTCOME_UNKNOWN"


class ActorDiedError(OutcomeUnknownError):
    """The connection to an actor ended while a call was open on it. `sent` tells whether the call had left."""

    code = "ACTOR_DIED"

    def __init__(self, actor: str, incarnation: int, *, sent: bool) -> None:
        self.actor = actor
        self.incarnation = incarnation
        self.sent = sent
        super().__init__(f"{actor} (incarnation {incarnation}) ended during the call", actor=actor)


class UnavailableError(MCPServerError):
    """Something outside that the tool needs (a program, a library, a network) is missing; the message names it."""

    code = "UNAVAILABLE"


class PeerUnreachableError(MCPServerError):
    """The peer can't be reached: nobody answers there, it refused, or the connection with it has just ended."""

    code = "PEER_UNREACHABLE"
    retryable = True


class PeerIdMismatchError(MCPServerError):
    """Another peer than the expected one is at this address. Its address is out of date, or somebody poses as it."""

    code = "PEER_ID_MISMATCH"


class ForbiddenError(MCPServerError):
    """Not allowed by configuration: a path outside the roots, a private address, a switched-off feature."""

    code = "FORBIDDEN"


class CannotAskError(MCPServerError):
    """The client can't be asked this: it has not declared the capability, or its request can carry no question.

    `details["capabilities"]` is what it would have to declare, as MCP writes it.
    """

    code = "CANNOT_ASK"


class NoAnswerError(MCPServerError):
    """The client was asked and gave no usable answer: it refused, was too slow, or answered something else."""

    code = "NO_ANSWER"


class UrlRequiredError(MCPServerError):
    """The user has to visit `url` before the call can work. Raise it, and the client shows `message` and the address.

    `elicitation_id` names the visit, for `ToolContext.elicitation_complete`; one is made when none is given.
    """

    code = "URL_REQUIRED"

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        elicitation_id: str = "",
        retryable: bool | None = None,
        **details: Any,  # noqa: ANN401
    ) -> None:
        self.url = url
        self.elicitation_id = elicitation_id or secrets.token_urlsafe(12)
        super().__init__(message, retryable=retryable, url=url, elicitation_id=self.elicitation_id, **details)


class QuarantinedError(MCPServerError):
    """This tool with these arguments ended processes again and again; refused until an operator releases it."""

    code = "QUARANTINED"


class BreakerOpenError(MCPServerError):
    """The tool ended processes again and again; refused for `retry_after_s` seconds (among the details)."""

    code = "BREAKER_OPEN"
    retryable = True


class RemoteError(MCPServerError):
    """An error from the other side whose code this side has no class for."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message, retryable=info.retryable, **info.details)
        self.remote_code = info.code


_BY_CODE: dict[str, type[MCPServerError]] = {
    kind.code: kind
    for kind in (
        RuntimeUnavailableError,
        UnknownToolError,
        NotFoundError,
        InvalidArgumentsError,
        BusyError,
        RateLimitedError,
        DrainingError,
        DeadlineExceededError,
        OutcomeUnknownError,
        UnavailableError,
        PeerUnreachableError,
        PeerIdMismatchError,
        ForbiddenError,
        CannotAskError,
        NoAnswerError,
        UrlRequiredError,
        QuarantinedError,
        BreakerOpenError,
    )
}


def code_of(error: BaseException) -> str:
    """The stable code of any exception."""
    if isinstance(error, RemoteError):
        return error.remote_code
    return error.code if isinstance(error, MCPServerError) else MCPServerError.code


def to_info(error: BaseException) -> ErrorInfo:
    """Make an error fit to cross a border. A foreign exception shows its type only."""
    if not isinstance(error, MCPServerError):
        return ErrorInfo(
            code="INTERNAL", message=f"internal error ({type(error).__name__}); the server's log has the details"
        )
    return ErrorInfo(code=code_of(error), message=error.message, retryable=error.retryable, details=error.details)


def from_info(info: ErrorInfo) -> MCPServerError:
    """The exception that `to_info` was given, as near as this side knows it."""
    if info.code == ToolExecutionError.code:
        return _tool_error(info)
    kind = _BY_CODE.get(info.code)
    if kind is None:
        return RemoteError(info)
    return kind(info.message, retryable=info.retryable, **info.details)


def _tool_error(info: ErrorInfo) -> ToolExecutionError:
    details = dict(info.details)
    tool, runtime = str(details.pop("tool", "?")), str(details.pop("runtime", "?"))
    cause = info.message.removeprefix(f"Tool {tool} failed on {runtime} runtime: ")
    return ToolExecutionError(tool, runtime, cause, **details)
