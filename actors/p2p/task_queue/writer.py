# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is decided and not on disk yet: groups on their way to the log.

While one group is being written, operations go on being decided; their events gather in the next group, which is
written, whole, as soon as the log is free. So a commit, whose cost hardly depends on the size of its group, is shared
by all that was asked during the one before, and nothing waits for it but what was decided in it.

What holds at any time:

* The state in memory is what the log holds, then the group that is being written, then the one that gathers. There are
  no others.
* What is computed from the state, an outcome or a reading, is told when the newest group of that moment is on disk (for
  what is about one task only: the newest group that changed it). So nobody sees what a crash could take back.
* Groups end in order. When one can't be written, neither it nor any later one is ever told to be on disk.
* Whatever needs memory and disk to agree (a rotation of the log) first waits for the newest group, and keeps operations
  from being decided meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from actors.errors import UnavailableError
from actors.p2p.task_queue.log import Group
from actors.p2p.task_queue.waits import Given


class Pending:
    """A group that is not on disk, or just came there."""

    __slots__ = ("changed", "ended", "events", "given", "on_disk")

    def __init__(self) -> None:
        self.events: Group = []
        self.changed: dict[str, None] = {}
        """Ids of the tasks that it changes."""
        self.given: list[Given] = []
        """What those who waited for a task are to be told."""
        self.ended = trio.Event()
        """It is on disk, or will never be."""
        self.on_disk = False


class Writer:
    """See the module's text. `append` stores a group; `on_disk` hears of each group that is stored, before those who
    wait for it."""

    def __init__(self, append: Callable[[Group], Awaitable[None]], on_disk: Callable[[Pending], None]) -> None:
        self._append = append
        self._on_disk = on_disk
        self._running: Pending | None = None
        self._gathering = Pending()
        self.failed = False
        """Memory is ahead of the disk, for ever."""

    def add(self, events: Group, changed: dict[str, None], given: list[Given]) -> None:
        """These events were decided together, and what those who waited for a task are to be told."""
        self._gathering.events += events
        self._gathering.changed |= changed
        group = self.newest()
        if group is not None:
            group.given += given
        else:  # refusals
            _tell(given)

    def newest(self) -> Pending | None:
        """The group that all of the state is on disk with; None = it is."""
        return self._gathering if self._gathering.events else self._running

    def newest_of(self, task_id: str) -> Pending | None:
        """The group that all of a task is on disk with; None = it is."""
        if task_id in self._gathering.changed:
            return self._gathering
        if self._running is not None and task_id in self._running.changed:
            return self._running
        return None

    async def until(self, group: Pending | None) -> None:
        """Return when this group is on disk; those who decided it see to that with `write`."""
        if group is not None:
            await group.ended.wait()
            if not group.on_disk:
                raise unusable()

    async def write(self, group: Pending | None) -> None:
        """Have this group on disk. Must not be cancelled. Of those who wait, the first that finds the log free writes
        what has gathered, for all."""
        if group is None:
            return
        while not group.ended.is_set():
            if self._running is None:
                await self._write()
            else:
                await self._running.ended.wait()
        await self.until(group)

    async def _write(self) -> None:
        group = self._running = self._gathering
        self._gathering = Pending()
        try:
            await self._append(group.events)
        except BaseException:
            self.fail()
            _give_up(group)
            raise
        self._running = None
        group.on_disk = True
        self._on_disk(group)
        _tell(group.given)
        group.ended.set()

    def fail(self) -> None:
        """Nothing will be on disk any more, but for what is being written perhaps."""
        self.failed = True
        _give_up(self._gathering)


def _tell(given: list[Given]) -> None:
    for waiting, outcome in given:
        waiting.tell(outcome)


def _give_up(group: Pending) -> None:
    for waiting, _ in group.given:
        waiting.tell(None)
    group.ended.set()


def unusable() -> UnavailableError:
    """Why nothing works after a failed append."""
    return UnavailableError("the task queue's log could not be written; the queue has to be opened again")
