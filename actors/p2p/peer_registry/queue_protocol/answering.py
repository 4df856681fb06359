# SPDX-License-Identifier: AGPL-3.0-or-later
"""One request of the protocol and its reply, whichever way they travel: the secret, the operation, the errors."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from actors.errors import MCPServerError
from actors.logs import get_logger
from actors.p2p.peer_registry.mcp.answering import Tools, Violation
from actors.p2p.peer_registry.queue_protocol.beside import CacheOps, PeerOps, ToolOp
from actors.p2p.peer_registry.queue_protocol.cache import SharedCache
from actors.p2p.peer_registry.queue_protocol.clock import OwnClock
from actors.p2p.peer_registry.queue_protocol.fields import Request
from actors.p2p.peer_registry.queue_protocol.reach import MayDo, Queue, Reach
from actors.p2p.peer_registry.queue_protocol.sealed import Opener
from actors.p2p.peer_registry.queue_protocol.seen import SeenPeers
from actors.p2p.peer_registry.queue_protocol.tasks import MOST_WAIT_S, TaskOps
from actors.p2p.peer_registry.queue_protocol.words import (
    FRAME_TOO_LARGE,
    INTERNAL_ERROR,
    INVALID_JSON,
    INVALID_MESSAGE,
    TIMEOUT,
    UNAUTHORIZED,
    UNKNOWN_OP,
    Refusal,
    refusal_of,
)
from actors.p2p.peer_registry.queue_protocol.work import WorkOps
from actors.settings_p2p import QueueProtocolSettings

_Operation = Callable[[str, Request], Awaitable[dict[str, Any]]]
_MOST_TOKEN_CHARS: Final = 1000
_CACHE: Final = ("cache.get", "cache.has", "cache.set", "cache.delete")
OTHER_NAMES: Final = {
    "claim_next": "claim",
    "claim_batch": "claim_many",
    "task.complete": "complete",
    "complete_task": "complete",
    "task.release": "release",
    "release_task": "release",
    "heartbeat": "peer.heartbeat",
    "peer": "peer.heartbeat",
    "tasks.list": "list",
    "queue.list": "list",
    "task.cancel": "cancel",
    "capabilities": "status",
    "describe": "status",
    "tool": "call_tool",
    "tool.call": "call_tool",
    "cache_get": "cache.get",
    "cache": "cache.get",
    "cache_has": "cache.has",
    "cache_set": "cache.set",
    "cache_del": "cache.delete",
    "cache_delete": "cache.delete",
}
"""Names of operations besides the first one."""

_decode = msgspec.json.Decoder().decode


class QueueAnswering:
    """See the module's text. One per process."""

    def __init__(
        self,
        peer_id: str,
        queue: Queue,
        may: MayDo,
        settings: QueueProtocolSettings,
        *,
        secret: str | None,
        tools: Tools | None = None,
        violation: Violation | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`peer_id` is this node's. Without a `secret` every request is refused. Without `tools`, there is no
        `call_tool`. `violation` hears of peers that send a wrong token."""
        self._peer_id = peer_id
        self._may = may
        self._secret = secret or None
        self._violation = violation
        self.settings = settings
        clock = OwnClock(peer_id)
        reach = Reach(
            queue,
            may,
            clock=clock,
            opener=Opener(secret or ""),
            timeout_s=settings.request_timeout_s,
            most_bytes=settings.max_message_bytes,
        )
        cache = None
        if settings.cache_entries:
            cache = SharedCache(settings.cache_entries, settings.cache_bytes, now)
        more = (*(("call_tool",) if tools is not None else ()), *(_CACHE if cache is not None else ()))
        tasks, work, tool = TaskOps(reach), WorkOps(reach), ToolOp(tools)
        peers, values = PeerOps(reach, SeenPeers(now), more), CacheOps(cache, may)
        self._operations: dict[str, _Operation] = {
            "submit": tasks.submit,
            "get": tasks.get,
            "wait": tasks.wait,
            "list": tasks.list_,
            "cancel": tasks.cancel,
            "claim": work.claim,
            "claim_many": work.claim_many,
            "complete": work.complete,
            "release": work.release,
            "task.heartbeat": work.beat,
            "peer.heartbeat": peers.heartbeat,
            "status": peers.status,
            "call_tool": tool.call,
            "cache.get": values.get,
            "cache.has": values.has,
            "cache.set": values.set,
            "cache.delete": values.delete,
        }

    async def reply(self, peer_id: str, request: bytes, timeout_s: float | None = None) -> dict[str, Any]:
        """The reply to a request of this peer (JSON text). Raises nothing but cancellation."""
        longest_s = self.settings.request_timeout_s + MOST_WAIT_S
        try:
            with trio.move_on_after(longest_s if timeout_s is None else min(timeout_s, longest_s)):
                members = await self._members(peer_id, request)
                return {"ok": True, "peer_id": self._peer_id, **members}
            refusal = Refusal(TIMEOUT)
        except Refusal as error:
            refusal = error
        except MCPServerError as error:
            refusal = refusal_of(error)
        except Exception as error:  # noqa: BLE001 - nothing that a peer sends may end the stream's owner
            get_logger().error("a peer's request to the queue failed unexpectedly", peer=peer_id, exc_info=error)
            refusal = Refusal(INTERNAL_ERROR, type(error).__name__)
        return self.refused(refusal)

    def refused(self, refusal: Refusal) -> dict[str, Any]:
        """The reply to a request that failed."""
        reply = {"ok": False, "peer_id": self._peer_id, "error": refusal.word}
        return reply | {"detail": refusal.detail} if refusal.detail else reply

    def encoded(self, reply: dict[str, Any]) -> bytes:
        """A reply as it is sent on a stream."""
        line = msgspec.json.encode(reply) + b"\n"
        if len(line) <= self.settings.max_message_bytes:
            return line
        detail = f"the reply has {len(line)} bytes; it may have {self.settings.max_message_bytes}"
        return msgspec.json.encode(self.refused(Refusal(FRAME_TOO_LARGE, detail))) + b"\n"

    async def _members(self, peer_id: str, text: bytes) -> dict[str, Any]:
        try:
            request = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Refusal(INVALID_JSON) from None
        if not isinstance(request, dict):
            raise Refusal(INVALID_MESSAGE, "a request is an object")
        self._authorize(peer_id, request.pop("token", None))
        op = request.get("op")
        if not isinstance(op, str):
            raise Refusal(INVALID_MESSAGE, "op must be text")
        op = op.strip().lower()
        operation = self._operations.get(OTHER_NAMES.get(op, op))
        if operation is None:
            raise Refusal(UNKNOWN_OP)
        return await operation(peer_id, request)

    def _authorize(self, peer_id: str, token: object) -> None:
        if self._secret is None:
            raise Refusal(UNAUTHORIZED, "this node has no shared secret, so nobody can show it")
        given = token if isinstance(token, str) and len(token) <= _MOST_TOKEN_CHARS else ""
        # Surrogates come out of JSON as they are, and have no UTF-8.
        if not hmac.compare_digest(given.encode(errors="replace"), self._secret.encode()):
            if given and self._violation is not None:
                self._violation(peer_id, "a wrong token of the queue protocol")
            raise Refusal(UNAUTHORIZED)
        if not self._may(peer_id, "ask", ""):
            raise Refusal(UNAUTHORIZED, "this peer may not use the queue")
