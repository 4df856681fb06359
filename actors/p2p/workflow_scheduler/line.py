# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which workflows run, and which one is next: so many at once, the others by priority, then age, and none before those
that it depends on have completed. Pure; times are Unix seconds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

import msgspec


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that has not begun."""

    id: str
    priority: float
    created_at: float
    needs: frozenset[str] = frozenset()
    """Workflows that have to complete before it begins, and have not."""
    deadline: float | None = None


class Line:
    """See the module's text. `most` run at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.running: set[str] = set()
        self._waiting: dict[str, Waiting] = {}
        self._needs: dict[str, set[str]] = {}
        self._needed_by: dict[str, set[str]] = {}
        self._ready: list[tuple[float, float, str]] = []
        """A heap; what is not in `_waiting` any more is skipped."""
        self._due: list[tuple[float, str]] = []
        """The same, by deadline."""

    def __len__(self) -> int:
        """All that have not ended."""
        return len(self._waiting) + len(self.running)

    def __contains__(self, workflow_id: str) -> bool:
        """Does it wait?"""
        return workflow_id in self._waiting

    def has(self, workflow_id: str) -> bool:
        """It has not ended."""
        return workflow_id in self._waiting or workflow_id in self.running

    def add(self, one: Waiting) -> None:
        """It waits from now on."""
        self._waiting[one.id] = one
        if one.deadline is not None:
            heapq.heappush(self._due, (one.deadline, one.id))
        if one.needs:
            self._needs[one.id] = set(one.needs)
            for need in one.needs:
                self._needed_by.setdefault(need, set()).add(one.id)
        else:
            self._push(one)

    def _push(self, one: Waiting) -> None:
        heapq.heappush(self._ready, (-one.priority, one.created_at, one.id))

    def first(self) -> str | None:
        """The next one; None = there is none, or no room."""
        if len(self.running) >= self.most:
            return None
        while self._ready and self._ready[0][2] not in self._waiting:
            heapq.heappop(self._ready)
        return self._ready[0][2] if self._ready else None

    def take(self) -> str | None:
        """The same; it runs from now on."""
        workflow_id = self.first()
        if workflow_id is not None:
            heapq.heappop(self._ready)
            self._forget(workflow_id)
            self.running.add(workflow_id)
        return workflow_id

    def ended(self, workflow_id: str, *, completed: bool) -> list[str]:
        """It has ended, or does not wait any more. Returns those that waited for it and can't begin for that."""
        self.running.discard(workflow_id)
        self._forget(workflow_id)
        after = sorted(self._needed_by.pop(workflow_id, ()))
        if not completed:
            return after
        for one in after:
            needs = self._needs[one]
            needs.discard(workflow_id)
            if not needs:
                del self._needs[one]
                self._push(self._waiting[one])
        return []

    def _forget(self, workflow_id: str) -> None:
        self._waiting.pop(workflow_id, None)
        for need in self._needs.pop(workflow_id, ()):
            after = self._needed_by.get(need)
            if after is not None:
                after.discard(workflow_id)
                if not after:
                    del self._needed_by[need]

    def waits_for(self, workflow_id: str) -> list[str]:
        """Workflows that have to complete first."""
        return sorted(self._needs.get(workflow_id, ()))

    def needed(self) -> Iterable[str]:
        """Workflows that others wait for."""
        return self._needed_by

    def overdue(self, now: float) -> list[str]:
        """Those whose deadline has passed while they waited. Each is told once."""
        found = []
        while self._due and (self._due[0][0] <= now or self._due[0][1] not in self._waiting):
            workflow_id = heapq.heappop(self._due)[1]
            if workflow_id in self._waiting:
                found.append(workflow_id)
        return found

    def next_due(self) -> float:
        """When the next deadline may pass."""
        return self._due[0][0] if self._due else math.inf
