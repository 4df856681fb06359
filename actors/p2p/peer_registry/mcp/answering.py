# SPDX-License-Identifier: AGPL-3.0-or-later
"""What both dialects answer with: the tools that a peer may see and call, once it has shown that it may ask at all.

How tools are found and run, and who may, is given from outside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import msgspec
import trio
from msgspec import UNSET

from actors.errors import DeadlineExceededError, MCPServerError, code_of
from actors.p2p.peer_registry.mcp.failures import RATE_LIMITED, UNAUTHORIZED, refused
from actors.p2p.peer_registry.mcp.profiles import TRANSPORT, Profiles
from actors.p2p.peer_registry.mcp.rpc import INVALID_PARAMS, Meta, Params, RpcError
from actors.settings_p2p import PeerMcpSettings
from actors.tool_messages import ToolDescriptor, ToolResult

MOST_TOKEN_CHARS: Final = 1000
LISTED_BYTES: Final = 256 * 1024
"""Of the tools on one page of a list, at most."""


class Tools(Protocol):
    """The tools of this node, as peers may use them."""

    def list(self, peer_id: str) -> Sequence[ToolDescriptor]:
        """Those that this peer may call."""
        ...

    async def call(self, peer_id: str, name: str, arguments: bytes, timeout_s: float) -> ToolResult:
        """Run one; `arguments` is a JSON object. Raises `MCPServerError`: `UnknownToolError` also for a tool that this
        peer may not see."""
        ...


CheckToken = Callable[[str, str], None]
"""Of a token and the peer that sent it: raises `MCPServerError` when it proves nothing."""
QueueRpc = Callable[[str, bytes, float], Awaitable[dict[str, object]]]
"""Answers a request of the queue protocol: the peer, the request (a JSON object), seconds that it may take."""
Violation = Callable[[str, str], None]
"""Hears of a peer that does not keep to the rules, and of the rule."""


class ServerFace(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers."""

    peer_id: str
    name: str
    version: str
    profiles: Profiles = msgspec.field(default_factory=lambda: {TRANSPORT: {}})
    """What is offered of MCP++, and what is said of each."""

    def info(self) -> dict[str, object]:
        """For MCP."""
        return {"name": self.name, "version": self.version}


class Answering:
    """What a request is answered with. One per process."""

    def __init__(
        self,
        tools: Tools,
        face: ServerFace,
        settings: PeerMcpSettings,
        *,
        check_token: CheckToken | None = None,
        queue: QueueRpc | None = None,
        violation: Violation | None = None,
    ) -> None:
        """Without `check_token` no secret is configured, and nobody has to show a token. Without `queue` there is no
        tool `task_queue.rpc`. `violation` hears of peers whose token was made without the secret, or for others."""
        self.tools = tools
        self.face = face
        self.settings = settings
        self.queue = queue
        self._check_token = check_token
        self._violation = violation

    def authorize(self, peer_id: str, meta: Meta | None) -> None:
        """Raise UNAUTHORIZED when a token is needed and this request has none that is good."""
        if self._check_token is None:
            return
        token = meta.token if meta is not None else UNSET
        if type(token) is not str or len(token) > MOST_TOKEN_CHARS:
            raise refused(UNAUTHORIZED, "each request needs a token here, in params._meta")
        try:
            self._check_token(token, peer_id)
        except MCPServerError as error:
            if code_of(error) == RATE_LIMITED:
                raise
            # One that is too old, or was used before, may be a mistake: another try is welcome.
            if not error.retryable and self._violation is not None:
                self._violation(peer_id, "a call token that does not prove the shared secret")
            raise refused(UNAUTHORIZED, error.message, retryable=error.retryable) from None

    async def call(self, peer_id: str, params: Params) -> ToolResult:
        """Run the tool that a request names. Raises `RpcError` and what the tool raises."""
        name, arguments = called(params)
        timeout_s = self.settings.request_timeout_s
        with in_time(timeout_s, name):
            return await self.tools.call(peer_id, name, arguments, timeout_s)

    def limits(self) -> dict[str, object]:
        """What is published of the limits here."""
        ours = self.settings
        return {
            "max_frame_bytes": ours.max_frame_bytes,
            "max_streams": ours.max_streams,
            "max_requests": ours.max_requests,
            "rate_capacity": ours.burst,
            "rate_refill_per_sec": ours.rate_per_s,
        }


def called(params: Params) -> tuple[str, bytes]:
    """The tool and the arguments of `tools/call`. Raises `RpcError`."""
    if type(params.name) is not str or not params.name:
        raise RpcError(INVALID_PARAMS, "params.name must be the name of a tool")
    arguments = bytes(params.arguments)
    if arguments in (b"", b"null"):
        arguments = b"{}"
    if not arguments.startswith(b"{"):
        raise RpcError(INVALID_PARAMS, "params.arguments must be an object")
    return params.name, arguments


def cursor_of(params: Params) -> str:
    """After which tool a list goes on; '' = from its beginning. Raises `RpcError`."""
    if params.cursor is UNSET or params.cursor is None:
        return ""
    if type(params.cursor) is not str:
        raise RpcError(INVALID_PARAMS, "params.cursor must be what a list gave as nextCursor")
    return params.cursor


@contextmanager
def in_time(timeout_s: float, what: str) -> Generator[None, None, None]:
    """Raise `DeadlineExceededError` when it takes longer."""
    with trio.move_on_after(timeout_s) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineExceededError(f"{what[:200]} took longer than {timeout_s:g} seconds and was cancelled")
