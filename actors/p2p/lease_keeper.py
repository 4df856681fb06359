# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keeps the lease of one task: beats that say that its holder lives and how far it is, and what they are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import trio

from actors.errors import MCPServerError
from actors.logs import get_logger
from actors.p2p.asking_queue import may_ask_again
from actors.task_client import TaskClient
from actors.task_messages import Beat, Beaten

BEATS_PER_LEASE: Final = 3
NEWS_EVERY_S: Final = 1.0
"""Progress and log lines reach the task at most so often, and when it ends."""
_LOOK_AGAIN_S: Final = 0.1
"""Between two beats, whatever the reason."""
_QUEUE_AGAIN_S: Final = 1.0
"""After a beat that did not reach the queue."""
_MOST_LINES: Final = 200
"""Log lines that wait for a beat: as many as the queue keeps. The oldest are dropped."""
_MOST_LINE_CHARS: Final = 2000


class LeaseKeeper:
    """See the module's text. `run` has to run beside the work."""

    def __init__(
        self,
        queue: TaskClient,
        task_id: str,
        token: int,
        lease_s: float,
        stop: Callable[[Literal["cancelled", "lost"]], None],
    ) -> None:
        """`stop` is told when the owner wants the task cancelled, and when it is not this holder's any more."""
        self._queue = queue
        self._task_id = task_id
        self._token = token
        self._every_s = lease_s / BEATS_PER_LEASE
        self._stop = stop
        self._progress: float | None = None
        self._text = ""
        self._lines: list[str] = []
        self._beat_at = trio.current_time()
        self._due = self._beat_at + self._every_s
        self._alarm = trio.CancelScope()

    def look(self) -> None:
        """The task has changed: ask what there is to know."""
        self._beat_by(self._beat_at + _LOOK_AGAIN_S)

    def progress(self, percent: float | None, text: str) -> None:
        """How far it is; None = as far as was said before."""
        if percent is not None:
            self._progress = min(100.0, max(0.0, percent))
        self._text = text[:_MOST_LINE_CHARS]
        self._beat_by(self._beat_at + NEWS_EVERY_S)

    def log(self, line: str) -> None:
        """For the task's log."""
        self._lines.append(line[:_MOST_LINE_CHARS])
        del self._lines[:-_MOST_LINES]
        self._beat_by(self._beat_at + NEWS_EVERY_S)

    def take_lines(self) -> list[str]:
        """Those that no beat has carried."""
        lines, self._lines = self._lines, []
        return lines

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._due) as self._alarm:
                await trio.sleep_forever()
            self._beat_at = trio.current_time()
            self._due = self._beat_at + self._every_s
            await self._beat()

    def _beat_by(self, at: float) -> None:
        self._due = min(self._due, at)
        self._alarm.deadline = self._due

    async def _beat(self) -> None:
        lines = self.take_lines()
        beat = Beat(id=self._task_id, token=self._token, progress=self._progress, progress_text=self._text, logs=lines)
        try:
            beaten = await self._queue.do(beat, Beaten, timeout_s=self._every_s)
        except MCPServerError as error:
            if not may_ask_again(error):
                get_logger().warning("a task is not ours any more", task=self._task_id, reason=error.message)
                self._stop("lost")
                return
            self._lines[:0] = lines
            self._beat_by(self._beat_at + _QUEUE_AGAIN_S)
            return
        if beaten.cancel_requested:
            self._stop("cancelled")
