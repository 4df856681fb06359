# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue under the names by which programs written for other MCP++ servers know it: thin adapters, off by default.

They answer `ok` instead of `success`. They reach this node's queue only: an address of another node is refused, not
ignored. These names know no fencing token: a task counts as its holder's while the lease lives.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from actors.errors import UnavailableError
from actors.messages import ErrorInfo
from actors.p2p.task_queue.tools_access import Access, to_json
from actors.p2p.task_queue.tools_leases import LEASE_BYTES, ClaimedTask, claimed_task
from actors.p2p.task_queue.tools_links import with_values
from actors.p2p.task_queue.tools_shown import output_of
from actors.task_messages import (
    Beat,
    Beaten,
    Cancel,
    Claim,
    Claimed,
    Complete,
    Ended,
    Enqueue,
    Fail,
    Op,
    RegisterWorker,
    Status,
    Submitted,
    Task,
    TaskState,
    WorkerInfo,
    status_of,
)
from actors.task_views import GetTask, ScanTasks
from actors.toolkit import ToolContext, tool

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=2000)]
JsonMap = dict[str, Any]
_MOST_TASKS: Final = 1000
_MOST_WAIT_S: Final = 60


class Queue(msgspec.Struct, kw_only=True):
    """How many tasks there are."""

    queued: int
    running: int
    queued_by_type: dict[str, int]
    running_by_type: dict[str, int]


class QueueStatus(msgspec.Struct, kw_only=True):
    """What the queue can, and what is in it."""

    ok: bool
    capabilities: list[str]
    queue: Queue | None


class Made(msgspec.Struct, kw_only=True):
    """The task is stored."""

    ok: bool
    task_id: str


class Taken(msgspec.Struct, kw_only=True):
    """A task for the worker, or null."""

    ok: bool
    task: ClaimedTask | None


class Row(msgspec.Struct, kw_only=True):
    """A task with all that is known of it."""

    task_id: str
    task_type: str
    model_name: str
    payload: JsonMap
    status: Status
    result: Any
    error: str | None
    priority: float
    attempt: int
    max_attempts: int
    assigned_worker: str | None
    next_attempt_at: float
    lease_until: float | None
    heartbeat_at: float | None
    created_at: float
    updated_at: float


class Found(msgspec.Struct, kw_only=True):
    """A task, or null."""

    ok: bool
    task: Row | None


class Rows(msgspec.Struct, kw_only=True):
    """Tasks, oldest first."""

    ok: bool
    tasks: list[Row]


class Completed(msgspec.Struct, kw_only=True):
    """Whether it was accepted."""

    ok: bool
    task_id: str
    error: Literal["task_missing", "stale_fence"] | None


class AliasTools:
    """The tools, as methods."""

    def __init__(self, access: Access, max_result_bytes: int) -> None:
        """`max_result_bytes` of one answer."""
        self._access = access
        self._most_bytes = max_result_bytes

    @tool(read_only=True, open_world=False)
    async def p2p_taskqueue_status(
        self,
        remote_multiaddr: str = "",
        peer_id: str = "",
        timeout_s: float = 10.0,  # noqa: ARG002
        detail: bool = False,
    ) -> QueueStatus:
        """What the queue can; with `detail` what is in it."""
        _only_here(remote_multiaddr, peer_id)
        queue = None
        if detail:
            stats = await self._access.queue.stats()
            queue = Queue(
                queued=stats.counts.get("queued", 0),
                running=stats.counts.get("running", 0),
                queued_by_type=_by_type(stats.by_type, "queued"),
                running_by_type=_by_type(stats.by_type, "running"),
            )
        return QueueStatus(ok=True, capabilities=["submit", "claim", "list", "get", "wait", "complete"], queue=queue)

    @tool(destructive=False, open_world=False)
    async def p2p_taskqueue_submit(
        self,
        ctx: ToolContext,
        task_type: Name,
        model_name: Annotated[str, Meta(max_length=200)],
        payload: JsonMap,
        remote_multiaddr: str = "",
        remote_peer_id: str = "",
    ) -> Made:
        """Hand work to the durable queue. Each call makes a task; task_submit takes an id, and can be repeated."""
        _only_here(remote_multiaddr, remote_peer_id)
        op = Enqueue(
            type=task_type,
            model_name=model_name,
            payload=to_json(payload),
            owner=ctx.principal,
            fairness_key=ctx.principal,
        )
        made = await self._access.do(op, Submitted)
        return Made(ok=True, task_id=made.id)

    @tool(destructive=False, open_world=False)
    async def p2p_taskqueue_claim_next(
        self,
        ctx: ToolContext,
        worker_id: Name,
        supported_task_types: list[Name] | None = None,
        peer_id: str = "",  # noqa: ARG002
        clock: JsonMap | None = None,  # noqa: ARG002
        remote_multiaddr: str = "",
        remote_peer_id: str = "",
    ) -> Taken:
        """Take a task to work on; a worker that is unknown is registered. No clock decides who gets what."""
        _only_here(remote_multiaddr, remote_peer_id)
        self._access.check_worker(ctx.principal)
        types = supported_task_types or []
        if await self._access.queue.worker(worker_id) is None:
            register = RegisterWorker(worker=worker_id, owner=ctx.principal, types=types, max_tasks=_MOST_TASKS)
            await self._access.do(register, WorkerInfo)
        await self._access.acting_worker(ctx.principal, worker_id)
        claimed = await self._access.do(Claim(worker=worker_id, types=types, request=ctx.call_id), Claimed)
        whole = await with_values(self._access, claimed.tasks, self._most_bytes - LEASE_BYTES)
        tasks = [claimed_task(lease, worker_id) for lease in whole]
        return Taken(ok=True, task=tasks[0] if tasks else None)

    @tool(read_only=True, open_world=False)
    async def p2p_taskqueue_list_tasks(
        self,
        ctx: ToolContext,
        status: Literal["", "queued", "running", "completed", "failed", "cancelled", "skipped"] = "",
        limit: Annotated[int, Meta(ge=1, le=_MOST_TASKS)] = 50,
        task_types: list[Name] | None = None,
        remote_multiaddr: str = "",
        remote_peer_id: str = "",
    ) -> Rows:
        """List your tasks, oldest first; operators see all."""
        _only_here(remote_multiaddr, remote_peer_id)
        ask = ScanTasks(
            status=status or None,
            owner=None if self._access.is_operator(ctx.principal) else ctx.principal,
            types=task_types or [],
            oldest_first=True,
            limit=limit,
        )
        page = await self._access.queue.scan(ask)
        views = [await self._access.queue.get(GetTask(id=task.id)) for task in page.tasks]
        return Rows(ok=True, tasks=[_row(view.task) for view in views if view is not None])

    @tool(read_only=True, open_world=False)
    async def p2p_taskqueue_get_task(
        self, ctx: ToolContext, task_id: Name, remote_multiaddr: str = "", remote_peer_id: str = ""
    ) -> Found:
        """One task, or null."""
        _only_here(remote_multiaddr, remote_peer_id)
        return await self._found(ctx.principal, GetTask(id=task_id))

    @tool(read_only=True, open_world=False, timeout=_MOST_WAIT_S + 15)
    async def p2p_taskqueue_wait_task(
        self,
        ctx: ToolContext,
        task_id: Name,
        remote_multiaddr: str = "",
        remote_peer_id: str = "",
        timeout_s: Annotated[float, Meta(ge=0, le=_MOST_WAIT_S)] = 60.0,
    ) -> Found:
        """One task as it is at its end, or when the time is over; null when there is none."""
        _only_here(remote_multiaddr, remote_peer_id)
        return await self._found(ctx.principal, GetTask(id=task_id, wait_s=timeout_s))

    async def _found(self, principal: str, ask: GetTask) -> Found:
        # Whose it is has to be known before it is waited for.
        view = await self._access.queue.get(msgspec.structs.replace(ask, wait_s=0.0))
        if view is None:
            return Found(ok=True, task=None)
        self._access.check_owner(principal, view.task)
        if ask.wait_s > 0:
            view = await self._access.queue.get(ask)
        return Found(ok=True, task=None if view is None else _row(view.task))

    @tool(destructive=False, open_world=False)
    async def p2p_taskqueue_complete_task(
        self,
        ctx: ToolContext,
        task_id: Name,
        status: str = "completed",
        result: JsonMap | None = None,
        error: Text = "",
        remote_multiaddr: str = "",
        remote_peer_id: str = "",
    ) -> Completed:
        """Say how a task ended that one of your workers holds. Without a live lease it is `stale_fence`."""
        _only_here(remote_multiaddr, remote_peer_id)
        self._access.check_worker(ctx.principal)
        view = await self._access.queue.get(GetTask(id=task_id))
        if view is None:
            return Completed(ok=False, task_id=task_id, error="task_missing")
        if not await self._holds(ctx.principal, view.task):
            return Completed(ok=False, task_id=task_id, error="stale_fence")
        await self._access.do(_end(view.task, status, result, error), Ended)
        return Completed(ok=True, task_id=task_id, error=None)

    async def _holds(self, principal: str, task: Task) -> bool:
        """Whether a worker of this caller has a live lease on it."""
        info = await self._access.queue.worker(task.worker) if task.state == TaskState.LEASED else None
        if info is None or info.internal or info.owner != principal:
            return False
        # The queue's clock says whether it lives.
        [said] = await self._access.queue.do_all([Beat(id=task.id, token=task.token)], 0)
        return isinstance(said, Beaten)

    def all(self) -> list[Any]:
        """Each of them."""
        return [
            self.p2p_taskqueue_status,
            self.p2p_taskqueue_submit,
            self.p2p_taskqueue_claim_next,
            self.p2p_taskqueue_list_tasks,
            self.p2p_taskqueue_get_task,
            self.p2p_taskqueue_wait_task,
            self.p2p_taskqueue_complete_task,
        ]


def _only_here(multiaddr: str, peer_id: str) -> None:
    if multiaddr or peer_id:
        raise UnavailableError(
            f"the queue of {(peer_id or multiaddr)[:200]} can't be reached: this server speaks to its own queue only; "
            "leave the address and the peer id empty"
        )


def _by_type(by_type: dict[str, dict[str, int]], status: str) -> dict[str, int]:
    return {type_: counts[status] for type_, counts in by_type.items() if counts.get(status)}


def _end(task: Task, status: str, result: JsonMap | None, error: str) -> Op:
    if status == "completed":
        return Complete(id=task.id, token=task.token, result=to_json(result))
    if status == "cancelled":
        return Cancel(id=task.id, reason=error, force=True)
    return Fail(id=task.id, token=task.token, error=ErrorInfo(code="TASK_FAILED", message=error or status))


def _row(task: Task) -> Row:
    return Row(
        task_id=task.id,
        task_type=task.type,
        model_name=task.model_name,
        payload=msgspec.json.decode(task.payload),
        status=status_of(task.state),
        result=output_of(task),
        error=None if task.error is None else task.error.message,
        priority=task.priority,
        attempt=task.attempt,
        max_attempts=task.retry.max_attempts,
        assigned_worker=task.worker or None,
        next_attempt_at=task.run_at,
        lease_until=task.lease_until or None,
        heartbeat_at=task.beat_at,
        created_at=task.created_at,
        updated_at=task.updated_at,
    )
