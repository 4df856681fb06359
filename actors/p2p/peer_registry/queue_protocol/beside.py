# SPDX-License-Identifier: AGPL-3.0-or-later
"""The operations beside the queue: who is here (`peer.heartbeat, status`), tools (`call_tool`), values (`cache.*`)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from actors.errors import MCPServerError, RuntimeUnavailableError
from actors.p2p.peer_registry.mcp.answering import Tools, in_time
from actors.p2p.peer_registry.queue_protocol.cache import MOST_KEY_CHARS, SharedCache
from actors.p2p.peer_registry.queue_protocol.fields import (
    Request,
    as_object,
    flag,
    number,
    required,
    value_of,
)
from actors.p2p.peer_registry.queue_protocol.names import is_of, shown_worker
from actors.p2p.peer_registry.queue_protocol.reach import MayDo, Reach
from actors.p2p.peer_registry.queue_protocol.seen import SeenPeers
from actors.p2p.peer_registry.queue_protocol.words import (
    CACHE_DISABLED,
    INTERNAL_ERROR,
    INVALID_MESSAGE,
    MISSING_KEY,
    MISSING_PEER_ID,
    MISSING_TOOL_NAME,
    NO_REGISTRY,
    TOOLS_DISABLED,
    UNAUTHORIZED,
    Refusal,
    refusal_of,
)

MOST_TOOL_S: Final = 60.0
"""Time for a tool, at most; a longer wish is shortened."""
_MOST_TTL_S: Final = 30 * 86400.0
CAPABILITIES: Final = ("submit", "claim", "claim_many", "complete", "release", "task.heartbeat", "peer.heartbeat",
                       "list", "cancel", "get", "wait", "status")  # fmt: skip
"""Operations that are always there."""


class PeerOps:
    """Who is here."""

    def __init__(self, reach: Reach, seen: SeenPeers, more: tuple[str, ...]) -> None:
        """`more`: operations that are there besides."""
        self._reach = reach
        self._seen = seen
        self._capabilities = [*CAPABILITIES, *more]

    async def heartbeat(self, peer_id: str, request: Request) -> dict[str, Any]:
        """A sign of life: of the peer at the other end of the stream, whomever it names."""
        named = value_of(request, "peer", "peer_id")
        if named is not None and (not isinstance(named, str) or not named.strip()):
            raise Refusal(MISSING_PEER_ID)
        self._seen.add(peer_id)
        return {"peer": peer_id, "scheduler": self._scheduler()}

    async def status(self, peer_id: str, request: Request) -> dict[str, Any]:
        """What this node can; with `detail`, what is in its queue. What is not known is null."""
        shown: dict[str, Any] = {"capabilities": self._capabilities, "nat": {"autonat": None}, "session": None}
        if not flag(request, "detail", default=False):
            return shown
        stats = await self._reach.queue.stats(timeout_s=self._reach.timeout_s)
        own = [shown_worker(worker.worker, peer_id) for worker in stats.workers if is_of(worker.worker, peer_id)]
        local = [worker for worker in stats.workers if worker.internal and worker.status != "offline"]
        return shown | {
            "queue": {
                "queued": stats.counts.get("queued", 0),
                "running": stats.counts.get("running", 0),
                "queued_by_type": _by_type(stats.by_type, "queued"),
                "running_by_type": _by_type(stats.by_type, "running"),
            },
            "scheduler": self._scheduler() | {"known_workers": own, "counts": stats.counts},
            "local_worker": {
                "enabled": bool(local),
                "docker_enabled": False,
                "supported_task_types": sorted({type_ for worker in local for type_ in worker.types}),
            },
        }

    def _scheduler(self) -> dict[str, Any]:
        return {"clock": self._reach.clock.shown(), "known_peers": self._seen.shown()}


class ToolOp:
    """Tools, where peers may call them."""

    def __init__(self, tools: Tools | None) -> None:
        self._tools = tools

    async def call(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Run a tool."""
        if self._tools is None:
            raise Refusal(TOOLS_DISABLED)
        name = required(request, MISSING_TOOL_NAME, "tool", "tool_name", "name")
        arguments = as_object(value_of(request, "args", "arguments", "params"), "value")
        timeout_s = min(MOST_TOOL_S, number(request, "timeout_s", default=30.0, least=0.001, most=1e9))
        try:
            with in_time(timeout_s, name):
                result = await self._tools.call(peer_id, name, msgspec.json.encode(arguments), timeout_s)
        except RuntimeUnavailableError as error:
            raise Refusal(NO_REGISTRY, error.message) from None
        except MCPServerError as error:
            said = refusal_of(error)
            # Words for faults of the request itself would speak of another request.
            raise Refusal(INTERNAL_ERROR if said.word == INVALID_MESSAGE else said.word, said.detail) from None
        if result.is_error:
            raise Refusal(INTERNAL_ERROR, result.value.decode()[:2000])
        return {"tool": name, "result": msgspec.Raw(result.value)}


class CacheOps:
    """Values, where they are kept for peers."""

    def __init__(self, cache: SharedCache | None, may: MayDo) -> None:
        self._cache = cache
        self._may = may

    async def get(self, peer_id: str, request: Request) -> dict[str, Any]:
        """A value."""
        cache, key = self._asked(peer_id, request)
        hit, value = cache.get(key)
        return {"key": key, "hit": hit, "value": value}

    async def has(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Whether there is a value."""
        cache, key = self._asked(peer_id, request)
        return {"key": key, "hit": cache.get(key)[0]}

    async def set(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Keep a value here; it is not forwarded, whatever `replicate` says."""
        cache, key = self._asked(peer_id, request)
        ttl_s = None
        if request.get("ttl_s") is not None:
            ttl_s = number(request, "ttl_s", default=0, least=0, most=_MOST_TTL_S)
        flag(request, "replicate", default=False)
        if not cache.set(key, request.get("value"), ttl_s):
            raise Refusal(INVALID_MESSAGE, f"a value may have {cache.most_value_bytes} bytes with its key")
        return {"key": key}

    async def delete(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Forget a value."""
        cache, key = self._asked(peer_id, request)
        return {"key": key, "deleted": cache.delete(key)}

    def _asked(self, peer_id: str, request: Request) -> tuple[SharedCache, str]:
        if self._cache is None:
            raise Refusal(CACHE_DISABLED)
        key = required(request, MISSING_KEY, "key", most=MOST_KEY_CHARS)
        if not self._may(peer_id, "cache", key):
            raise Refusal(UNAUTHORIZED, "this key is not for this peer")
        return self._cache, key


def _by_type(by_type: dict[str, dict[str, int]], status: str) -> dict[str, int]:
    return {type_: counts[status] for type_, counts in by_type.items() if counts.get(status)}
