# SPDX-License-Identifier: AGPL-3.0-or-later
"""The operations of those who work: `claim, claim_many, complete, release, task.heartbeat`.

What a worker says of a task counts only for its holder, who is known by the peer at the other end of the stream. With a
fencing token it counts as the queue says; without one only while the lease lives.
"""

from __future__ import annotations

from typing import Any, Final

from actors.messages import ErrorInfo
from actors.p2p.peer_registry.queue_protocol.fields import (
    MOST_TEXT,
    MOST_WORKER_CHARS,
    Request,
    as_object,
    count,
    flag,
    names,
    required,
    text,
    to_json,
    value_of,
)
from actors.p2p.peer_registry.queue_protocol.names import is_of, principal_of, session_need, worker_name
from actors.p2p.peer_registry.queue_protocol.reach import REPLY_ROOM, Reach
from actors.p2p.peer_registry.queue_protocol.rows import claimed
from actors.p2p.peer_registry.queue_protocol.words import (
    INVALID_MESSAGE,
    MISSING_TASK_ID,
    MISSING_WORKER_ID,
    STALE_FENCE,
    TASK_MISSING,
    Refusal,
)
from actors.task_messages import (
    AckCancel,
    Beat,
    Beaten,
    Cancel,
    Claim,
    Claimed,
    Complete,
    Ended,
    Fail,
    Lease,
    Op,
    RegisterWorker,
    Release,
    Task,
    TaskState,
    WorkerInfo,
)

MOST_CLAIMED: Final = 128
_MOST_TASKS: Final = 1000
"""That one worker of a peer may hold at once."""
_MOST_REGISTERED: Final = 1000
"""Workers that are remembered as registered; more are registered again, which changes nothing."""
_ENDS: Final = ("completed", "failed", "cancelled")


class WorkOps:
    """The operations, as methods: the peer and its request give the members of the reply."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._registered: dict[str, None] = {}

    async def claim(self, peer_id: str, request: Request) -> dict[str, Any]:
        """A task for the worker, or null."""
        tasks = await self._claimed(peer_id, request, 1, same_type=False)
        return {"task": tasks[0] if tasks else None}

    async def claim_many(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Tasks for the worker, by default all of one type."""
        most = count(request, "max_tasks", "limit", default=1, most=MOST_CLAIMED)
        same_type = flag(request, "same_task_type", "same_type", default=True)
        return {"tasks": await self._claimed(peer_id, request, most, same_type=same_type)}

    async def complete(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Say how a task ended."""
        task, token = await self._held(peer_id, request, _worker_id(request))
        status = text(request, "status") or "completed"
        error = text(request, "error", most=1 << 20)[:MOST_TEXT]
        result = self._reach.opener.opened(request.get("result"))
        if status == "cancelled" and not task.cancel_requested:
            await self._alive(task.id, token)  # so that nobody else has it in the next moment
        ended = await self._reach.do(_end(task, token, status, result, error), Ended)
        self._reach.clock.tick()
        return {"task_id": task.id, "replayed": True} if ended.replayed else {"task_id": task.id}

    async def release(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Give a task back."""
        worker_id = _worker_id(request)
        if not worker_id:
            raise Refusal(MISSING_WORKER_ID)
        reason = text(request, "reason", most=MOST_TEXT)
        task, token = await self._held(peer_id, request, worker_id)
        await self._reach.do(Release(id=task.id, token=token, reason=reason), Ended)
        self._reach.clock.tick()
        return {"task_id": task.id}

    async def beat(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Keep a task: its lease goes on."""
        worker_id = _worker_id(request)
        if not worker_id:
            raise Refusal(MISSING_WORKER_ID)
        task, token = await self._held(peer_id, request, worker_id)
        beaten = await self._alive(task.id, token)
        return {
            "task_id": task.id,
            "lease_until": beaten.lease_until,
            "cancel_requested": beaten.cancel_requested,
        }

    # --- claims ----------------------------------------------------------------------------------------------------

    async def _claimed(self, peer_id: str, request: Request, n: int, *, same_type: bool) -> list[dict[str, Any]]:
        worker_id = required(request, MISSING_WORKER_ID, "worker_id", most=MOST_WORKER_CHARS)
        session = text(request, "session_id", "session", "p2p_session", most=MOST_WORKER_CHARS)
        key = text(request, "idempotency_key")
        types = await self._reach.types_for(peer_id, names(request, "supported_task_types", "task_types"))
        if not types:
            return []
        worker = worker_name(peer_id, worker_id)
        await self._register(peer_id, worker)
        op = Claim(
            worker=worker,
            types=types,
            capabilities=[session_need(session)] if session else [],
            n=n,
            same_type=same_type,
            request=key,
        )
        leases = await self._reach.whole((await self._reach.do(op, Claimed)).tasks)
        taken = await self._that_fit(leases)
        if taken:
            self._reach.clock.tick()
        return [claimed(lease, worker_id) for lease in taken]

    async def _register(self, peer_id: str, worker: str) -> None:
        """So that the name is the peer's, and nobody else can act by it."""
        if worker in self._registered:
            return
        op = RegisterWorker(worker=worker, owner=principal_of(peer_id), max_tasks=_MOST_TASKS)
        await self._reach.do(op, WorkerInfo)
        self._registered[worker] = None
        if len(self._registered) > _MOST_REGISTERED:
            del self._registered[next(iter(self._registered))]

    async def _that_fit(self, leases: list[Lease]) -> list[Lease]:
        """Those that one reply can carry; the others are given back at once."""
        left = self._reach.most_bytes - REPLY_ROOM
        taken: list[Lease] = []
        surplus: list[Op] = []
        for lease in leases:
            left -= len(lease.payload.encode()) + REPLY_ROOM
            if left < 0:
                why = "the reply had no room for it"
                surplus.append(Release(id=lease.id, token=lease.token, reason=why, counts=False))
            else:
                taken.append(lease)
        if surplus:
            await self._reach.queue.do_all(surplus, timeout_s=self._reach.timeout_s)
        return taken

    # --- leases ----------------------------------------------------------------------------------------------------

    async def _held(self, peer_id: str, request: Request, worker_id: str) -> tuple[Task, int]:
        """The task and the token of the lease that a peer speaks of. Raises `Refusal`."""
        task_id = required(request, MISSING_TASK_ID, "task_id")
        token = value_of(request, "fencing_token")
        if token is not None and (type(token) is not int or token < 1):
            raise Refusal(INVALID_MESSAGE, "fencing_token must be a whole number from 1")
        task = await self._reach.task(task_id)
        if task is None:
            raise Refusal(TASK_MISSING)
        own = task.worker == worker_name(peer_id, worker_id) if worker_id else is_of(task.worker, peer_id)
        if token is not None:
            # A token is a number, not a secret: it counts for the holder alone.
            if not own or task.token != token:
                raise Refusal(STALE_FENCE)
            return task, token
        if not own or task.state != TaskState.LEASED:
            raise Refusal(STALE_FENCE)
        await self._alive(task_id, task.token)
        return task, task.token

    async def _alive(self, task_id: str, token: int) -> Beaten:
        """The lease lives, by the queue's clock, and goes on. Raises what the queue refuses it with."""
        return await self._reach.do(Beat(id=task_id, token=token), Beaten)


def _worker_id(request: Request) -> str:
    return text(request, "worker_id", "assigned_worker", most=MOST_WORKER_CHARS)


def _end(task: Task, token: int, status: str, result: object, error: str) -> Op:
    if status == "completed":
        return Complete(id=task.id, token=token, result=to_json(as_object(result, "result")))
    if status == "cancelled":
        if task.cancel_requested:
            return AckCancel(id=task.id, token=token)
        return Cancel(id=task.id, reason=error, force=True)
    return Fail(id=task.id, token=token, error=ErrorInfo(code="TASK_FAILED", message=error or status))
