# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools by which external workers come, show that they live, and go: `worker_register` ... `worker_status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import trio
from msgspec import Meta

from actors.errors import DrainingError, from_info
from actors.p2p.answers import Done, refuse
from actors.p2p.task_queue.tools_access import Access, to_json
from actors.task_messages import (
    Beat,
    Beaten,
    BeatWorker,
    Op,
    Outcome,
    Refused,
    RegisterWorker,
    UnregisterWorker,
    WorkerInfo,
)
from actors.task_views import GetTask
from actors.toolkit import ToolContext, tool

Name = Annotated[str, Meta(min_length=1, max_length=200)]
WorkerStatus = Literal["active", "idle", "busy", "offline", "unregistered"]
MOST_BEATS: Final = 128
_MOST_WAIT_S: Final = 3600
_BEAT_BYTES: Final = 4096
"""Of one beat, about; what counts for the bound of a group."""
_BEATS_PER_TIMEOUT: Final = 3


class ResourceLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the worker may use, as it says."""

    cpu_cores: Annotated[float, Meta(gt=0, le=100_000)] | None = None
    memory_gb: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None


class RunningTask(msgspec.Struct, kw_only=True):
    """A task that a worker holds."""

    task_id: str
    task_type: str
    attempt: int
    progress: float | None
    start_time: float | None
    lease_until: float


class WorkerMetrics(msgspec.Struct, kw_only=True):
    """What was measured of it; lengths in seconds."""

    released_tasks: int
    execution_time: float
    """Of all tasks that it completed."""
    average_execution_time: float | None
    last_seen: float
    registered_at: float


class WorkerShown(msgspec.Struct, kw_only=True):
    """A worker in the statistics of the queue."""

    worker_id: str
    status: WorkerStatus
    capabilities: list[str]
    max_concurrent_tasks: int
    running_tasks: int
    completed_tasks: int
    failed_tasks: int
    metrics: WorkerMetrics


class RegisteredWorker(Done):
    """It may claim tasks now."""

    worker_id: str
    status: Literal["active"]
    registered_at: float
    assigned_peers: list[str]
    """Other nodes that give it work; none, since the queue is this node's own."""
    heartbeat_interval: float
    """Seconds; a worker should be heard of at least so often."""
    lease_time: float
    """Seconds that a claimed task is its own without a heartbeat."""


class UnregisteredWorker(Done):
    """It is gone."""

    worker_id: str
    status: Literal["unregistered"]
    completed_tasks: int
    """In all."""
    abandoned_tasks: int
    """That it held at its end: they are queued again."""


class WorkerState(Done):
    """A worker as it is now."""

    worker_id: str
    status: WorkerStatus
    capabilities: list[str]
    max_concurrent_tasks: int
    running_tasks: int
    completed_tasks: int
    failed_tasks: int
    tasks: list[RunningTask] | None
    metrics: WorkerMetrics | None


class HeldTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task whose lease is to go on."""

    task_id: Name
    fencing_token: Annotated[int, Meta(ge=1)]
    progress: Annotated[float, Meta(ge=0, le=100)] | None = None
    progress_text: Annotated[str, Meta(max_length=2000)] = ""
    logs: Annotated[list[Annotated[str, Meta(max_length=2000)]], Meta(max_length=200)] = []
    """Lines that are added to its log."""


class BeatenTask(msgspec.Struct, kw_only=True):
    """What the queue says to the beat of one task."""

    task_id: str
    lease_until: float | None
    """Null when the lease is lost: stop, what comes of it does not count."""
    cancel_requested: bool
    """Stop and give it back with task_release, and it is cancelled."""
    error_code: str | None
    error: str | None


class Heartbeat(Done):
    """The worker is known to live."""

    worker_id: str
    status: WorkerStatus
    tasks: list[BeatenTask]


class WorkerTools:
    """The tools, as methods."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @tool(idempotent=True, destructive=False, open_world=False)
    async def worker_register(
        self,
        ctx: ToolContext,
        worker_id: Name,
        capabilities: Annotated[list[Name], Meta(min_length=1, max_length=1000)],
        max_concurrent_tasks: Annotated[int, Meta(ge=1, le=1000)] = 5,
        resource_limits: ResourceLimits | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> RegisteredWorker:
        """Make a worker known, which may claim tasks then; again = say anew what it can.

        Args:
            worker_id: Your id for it.
            capabilities: Types of the tasks that it does.
            max_concurrent_tasks: So many at once.
            resource_limits: What it may use; kept with it.
            metadata: Kept with it.
        """
        self._access.check_worker(ctx.principal)
        known = await self._access.queue.worker(worker_id)
        if known is not None and known.internal:
            refuse("NOT_OWNER", f"worker {worker_id} is one of this system's own; take another id")
        op = RegisterWorker(
            worker=worker_id,
            owner=ctx.principal,
            types=capabilities,
            max_tasks=max_concurrent_tasks,
            limits=to_json(resource_limits or ResourceLimits()),
            metadata=to_json(metadata or {}),
        )
        info = await self._access.do(op, WorkerInfo)
        return RegisteredWorker(
            worker_id=worker_id,
            status="active",
            registered_at=info.registered_at,
            assigned_peers=[],
            heartbeat_interval=self._access.settings.worker_timeout_s / _BEATS_PER_TIMEOUT,
            lease_time=self._access.settings.lease_s,
        )

    @tool(idempotent=True, destructive=True, open_world=False, timeout=_MOST_WAIT_S + 60)
    async def worker_unregister(
        self,
        ctx: ToolContext,
        worker_id: Name,
        graceful: bool = True,
        timeout: Annotated[float, Meta(ge=0, le=_MOST_WAIT_S)] = 300,
    ) -> UnregisteredWorker:
        """Let a worker go. What it still holds at the end is queued again, without using an attempt.

        Args:
            worker_id: Its id.
            graceful: Give it no more tasks, and wait for those that it has.
            timeout: Seconds to wait.
        """
        before = await self._access.worker(ctx.principal, worker_id)
        if before.internal:
            refuse("NOT_OWNER", f"worker {worker_id} is one of this system's own; it goes with its process")
        if graceful and before.running and timeout > 0:
            await self._access.do(UnregisterWorker(worker=worker_id, owner=before.owner, release=False), WorkerInfo)
            before = await self._free(ctx.principal, worker_id, timeout)
        after = await self._access.do(UnregisterWorker(worker=worker_id, owner=before.owner, release=True), WorkerInfo)
        return UnregisteredWorker(
            worker_id=worker_id,
            status="unregistered",
            completed_tasks=after.completed,
            abandoned_tasks=max(0, after.released - before.released),
        )

    async def _free(self, principal: str, worker_id: str, timeout: float) -> WorkerInfo:
        until = trio.current_time() + timeout
        info = await self._access.worker(principal, worker_id, free_within_s=timeout)
        if info.running and trio.current_time() < until:
            raise DrainingError(f"the queue ends or restarts; worker {worker_id} gets no more tasks, ask again")
        # What it gave back itself while it was waited for is not abandoned: count from here on.
        return await self._access.worker(principal, worker_id)

    @tool(read_only=True, open_world=False)
    async def worker_status(
        self, ctx: ToolContext, worker_id: Name, include_tasks: bool = False, include_metrics: bool = False
    ) -> WorkerState:
        """What is known of a worker.

        Args:
            worker_id: Its id.
            include_tasks: With the tasks that it holds.
            include_metrics: With what was measured of it.
        """
        info = await self._access.worker(ctx.principal, worker_id)
        one = shown(info)
        return WorkerState(
            worker_id=worker_id,
            status=one.status,
            capabilities=one.capabilities,
            max_concurrent_tasks=one.max_concurrent_tasks,
            running_tasks=one.running_tasks,
            completed_tasks=one.completed_tasks,
            failed_tasks=one.failed_tasks,
            tasks=await self._running(info.running) if include_tasks else None,
            metrics=one.metrics if include_metrics else None,
        )

    async def _running(self, ids: Sequence[str]) -> list[RunningTask]:
        views = [await self._access.queue.get(GetTask(id=task_id)) for task_id in ids]
        return [
            RunningTask(
                task_id=task.id,
                task_type=task.type,
                attempt=task.attempt,
                progress=task.progress,
                start_time=task.started_at,
                lease_until=task.lease_until,
            )
            for view in views
            if view is not None
            for task in [view.task]
        ]

    @tool(idempotent=True, destructive=False, open_world=False)
    async def worker_heartbeat(
        self,
        ctx: ToolContext,
        worker_id: Name,
        tasks: Annotated[list[HeldTask], Meta(max_length=MOST_BEATS)] | None = None,
    ) -> Heartbeat:
        """Say that a worker lives and works on these tasks: their leases go on.

        Args:
            worker_id: Its id.
            tasks: Those that it works on, with the tokens that it was given.
        """
        await self._access.acting_worker(ctx.principal, worker_id)
        held = tasks or []
        for one in held:
            await self._access.check_holder(worker_id, one.task_id, one.fencing_token)
        ops: list[Op] = [BeatWorker(worker=worker_id)]
        ops += [
            Beat(
                id=one.task_id,
                token=one.fencing_token,
                progress=one.progress,
                progress_text=one.progress_text,
                logs=one.logs,
            )
            for one in held
        ]
        info, *beats = await self._access.queue.do_all(ops, _BEAT_BYTES * len(ops))
        if isinstance(info, Refused):
            raise from_info(info.error)
        assert isinstance(info, WorkerInfo)
        return Heartbeat(
            worker_id=worker_id,
            status=info.status,
            tasks=[_beaten(one, said) for one, said in zip(held, beats, strict=True)],
        )

    def all(self) -> list[Any]:
        """Each of them."""
        return [self.worker_register, self.worker_unregister, self.worker_status, self.worker_heartbeat]


def shown(info: WorkerInfo) -> WorkerShown:
    """A worker for people."""
    return WorkerShown(
        worker_id=info.worker,
        status=info.status,
        capabilities=info.types,
        max_concurrent_tasks=info.max_tasks,
        running_tasks=len(info.running),
        completed_tasks=info.completed,
        failed_tasks=info.failed,
        metrics=WorkerMetrics(
            released_tasks=info.released,
            execution_time=info.run_s,
            average_execution_time=info.run_s / info.completed if info.completed else None,
            last_seen=info.seen_at,
            registered_at=info.registered_at,
        ),
    )


def _beaten(held: HeldTask, said: Outcome) -> BeatenTask:
    if isinstance(said, Refused):
        return BeatenTask(
            task_id=held.task_id,
            lease_until=None,
            cancel_requested=False,
            error_code=said.error.code,
            error=said.error.message,
        )
    assert isinstance(said, Beaten)
    return BeatenTask(
        task_id=held.task_id,
        lease_until=said.lease_until,
        cancel_requested=said.cancel_requested,
        error_code=None,
        error=None,
    )
