# SPDX-License-Identifier: AGPL-3.0-or-later
"""Those who wait for something in the queue: for a task to claim, or for a task to change.

Claims that wait are decided in the group that makes a task ready, after its operations: who waited longest first, and
only for as long as there are ready tasks. So a task is in the hands of an idle worker with the same commit that made it
ready, and hundreds of idle workers are not all looked at for each task.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

import trio

from actors.p2p.task_queue.decide_claim import may_claim
from actors.p2p.task_queue.events import READY
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.operations import decide
from actors.task_messages import Claim, Claimed, Outcome

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


Given = tuple[WaitingClaim, Outcome]
"""Who waited, and what it is to be told."""


class Waits:
    """See the module's text."""

    def __init__(self) -> None:
        self._claims: dict[WaitingClaim, None] = {}
        self._changes: dict[str, list[trio.Event]] = {}
        self._given: list[Given] = []
        """Of the operations that are being decided."""
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

    def give(self, m: Machine) -> list[Given]:
        """Decide those that may be given a task now: what each is to be told once that is on disk."""
        given = self._given
        self.more_claims = False
        again = bool(self._claims)
        while again:
            events, before = len(m.events), len(given)
            self._give_once(m, given)
            # A claim makes one event. Any other one says that the clock ended a lease: it may make room for those that
            # were passed over.
            again = len(m.events) - events > len(given) - before
        self._given = []
        return given

    def _give_once(self, m: Machine, given: list[Given]) -> None:
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

    # --- for a change ----------------------------------------------------------------------------------------------

    async def for_change(self, task_id: str) -> None:
        """Return when `changed` is told of this task."""
        event = trio.Event()
        waiting = self._changes.setdefault(task_id, [])
        waiting.append(event)
        try:
            await event.wait()
        finally:
            waiting.remove(event)
            if not waiting and self._changes.get(task_id) is waiting:
                del self._changes[task_id]

    def changed(self, task_ids: Iterable[str]) -> None:
        """These tasks changed, and that is on disk."""
        for task_id in task_ids if self._changes else ():
            for event in self._changes.pop(task_id, ()):
                event.set()

    def give_up(self) -> None:
        """Nothing will ever happen again: wake everybody."""
        for waiting in [*self._claims, *(waiting for waiting, _ in self._given)]:
            waiting.tell(None)
        self._claims.clear()
        self._given.clear()
        for events in self._changes.values():
            for event in events:
                event.set()
