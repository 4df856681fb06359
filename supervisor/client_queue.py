# SPDX-License-Identifier: AGPL-3.0-or-later
"""What operators ask of the task queue: numbers, the next tasks, dead letters, one task. For the command line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from actors.errors import NotFoundError
from actors.messages import ErrorInfo
from actors.task_client import TaskClient, every_task
from actors.task_messages import MOST_OPS, Refused, RetryTask, Submitted, Task
from actors.task_views import GetTask, QueueStats, ScanTasks, TaskEvent, TaskView
from supervisor.client_tasks import open_tasks

_ROUGH_AGEING_S: Final = 60.0
"""Good enough to choose whose place is asked for; the queue says the place."""
_LOOKED_AT: Final = 4
"""Times as many tasks are asked for their place as are shown."""


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `queue dead`: tasks that failed for good, the latest first."""

    tasks: list[Task]
    total: int


class Peek(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `queue peek`: tasks that wait, the next one first; those that may not start yet are last."""

    tasks: list[TaskView]
    total: int


class Requeued(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter and the task that does it again; or why there is none."""

    id: str
    new_id: str = ""
    before: bool = False
    """It was done before: nothing is new."""
    error: ErrorInfo | None = None


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `task show`."""

    task: Task
    position: int | None
    estimated_start: float | None
    why_waiting: str
    events: list[TaskEvent]


async def stats(data_dir: Path) -> QueueStats:
    """The whole queue in numbers."""
    async with open_tasks(data_dir) as tasks:
        return await tasks.stats()


async def peek(data_dir: Path, count: int, type_: str | None) -> Peek:
    """The next tasks, and why each of them waits."""
    async with open_tasks(data_dir) as tasks:
        waiting = await every_task(
            tasks.scan, ScanTasks(status="queued", types=[type_] if type_ else [], oldest_first=True)
        )
        waiting.sort(key=lambda task: task.created_at - task.priority * _ROUGH_AGEING_S)
        views = [
            view
            for task in waiting[: count * _LOOKED_AT]
            if (view := await tasks.get(GetTask(id=task.id, position=True))) is not None
        ]
        views.sort(key=lambda view: (view.position is None, view.position or 0, view.task.run_at))
        return Peek(tasks=views[:count], total=len(waiting))


async def dead(data_dir: Path, count: int, type_: str | None) -> Dead:
    """Tasks that failed for good."""
    async with open_tasks(data_dir) as tasks:
        page = await tasks.scan(ScanTasks(status="failed", types=[type_] if type_ else [], limit=count))
        return Dead(tasks=page.tasks, total=page.total)


async def requeue(data_dir: Path, ids: tuple[str, ...], type_: str | None) -> list[Requeued]:
    """Do failed or cancelled tasks again, each once however often this is asked; no ids = all that failed."""
    async with open_tasks(data_dir) as tasks:
        types = [type_] if type_ else []
        wanted = list(ids) or [
            task.id for task in await every_task(tasks.scan, ScanTasks(status="failed", types=types))
        ]
        done: list[Requeued] = []
        for start in range(0, len(wanted), MOST_OPS):
            part = wanted[start : start + MOST_OPS]
            outcomes = await tasks.do_all([RetryTask(id=one, new_id=_id_again(one)) for one in part])
            for one, outcome in zip(part, outcomes, strict=True):
                if isinstance(outcome, Submitted):
                    done.append(Requeued(id=one, new_id=outcome.id, before=outcome.replayed))
                elif isinstance(outcome, Refused):
                    done.append(Requeued(id=one, error=outcome.error))
        return done


async def show(data_dir: Path, task_id: str) -> Shown:
    """A task and what happened to it; the beginning of its id is enough. Raises `NotFoundError`."""
    async with open_tasks(data_dir) as tasks:
        view = await tasks.get(GetTask(id=task_id, position=True))
        if view is None:
            view = await _by_beginning(tasks, task_id)
        try:
            events = await tasks.history(view.task.id)
        except NotFoundError:
            events = []
        return Shown(
            task=view.task,
            position=view.position,
            estimated_start=view.estimated_start,
            why_waiting=view.why_waiting,
            events=events,
        )


async def _by_beginning(tasks: TaskClient, beginning: str) -> TaskView:
    page = await tasks.scan(ScanTasks(id_prefix=beginning, limit=2))
    if page.total > 1:
        raise NotFoundError(f"the ids of {page.total} tasks begin with {beginning[:200]!r}; give more of it")
    view = await tasks.get(GetTask(id=page.tasks[0].id, position=True)) if page.tasks else None
    if view is None:
        raise NotFoundError(f"there is no task {beginning[:200]!r}; ended tasks are kept for a time only")
    return view


def _id_again(task_id: str) -> str:
    """The id of the task that does this one again: always the same, so that nothing is done again twice."""
    return hashlib.sha256(f"requeue {task_id}".encode()).hexdigest()[:32]
