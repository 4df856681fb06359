# SPDX-License-Identifier: AGPL-3.0-or-later
"""The operations of those who submit tasks: `submit, get, wait, list, cancel`."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from actors.errors import MCPServerError, code_of
from actors.p2p.peer_registry.queue_protocol.fields import (
    MOST_TEXT,
    Request,
    as_object,
    count,
    hint,
    names,
    number,
    required,
    text,
    to_json,
)
from actors.p2p.peer_registry.queue_protocol.names import principal_of, session_need, worker_name
from actors.p2p.peer_registry.queue_protocol.reach import REPLY_ROOM, Reach
from actors.p2p.peer_registry.queue_protocol.rows import row
from actors.p2p.peer_registry.queue_protocol.words import INVALID_MESSAGE, MISSING_TASK_ID, UNAUTHORIZED, Refusal
from actors.task_messages import PRIORITY_DEFAULT, Cancel, Ended, Enqueue, Status, Submitted, Task, TaskState
from actors.task_views import GetTask, ScanTasks

MOST_WAIT_S: Final = 60.0
"""The longest that a reply is held back; a longer wish is shortened."""
_DEFAULT_TYPE: Final = "text-generation"
_MOST_LISTED: Final = 1000
_SESSION: Final = ("session_id", "session", "p2p_session")


class TaskOps:
    """The operations, as methods: the peer and its request give the members of the reply."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def submit(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Put a task into the queue. With an `idempotency_key` a repeat gives the same task."""
        task_type = text(request, "task_type") or _DEFAULT_TYPE
        if not self._reach.may_submit(peer_id, task_type):
            raise Refusal(UNAUTHORIZED, f"tasks of type {task_type!r} are not taken from this peer")
        payload = as_object(self._reach.opener.opened(request.get("payload")), "payload")
        session, sticky = hint(payload, *_SESSION), hint(payload, "sticky_worker_id")
        op = Enqueue(
            type=task_type,
            model_name=text(request, "model_name"),
            payload=to_json(payload),
            owner=principal_of(peer_id),
            fairness_key=principal_of(peer_id),
            key=text(request, "idempotency_key"),
            priority=number(request, "priority", default=PRIORITY_DEFAULT, least=1, most=10),
            needs=[session_need(session)] if session else [],
            sticky_worker=worker_name(peer_id, sticky) if sticky else "",
        )
        made = await self._reach.do(op, Submitted)
        self._reach.clock.tick()
        return {"task_id": made.id, "replayed": True} if made.replayed else {"task_id": made.id}

    async def get(self, peer_id: str, request: Request) -> dict[str, Any]:
        """A task, or null."""
        return await self._shown(peer_id, required(request, MISSING_TASK_ID, "task_id"))

    async def wait(self, peer_id: str, request: Request) -> dict[str, Any]:
        """A task as it is at its end, or when the time is over."""
        task_id = required(request, MISSING_TASK_ID, "task_id")
        wait_s = min(MOST_WAIT_S, number(request, "timeout_s", default=60.0, least=0, most=1e9))
        task = await self._reach.task(task_id)
        if task is not None and wait_s and self._reach.may_see(peer_id, task):
            await self._reach.queue.get(GetTask(id=task_id, wait_s=wait_s), timeout_s=self._reach.timeout_s)
        return await self._shown(peer_id, task_id)

    async def list_(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Tasks that the peer submitted or may take, oldest first, as many as one reply can carry."""
        status = text(request, "status")
        if status and status not in get_args(Status):
            raise Refusal(INVALID_MESSAGE, f"status must be one of {', '.join(get_args(Status))}")
        limit = count(request, "limit", default=50, most=_MOST_LISTED)
        types = names(request, "task_types")
        ask = ScanTasks(
            status=msgspec.convert(status or None, Status | None), types=types, oldest_first=True, limit=limit
        )
        found = await self._scan(msgspec.structs.replace(ask, owner=principal_of(peer_id)))
        if open_types := await self._reach.types_for(peer_id, types):
            found |= await self._scan(msgspec.structs.replace(ask, types=open_types))
        oldest = sorted(found.values(), key=lambda task: (task.created_at, task.id))[:limit]
        return await self._rows(peer_id, oldest)

    async def cancel(self, peer_id: str, request: Request) -> dict[str, Any]:
        """Cancel a task that the peer submitted. A running one is told to stop, and is not cancelled yet."""
        task_id = required(request, MISSING_TASK_ID, "task_id")
        reason = text(request, "reason", most=MOST_TEXT)
        task = await self._reach.task(task_id)
        if task is None or task.owner != principal_of(peer_id):
            return {"cancelled": False}
        try:
            ended = await self._reach.do(Cancel(id=task_id, reason=reason), Ended)
        except MCPServerError as error:
            if code_of(error) in ("INVALID_STATE", "NOT_FOUND"):
                return {"cancelled": False}
            raise
        self._reach.clock.tick()
        running = ended.state == TaskState.LEASED
        return {"cancelled": not running, "cancel_requested": True} if running else {"cancelled": True}

    async def _shown(self, peer_id: str, task_id: str) -> dict[str, Any]:
        task = await self._reach.task(task_id)
        visible = task is not None and self._reach.may_see(peer_id, task)
        return {"task": row(task, peer_id) if task is not None and visible else None}

    async def _scan(self, ask: ScanTasks) -> dict[str, Task]:
        page = await self._reach.queue.scan(ask, timeout_s=self._reach.timeout_s)
        return {task.id: task for task in page.tasks}

    async def _rows(self, peer_id: str, tasks: list[Task]) -> dict[str, Any]:
        rows: list[msgspec.Raw] = []
        left = self._reach.most_bytes - REPLY_ROOM
        for summary in tasks:
            task = await self._reach.task(summary.id)
            if task is None:
                continue
            shown = msgspec.json.encode(row(task, peer_id))
            left -= len(shown) + 1
            if left < 0:
                return {"tasks": rows, "truncated": True}
            rows.append(msgspec.Raw(shown))
        return {"tasks": rows}
