# SPDX-License-Identifier: AGPL-3.0-or-later
"""Those who wait for something in the queue: for a task to claim, for a task to change, for the end of a group.

Claims that wait are decided in the group that makes a task ready, after its operations: who waited longest first, and
only for as long as there are ready tasks. So a task is in the hands of an idle worker with the same commit that made it
ready, and hundreds of idle workers are not all looked at for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio

from actors.p2p.task_queue.decide_claim import may_claim
from actors.p2p.task_queue.events import READY
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.operations import decide
from actors.task_messages import Claim, Claimed, Outcome

T = TypeVar("T")

_MOST_TOGETHER: Final = 512
"""Claims that waited, in one group; the rest comes with the next one."""


class WaitingClaim:
    """A claim that nothing was there for."""

    __slots__ = ("_over", "_said", "_task", "claim", "taken")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.taken = False
        """It is decided: who waits for it can't leave any more, because what is claimed must be told."""
        self._task: trio.lowlevel.Task | None = None
        self._over = False
        self._said: Outcome | None = None

    def tell(self, said: Outcome | None) -> None:
        """It is over: what it was given, or the refusal; None = that will never be known."""
        self._over = True
        self._said = said
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def told(self) -> Outcome | None:
        """What `tell` was told."""
        if not self._over:
            self._task = trio.lowlevel.current_task()

            def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
                if self.taken:
                    return trio.lowlevel.Abort.FAILED
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        return self._said


class _Look:
    """A reading that waits for the end of a group."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.look = look
        self.done = trio.Event()
        self.found: object = None


class Waits:
    """See the module's text."""

    def __init__(self) -> None:
        self._claims: dict[WaitingClaim, None] = {}
        self._changes: dict[str, list[trio.Event]] = {}
        self._looks: list[_Look] = []
        self._group_end = trio.Event()
        self.more_claims = False
        """Claims were left that may be given a task, since there were too many for one group."""

    # --- for a task to claim ---------------------------------------------------------------------------------------

    def any_claim(self) -> bool:
        """Whether a claim waits."""
        return bool(self._claims)

    @contextmanager
    def claiming(self, claim: Claim) -> Generator[WaitingClaim, None, None]:
        """Let a claim wait, in the block."""
        waiting = WaitingClaim(claim)
        self._claims[waiting] = None
        try:
            yield waiting
        finally:
            self._claims.pop(waiting, None)

    def give(self, m: Machine) -> list[tuple[WaitingClaim, Outcome]]:
        """Decide those that may be given a task now, in the running group: what each is to be told once that is on
        disk."""
        given: list[tuple[WaitingClaim, Outcome]] = []
        self.more_claims = False
        again = bool(self._claims)
        while again:
            events, before = len(m.events), len(given)
            self._give_once(m, given)
            # A claim makes one event. Any other one says that the clock ended a lease: it may make room for those that
            # were passed over.
            again = len(m.events) - events > len(given) - before
        return given

    def _give_once(self, m: Machine, given: list[tuple[WaitingClaim, Outcome]]) -> None:
        totals = m.state.totals
        for waiting in list(self._claims) if totals[READY] else ():
            if not totals[READY]:
                return
            if not may_claim(m.state, waiting.claim, m.now):
                continue
            if len(given) >= _MOST_TOGETHER:
                self.more_claims = True
                return
            outcome = decide(m, waiting.claim)
            if not isinstance(outcome, Claimed) or outcome.tasks:
                waiting.taken = True
                del self._claims[waiting]
                given.append((waiting, outcome))

    # --- for a change, for the end of a group ----------------------------------------------------------------------

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

    def group_ended(self, changed: Iterable[str]) -> None:
        """A group is on disk: tell those who wait for it, or for one of these tasks."""
        looks, self._looks = self._looks, []
        for look in looks:
            look.found = look.look()
            look.done.set()
        for task_id in changed:
            for event in self._changes.pop(task_id, ()):
                event.set()
        self._group_end.set()
        self._group_end = trio.Event()

    def give_up(self) -> None:
        """Nothing will ever happen again: wake everybody."""
        for waiting in self._claims:
            waiting.tell(None)
        self._claims.clear()
        for event in [
            *(look.done for look in self._looks),
            *(event for events in self._changes.values() for event in events),
            self._group_end,
        ]:
            event.set()
