# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is told that a task changed: listens at 2026-07-28 that name it (`notifications/tasks`), and sessions at
2025-11-25 that made it or asked for it here (`notifications/tasks/status`, on their GET stream).

The queue is watched only while somebody wants to hear of it. What is told is what the task is when it is told: of quick
changes some may be left out, never the last one. A reader that is slow is told later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import trio

from actors.errors import MCPServerError
from actors.task_messages import FINAL
from actors.task_views import GetTask, TaskView
from gateway.mcp.calls import Outbox
from gateway.mcp.eras import D
from gateway.mcp.exchange import Tasks
from gateway.mcp.http import sse
from gateway.mcp.jsonrpc import notification
from gateway.mcp.sessions import Session
from gateway.mcp.task_shaping import TaskShaper

MOST_OF_SESSION: Final = 256
"""Tasks that a session is told of; older ones are left out."""
_MOST_WAITING: Final = 8
"""Notifications that may wait for one reader: each may carry a whole result."""
_SLOW_S: Final = 0.1
_AGAIN_S: Final = 1.0
_log = logging.getLogger(__name__)


class _Follower:
    """One who wants to hear of some tasks."""

    def __init__(
        self, outbox: Callable[[], Outbox | None], frame: Callable[[TaskView], bytes], *, forgets: bool
    ) -> None:
        """`outbox`: where it reads, None = nowhere now. `forgets`: tasks that have ended are dropped."""
        self.outbox = outbox
        self.frame = frame
        self.forgets = forgets
        self.told: dict[str, float] = {}
        """Task -> its `updated_at` when it was told last."""
        self.due: dict[str, None] = {}

    def tell(self, view: TaskView) -> None:
        """Queue the news, unless it is none."""
        task = view.task
        last = self.told.get(task.id)
        if last is None or task.updated_at <= last:
            return
        outbox = self.outbox()
        if outbox is None:
            return  # its next stream begins with it
        outbox.put(self.frame(view))
        if self.forgets and task.state in FINAL:
            del self.told[task.id]
        else:
            self.told[task.id] = task.updated_at


class TaskNews:
    """All who want to hear of tasks."""

    def __init__(self, queue: Tasks | None, shaper: TaskShaper) -> None:
        self._queue = queue
        self._shaper = shaper
        self._followers: dict[Outbox | Session, _Follower] = {}
        self._wanted = trio.Event()
        self._some_due = trio.Event()
        self._watching = trio.CancelScope()

    def __len__(self) -> int:
        return sum(len(follower.told) for follower in self._followers.values())

    def listen(self, outbox: Outbox, tag: dict[str, object], views: Iterable[TaskView]) -> None:
        """A listen at 2026-07-28 names these tasks. It is told what they are now, and of each change."""

        def frame(view: TaskView) -> bytes:
            return sse(notification("notifications/tasks", {**self._shaper.detailed(view), "_meta": tag}))

        follower = self._follow(outbox, lambda: outbox, frame, forgets=False)
        for view in views:
            follower.told[view.task.id] = 0.0
            follower.tell(view)
            # It may have changed between the reading and now.
            self._due(follower, [view.task.id])

    def follow(self, session: Session, task_id: str, at: float) -> None:
        """A session has to do with a task, and knows how it was at this time (`updated_at`)."""

        def frame(view: TaskView) -> bytes:
            return sse(notification("notifications/tasks/status", self._shaper.task(view, D)))

        def newest() -> Outbox | None:
            return session.streams[-1] if session.streams else None

        if not session.streams:
            return  # it hears of nothing, so that the queue need not be watched for it
        follower = self._follow(session, newest, frame, forgets=True)
        if task_id not in follower.told:
            follower.told[task_id] = at
            if len(follower.told) > MOST_OF_SESSION:
                del follower.told[next(iter(follower.told))]
            self._due(follower, [task_id])

    def again(self, session: Session) -> None:
        """A session has another stream: tell it how the tasks are that it is told of."""
        follower = self._followers.get(session)
        if follower is not None:
            follower.told = dict.fromkeys(follower.told, 0.0)
            self._due(follower, follower.told)

    def forget(self, reader: Outbox | Session) -> None:
        """It hears nothing any more."""
        if self._followers.pop(reader, None) is not None and not self._followers:
            self._watching.cancel()

    async def run(self) -> None:
        """Tell those who want to know, until cancelled."""
        if self._queue is None:
            return
        while True:
            await self._wanted.wait()
            async with trio.open_nursery() as nursery:
                self._watching = nursery.cancel_scope
                if not self._followers:
                    nursery.cancel_scope.cancel()
                nursery.start_soon(self._watch, self._queue)
                nursery.start_soon(self._tell, self._queue)
            if not self._followers:
                self._wanted = trio.Event()

    def _follow(
        self,
        reader: Outbox | Session,
        outbox: Callable[[], Outbox | None],
        frame: Callable[[TaskView], bytes],
        *,
        forgets: bool,
    ) -> _Follower:
        follower = self._followers.get(reader)
        if follower is None:
            follower = self._followers[reader] = _Follower(outbox, frame, forgets=forgets)
            self._wanted.set()
        return follower

    def _due(self, follower: _Follower, ids: Iterable[str]) -> None:
        follower.due.update(dict.fromkeys(ids))
        self._some_due.set()

    def _changed(self, ids: list[str]) -> None:
        for follower in self._followers.values():
            due = follower.told if not ids else [id_ for id_ in ids if id_ in follower.told]
            if due:
                self._due(follower, due)

    async def _watch(self, queue: Tasks) -> None:
        while True:
            with suppress(MCPServerError):  # the queue is off, or coming back
                await queue.watch(self._changed)
            await trio.sleep(_AGAIN_S)

    async def _tell(self, queue: Tasks) -> None:
        while True:
            await self._some_due.wait()
            self._some_due = trio.Event()
            slow = False
            for follower in list(self._followers.values()):
                slow = await self._tell_one(queue, follower) or slow
            if slow:
                await trio.sleep(_SLOW_S)
                self._some_due.set()

    async def _tell_one(self, queue: Tasks, follower: _Follower) -> bool:
        """Tell one what it has to hear. True when something is left for later."""
        while follower.due:
            outbox = follower.outbox()
            if outbox is not None and outbox.waiting >= _MOST_WAITING:
                return True
            id_ = next(iter(follower.due))
            del follower.due[id_]
            if id_ not in follower.told:
                continue
            try:
                view = await queue.get(GetTask(id=id_))
            except MCPServerError:
                follower.due[id_] = None
                return True
            if view is not None:
                try:
                    follower.tell(view)
                except Exception:  # noqa: BLE001 - a task that can't be shown costs its news, not the gateway
                    _log.exception("task %s can't be told of", id_)
        return False
