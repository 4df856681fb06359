# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue of another node that speaks this protocol, on streams of its own or as a tool of its MCP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from actors.errors import (
    DeadlineExceededError,
    MCPServerError,
    OutcomeUnknownError,
    RuntimeUnavailableError,
    UnavailableError,
    UnknownToolError,
    from_info,
)
from actors.messages import ErrorInfo
from actors.p2p.peer_registry.mcp.client import McpClient, OpenStream
from actors.p2p.peer_registry.mcp.legacy import QUEUE_TOOL
from actors.p2p.peer_registry.mcp.rpc import CURRENT_BINDING
from actors.p2p.peer_registry.queue_protocol.lines import LineTooLongError, read_line, write_line
from actors.p2p.peer_registry.queue_protocol.words import error_of
from actors.p2p.peer_registry.stream import StreamBrokenError

Exchange = Callable[[dict[str, Any], float], Awaitable[Any]]
"""Carries a request to the other side, and its reply back, within so many seconds. Raises `MCPServerError`; the outcome
is unknown when the request may have arrived."""
_READING: Final = frozenset({"get", "wait", "list", "status", "cache.get", "cache.has"})
"""Operations that change nothing: without a reply they can be asked again."""
_MOST_BYTES: Final = 1 << 20
"""Of a request and of a reply, as older nodes have it."""
_ANSWERED_S: Final = 5.0
"""How much longer than what the other side waits for its reply is waited for here."""


def over_streams(open_stream: OpenStream, *, most_bytes: int = _MOST_BYTES) -> Exchange:
    """On a stream of this protocol for each request."""

    async def exchange(request: dict[str, Any], timeout_s: float) -> Any:  # noqa: ANN401 - JSON
        line = msgspec.json.encode(request) + b"\n"
        if len(line) > most_bytes:
            raise _too_large(f"the request has {len(line)} bytes; it may have {most_bytes}")
        op = request["op"]
        deadline = trio.current_time() + timeout_s
        stream = None
        try:
            with trio.move_on_at(deadline):
                stream = await open_stream(timeout_s)
                await write_line(stream, line)
                await stream.finish()
                reply = await read_line(stream, most_bytes)
                if reply is None:
                    raise OutcomeUnknownError(f"the peer ended the stream without a reply to {op}")
                return msgspec.json.decode(reply)
        except LineTooLongError:
            raise _too_large(f"the reply to {op} has more than {most_bytes} bytes") from None
        except StreamBrokenError as error:
            raise OutcomeUnknownError(f"the stream broke before the reply to {op}: {error}") from None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise UnavailableError(f"the peer's reply to {op} is not of this protocol") from None
        finally:
            if stream is not None:
                with trio.CancelScope(shield=True):
                    await stream.reset()
        raise DeadlineExceededError(f"the peer's queue did not answer {op} within {timeout_s:g} seconds")

    return exchange


def over_mcp(client: McpClient) -> Exchange:
    """As calls of the tool that nodes with the legacy binding of MCP have for it. Raises `UnavailableError` when the
    other side has no such tool."""

    async def exchange(request: dict[str, Any], timeout_s: float) -> Any:  # noqa: ANN401 - JSON
        deadline = trio.current_time() + timeout_s
        if (await client.connect(timeout_s)).binding == CURRENT_BINDING:
            raise UnavailableError("the peer speaks the current binding of MCP, which has no tool for the queue")
        left = max(0.0, deadline - trio.current_time())
        try:
            value = (await client.call_tool(QUEUE_TOOL, msgspec.json.encode(request), left)).value
        except UnknownToolError as error:
            raise UnavailableError(error.message) from None
        if isinstance(value, str):
            try:
                return msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError):
                raise UnavailableError("the peer's reply is not of this protocol") from None
        return value

    return exchange


def first_of(*exchanges: Exchange) -> Exchange:
    """The first way that the other side has, found out once and kept."""
    left = list(exchanges)

    async def exchange(request: dict[str, Any], timeout_s: float) -> Any:  # noqa: ANN401 - JSON
        deadline = trio.current_time() + timeout_s
        while True:
            way = left[0]
            try:
                return await way(request, max(0.0, deadline - trio.current_time()))
            except UnavailableError:
                if len(left) == 1:
                    raise
                if left[0] is way:
                    del left[0]

    return exchange


class QueueClient:
    """One per peer. Every method raises what the peer refuses with (by code: `UNAUTHORIZED, STALE_FENCE, ...`), what
    the exchange raises, and for what changes something `OutcomeUnknownError` when there is no reply."""

    def __init__(self, exchange: Exchange, secret: str) -> None:
        self._exchange = exchange
        self._secret = secret

    async def ask(self, op: str, within_s: float, /, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Any operation; fields that are None are left out. The reply's members."""
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            reply = await self._exchange({"op": op, "token": self._secret, **given}, within_s)
        except OutcomeUnknownError as error:
            if op in _READING:
                raise RuntimeUnavailableError(error.message) from None
            raise
        if not isinstance(reply, dict) or not isinstance(reply.get("ok"), bool):
            raise UnavailableError(f"the peer's reply to {op} is not of this protocol")
        if not reply["ok"]:
            raise error_of(reply, op)
        return reply

    # --- tasks -----------------------------------------------------------------------------------------------------

    async def submit(
        self,
        task_type: str,
        payload: dict[str, Any],
        *,
        model_name: str = "",
        priority: float | None = None,
        idempotency_key: str | None = None,
        timeout_s: float = 30.0,
    ) -> str:
        """Put a task into the peer's queue: its id."""
        reply = await self.ask(
            "submit", timeout_s, task_type=task_type, model_name=model_name, payload=payload, priority=priority,
            idempotency_key=idempotency_key,
        )  # fmt: skip
        return _text(reply, "task_id")

    async def get(self, task_id: str, *, timeout_s: float = 30.0) -> dict[str, Any] | None:
        """A task; None when there is none for us."""
        return _object_or_none(await self.ask("get", timeout_s, task_id=task_id), "task")

    async def wait(self, task_id: str, wait_s: float) -> dict[str, Any] | None:
        """A task as it is at its end, or when that time is over."""
        reply = await self.ask("wait", wait_s + _ANSWERED_S, task_id=task_id, timeout_s=wait_s)
        return _object_or_none(reply, "task")

    async def list_tasks(
        self, *, status: str = "", limit: int = 50, task_types: list[str] | None = None, timeout_s: float = 30.0
    ) -> list[dict[str, Any]]:
        """Tasks, oldest first."""
        reply = await self.ask("list", timeout_s, status=status or None, limit=limit, task_types=task_types)
        return _objects(reply, "tasks")

    async def cancel(self, task_id: str, *, reason: str = "", timeout_s: float = 30.0) -> bool:
        """Cancel a task; whether it is."""
        return (await self.ask("cancel", timeout_s, task_id=task_id, reason=reason)).get("cancelled") is True

    # --- work ------------------------------------------------------------------------------------------------------

    async def claim(
        self,
        worker_id: str,
        *,
        types: list[str] | None = None,
        session_id: str | None = None,
        request_id: str | None = None,
        timeout_s: float = 30.0,
    ) -> dict[str, Any] | None:
        """A task to work on. With a `request_id` that names this claim, a repeat gives the same task where the peer is
        one of ours."""
        reply = await self.ask(
            "claim", timeout_s, worker_id=worker_id, supported_task_types=types, session_id=session_id,
            idempotency_key=request_id,
        )  # fmt: skip
        return _object_or_none(reply, "task")

    async def claim_many(
        self,
        worker_id: str,
        most: int,
        *,
        types: list[str] | None = None,
        same_type: bool = True,
        request_id: str | None = None,
        timeout_s: float = 30.0,
    ) -> list[dict[str, Any]]:
        """Tasks to work on."""
        reply = await self.ask(
            "claim_many", timeout_s, worker_id=worker_id, max_tasks=most, supported_task_types=types,
            same_task_type=same_type, idempotency_key=request_id,
        )  # fmt: skip
        return _objects(reply, "tasks")

    async def complete(
        self,
        task_id: str,
        *,
        status: str = "completed",
        result: dict[str, Any] | None = None,
        error: str | None = None,
        worker_id: str | None = None,
        fencing_token: int | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Say how a task ended."""
        await self.ask(
            "complete", timeout_s, task_id=task_id, status=status, result=result, error=error, worker_id=worker_id,
            fencing_token=fencing_token,
        )  # fmt: skip

    async def release(
        self,
        task_id: str,
        worker_id: str,
        *,
        reason: str = "",
        fencing_token: int | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Give a task back."""
        await self.ask(
            "release", timeout_s, task_id=task_id, worker_id=worker_id, reason=reason, fencing_token=fencing_token
        )

    async def beat(
        self, task_id: str, worker_id: str, fencing_token: int, *, timeout_s: float = 30.0
    ) -> dict[str, Any]:
        """Keep a task: `lease_until, cancel_requested`. Only peers of ours have this."""
        return await self.ask(
            "task.heartbeat", timeout_s, task_id=task_id, worker_id=worker_id, fencing_token=fencing_token
        )

    # --- all others ------------------------------------------------------------------------------------------------

    async def peer_heartbeat(self, peer_id: str, *, timeout_s: float = 10.0) -> dict[str, Any]:
        """Say that this node (`peer_id`) is there."""
        return await self.ask("peer.heartbeat", timeout_s, peer_id=peer_id)

    async def status(self, *, detail: bool = False, timeout_s: float = 10.0) -> dict[str, Any]:
        """What the peer can, and what is in its queue."""
        return await self.ask("status", timeout_s, detail=detail)

    async def call_tool(self, name: str, arguments: dict[str, Any], *, timeout_s: float = 30.0) -> Any:  # noqa: ANN401
        """Run a tool of the peer: what it gave."""
        reply = await self.ask("call_tool", timeout_s + _ANSWERED_S, tool=name, args=arguments, timeout_s=timeout_s)
        return reply.get("result")

    async def cache_get(self, key: str, *, timeout_s: float = 10.0) -> tuple[bool, Any]:
        """Whether the peer keeps a value, and the value."""
        reply = await self.ask("cache.get", timeout_s, key=key)
        return reply.get("hit") is True, reply.get("value")

    async def cache_has(self, key: str, *, timeout_s: float = 10.0) -> bool:
        """Whether the peer keeps a value."""
        return (await self.ask("cache.has", timeout_s, key=key)).get("hit") is True

    async def cache_set(self, key: str, value: Any, *, ttl_s: float | None = None, timeout_s: float = 10.0) -> None:  # noqa: ANN401
        """Have the peer keep a value."""
        await self.ask("cache.set", timeout_s, key=key, value=value, ttl_s=ttl_s)

    async def cache_delete(self, key: str, *, timeout_s: float = 10.0) -> bool:
        """Have the peer forget a value; whether there was one."""
        return (await self.ask("cache.delete", timeout_s, key=key)).get("deleted") is True


def _too_large(message: str) -> MCPServerError:
    return from_info(ErrorInfo(code="LIMIT_EXCEEDED", message=message))


def _text(reply: dict[str, Any], name: str) -> str:
    value = reply.get(name)
    if not isinstance(value, str):
        raise UnavailableError(f"the peer's reply has no {name}")
    return value


def _object_or_none(reply: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = reply.get(name)
    return value if isinstance(value, dict) else None


def _objects(reply: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = reply.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
