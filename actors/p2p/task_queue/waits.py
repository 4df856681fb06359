# SPDX-License-Identifier: AGPL-3.0-or-later
"""Those who wait for something in the queue: for a task to claim, for a task to change, for the end of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import trio

from actors.task_messages import Claim

T = TypeVar("T")

_WOKEN_AT_LEAST: Final = 4
"""Claims, so that one that is not made after all delays nothing."""


class _Look:
    """A reading that waits for the end of a group."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.look = look
        self.done = trio.Event()
        self.found: object = None


class Waits:
    """See the module's text. Whoever is woken looks again whether it is what it waited for."""

    def __init__(self) -> None:
        self._claims: dict[trio.Event, Claim] = {}
        self._changes: dict[str, list[trio.Event]] = {}
        self._looks: list[_Look] = []
        self._group_end = trio.Event()

    def any_claim(self) -> bool:
        """Whether a claim waits."""
        return bool(self._claims)

    async def for_claim(self, claim: Claim) -> None:
        """Return when `group_ended` finds that this claim may be given a task."""
        event = trio.Event()
        self._claims[event] = claim
        try:
            await event.wait()
        except trio.Cancelled:
            if event.is_set():
                self._pass_on(event)
            raise
        finally:
            self._claims.pop(event, None)

    async def for_change(self, task_id: str) -> None:
        """Return when `group_ended` is told that this task changed."""
        event = trio.Event()
        waiting = self._changes.setdefault(task_id, [])
        waiting.append(event)
        try:
            await event.wait()
        finally:
            waiting.remove(event)
            if not waiting and self._changes.get(task_id) is waiting:
                del self._changes[task_id]

    async def for_group(self) -> None:
        """Return when the running group has ended."""
        await self._group_end.wait()

    async def look(self, look: Callable[[], T]) -> T:
        """What `look` finds at the end of the running group."""
        waiting = _Look(look)
        self._looks.append(waiting)
        try:
            await waiting.done.wait()
        finally:
            if waiting in self._looks:
                self._looks.remove(waiting)
        return waiting.found  # type: ignore[return-value]

    def group_ended(self, changed: Iterable[str], ready: int, may: Callable[[Claim], bool]) -> None:
        """A group is on disk: tell those who wait for it, for one of these tasks, or for a claim that `may` allow.

        With few tasks `ready`, a few claims are woken, those that wait for longest: each will be made, and the end of
        its group wakes the next ones if it left something. Hundreds of idle workers would else ask for each task.
        """
        looks, self._looks = self._looks, []
        for look in looks:
            look.found = look.look()
            look.done.set()
        for task_id in changed:
            for event in self._changes.pop(task_id, ()):
                event.set()
        left = max(_WOKEN_AT_LEAST, 2 * ready) if ready else 0
        for event, claim in self._claims.items():
            if left <= 0:
                break
            if event.is_set() or may(claim):
                event.set()
                left -= 1
        self._group_end.set()
        self._group_end = trio.Event()

    def _pass_on(self, woken: trio.Event) -> None:
        """Who was woken went away: wake another one."""
        for event in self._claims:
            if event is not woken and not event.is_set():
                event.set()
                return

    def give_up(self) -> None:
        """Nothing will ever happen again: wake everybody."""
        for event in [
            *(look.done for look in self._looks),
            *(event for events in self._changes.values() for event in events),
            *self._claims,
            self._group_end,
        ]:
            event.set()
