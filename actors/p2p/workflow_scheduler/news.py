# SPDX-License-Identifier: AGPL-3.0-or-later
"""Follows what changes in the queue, and reads where the tasks of workflows are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from actors.p2p.workflow_scheduler.carrier import Queue, persist
from actors.task_views import MOST_RESULTS, ReadResults, TaskFact

_PAUSE_S: Final = 0.003
"""Between two looks while much happens: a task changes three times at least in its life, and one look tells all."""
_CALM_S: Final = 0.025
"""The same while nobody waits for what they tell: each look costs the queue, and whoever does the tasks, time."""


class News:
    """See the module's text."""

    def __init__(
        self,
        queue: Queue,
        *,
        is_ours: Callable[[str], bool],
        tell: Callable[[list[TaskFact]], None],
        look: Callable[[list[str]], None],
        look_all: Callable[[], None],
        calm: Callable[[], bool],
    ) -> None:
        """`tell` is given facts; `look` tasks that are said to be unknown; `look_all` is called when any task may have
        changed. While it is `calm()`, news may be a moment late."""
        self._queue = queue
        self._is_ours = is_ours
        self._tell = tell
        self._look = look
        self._look_all = look_all
        self._calm = calm
        self._changed: dict[str, None] = {}
        self._some = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            while True:
                await persist(lambda: self._queue.watch(self._on_changed))

    def _on_changed(self, ids: list[str]) -> None:
        if not ids:
            self._look_all()
            return
        ours = [task_id for task_id in ids if self._is_ours(task_id)]
        if ours:
            self._changed.update(dict.fromkeys(ours))
            self._some.set()

    async def _read(self) -> None:
        while True:
            await self._some.wait()
            ids = list(self._changed)[:MOST_RESULTS]
            for task_id in ids:
                del self._changed[task_id]
            if not self._changed:
                self._some = trio.Event()
            facts = await persist(lambda ids=ids: self._queue.read_results(ReadResults(ids=ids)))  # type: ignore[misc]
            self._changed.update(dict.fromkeys(facts.left))
            if self._changed:
                self._some.set()
            self._tell(facts.facts)
            if facts.unknown:
                self._look(facts.unknown)
            await trio.sleep(_CALM_S if self._calm() else _PAUSE_S)
