# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the parts of the protocol share: a request on its way (`Exchange`), the gateway's way to tools (`Backend`), and
`Core`, which runs handlers and turns what they return or raise into answers.

A handler is an async function from an `Exchange` to the JSON of its result, or to a whole answer. A method exists in an
era when that era's table (method -> handler) has it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import trio

from actors.catalogue_view import CatalogueView
from actors.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    error_message,
    result_message,
)
from actors.settings import Settings
from actors.task_messages import Answer_, Op
from actors.task_views import GetTask, ScanTasks, TaskPage, TaskView
from actors.tool_messages import ToolCall, ToolItem, ToolResult
from gateway.mcp.eras import E
from gateway.mcp.http import JSON_HEADERS, NO_HEADERS
from gateway.mcp.jsonrpc import HEADER_MISMATCH, MISSING_CAPABILITY, Frame, McpError
from gateway.mcp.sessions import Session
from gateway.mcp.shaping import Shaper
from gateway.types import Answer, Respondent, Stream

_log = logging.getLogger(__name__)

_MODERN_STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""Error code -> HTTP status at revision E; all others are 200."""


CAPABILITIES: Final[dict[str, object]] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "prompts": {"listChanged": True},
    "completions": {},
}
"""What is served in all eras (completions from 2025-03-26 on), also while nothing of a kind is declared."""


class Backend(Protocol):
    """The gateway's way to tools. Calls end by their deadline: nothing here watches over that a second time."""

    @property
    def catalogue(self) -> CatalogueView:
        """May be another object after each change."""
        ...

    async def call(
        self,
        call: ToolCall,
        *,
        timeout_s: float,
        on_item: Callable[[ToolItem], None] | None,
        respondent: Respondent | None = None,
    ) -> ToolResult:
        """Run a tool, or what a call of another kind is for; `respondent` answers its questions. Raises
        `actors.errors.MCPServerError`. Cancelling it cancels the tool."""
        ...


A = TypeVar("A", bound=Answer_)


class Tasks(Protocol):
    """The gateway's way to the task queue (`actors.task_client` says what each does)."""

    @property
    def there(self) -> bool:
        """Whether tasks can be made now: the queue and its worker are part of this system, or will be again soon."""
        ...

    async def do(self, op: Op, answer: type[A], *, timeout_s: float = 30.0) -> A:
        """One operation."""
        ...

    async def get(self, ask: GetTask, *, timeout_s: float = 30.0) -> TaskView | None:
        """One task."""
        ...

    async def scan(self, ask: ScanTasks, *, timeout_s: float = 30.0) -> TaskPage:
        """Some tasks."""
        ...

    async def watch(self, on_changed: Callable[[list[str]], None]) -> None:
        """Tell which tasks change; [] = any may have."""
        ...


class Exchange:
    """One request on its way through the protocol."""

    __slots__ = ("body", "frame", "id_json", "may_stream", "principal", "revision", "session")

    def __init__(
        self,
        principal: str,
        frame: Frame,
        body: bytes,
        *,
        id_json: bytes,
        revision: int,
        session: Session | None,
        may_stream: bool,
    ) -> None:
        self.principal = principal
        """Who asks; '' when nobody had to say."""
        self.frame = frame
        self.body = body
        """This message alone: an element of the array in a batch."""
        self.id_json = id_json
        self.revision = revision
        self.session = session
        """None at revision E."""
        self.may_stream = may_stream
        """Whether the answer may be SSE."""


Handler = Callable[[Exchange], Awaitable[bytes | Answer | Stream]]


class Core:
    """Shared state of one gateway's protocol."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        server_info: dict[str, object],
        instructions: str,
        secret: bytes,
        new_call_id: Callable[[], str],
    ) -> None:
        self.settings = settings
        self.backend = backend
        self.server_info = server_info
        self.instructions = instructions
        self.secret = secret
        self.new_call_id = new_call_id
        self.shapers = [Shaper(revision, server_info) for revision in range(E + 1)]
        self.nursery: trio.Nursery | None = None
        """Holds the tasks of live calls; set while the protocol is running."""
        self.shielded: set[trio.CancelScope] = set()
        """Calls that outlive a disconnect; cancelled when the gateway stops."""

    async def respond(self, exchange: Exchange, handler: Handler) -> Answer | Stream:
        """Run a handler. Never raises but for cancellation."""
        try:
            result = await handler(exchange)
        except McpError as error:
            return self.error(exchange.id_json, error, exchange.revision)
        except Exception:  # noqa: BLE001 - the border: a bug costs one request
            _log.exception("MCP method %s failed", exchange.frame.method)
            failure = McpError(INTERNAL_ERROR, "internal error; the server's log has the details")
            return self.error(exchange.id_json, failure, exchange.revision)
        if isinstance(result, bytes):
            return Answer(200, JSON_HEADERS, result_message(exchange.id_json, result))
        return result

    def cancelled(self, id_json: bytes) -> Answer:
        """The answer to a call that ended by cancellation: nothing, or an error when it was not the client's wish."""
        return Answer(202, NO_HEADERS, b"") if self.nursery is not None else self.stopping(id_json)

    @staticmethod
    def stopping(id_json: bytes) -> Answer:
        """The answer to what the gateway could not bring to an end."""
        error = McpError(INTERNAL_ERROR, "the gateway is stopping; whether the call took effect is unknown")
        return Answer(503, JSON_HEADERS, error_message(id_json, error))

    @staticmethod
    def error(id_json: bytes, error: McpError, revision: int) -> Answer:
        """An error as an answer, with the HTTP status of its era."""
        status = error.status
        if status is None:
            status = _MODERN_STATUS.get(error.code, 200) if revision == E else 200
        return Answer(status, JSON_HEADERS, error_message(id_json, error))
