# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a run knows of the queue: which tasks it sent, which of them are there, what was asked and what has to be.

None of it is in the events: after a restart (or when the queue was lost) all tasks that may be there are *unsure*, and
nothing is sent before they were looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from actors.p2p.workflow_scheduler.steps import WHOLE, Graph, Part
from actors.task_views import TaskFact


class Sending:
    """See the module's text. A step is *covered* when those that depend on it may be sent: it has completed, or has
    one task that was sent."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.tasks: dict[Part, bool] = {}
        """Sent, and not known to have ended -> the queue said that it has it."""
        self.unsure: set[Part] = set()
        """Of `tasks`: to be looked up before anything is sent."""
        self.asked: set[Part] = set()
        """A look at them is under way, or about to be."""
        self.looks: list[Part] = []
        """To be looked up."""
        self.cancels: set[Part] = set()
        """To be cancelled with the workflow."""
        self.withdrawn: list[Part] = []
        """Tasks of steps that ended without the queue's knowing."""
        self.held: dict[Part, TaskFact] = {}
        """News of steps whose parents' news are not here yet."""
        self.again: set[Part] = set()
        """Were sent, perhaps, in vain: an earlier sending may still arrive."""
        self.doubts: dict[Part, int] = {}
        """How often the queue did not know what it depends on."""
        self.full = False
        """The queue had no room,"""
        self.full_news = False
        """which its owner was not told yet; these wait for it:"""
        self.put_back: list[Part] = []
        self.memo_keys: dict[Part, bytes] = {}
        self.memo_asked: set[Part] = set()
        self.memo_none: set[Part] = set()
        """There is no result of equal work: they are to be done."""
        self.uncovered = [len(depends) for depends in graph.depends]
        """Of the steps that each depends on, those not covered."""
        self._covered = bytearray(len(graph))
        self._heap: list[Part] = []
        self._in_heap: set[Part] = set()

    # --- what may be sent --------------------------------------------------------------------------------------

    def offer(self, part: Part) -> None:
        """It may be sent when its turn comes."""
        if part not in self.tasks and part not in self._in_heap and part not in self.memo_asked:
            self._in_heap.add(part)
            heappush(self._heap, part)

    def next(self) -> Part | None:
        """The first one that may be sent."""
        if not self._heap:
            return None
        part = heappop(self._heap)
        self._in_heap.discard(part)
        return part

    def sent(self, part: Part) -> Iterable[int]:
        """It is handed out. Returns the places of steps that are covered wholly by this."""
        self.tasks[part] = False
        return self.cover(part.place) if part.index == WHOLE else ()

    def cover(self, place: int) -> list[int]:
        """The step is covered. Returns the places of steps for which it was the last one."""
        if self._covered[place]:
            return []
        self._covered[place] = 1
        covered = []
        for after in self._graph.dependents[place]:
            self.uncovered[after] -= 1
            if not self.uncovered[after]:
                covered.append(after)
        return covered

    def _uncover(self, place: int) -> None:
        if self._covered[place]:
            self._covered[place] = 0
            for after in self._graph.dependents[place]:
                self.uncovered[after] += 1

    # --- what became of it -------------------------------------------------------------------------------------

    def confirm(self, part: Part) -> None:
        """The queue told where the task is."""
        self.tasks[part] = True
        self.asked.discard(part)
        self.unsure.discard(part)
        self.doubts.pop(part, None)

    def absent(self, part: Part) -> None:
        """The queue does not have it, and it is to be sent (again)."""
        self.tasks.pop(part, None)
        self.asked.discard(part)
        self.unsure.discard(part)
        self.cancels.discard(part)
        if part.index == WHOLE:
            self._uncover(part.place)

    def drop(self, part: Part, *, withdraw: bool) -> None:
        """It has ended. `withdraw`: the queue has to be told."""
        if self.tasks.pop(part, None) is not None and withdraw:
            self.withdrawn.append(part)
        self.asked.discard(part)
        self.unsure.discard(part)
        self.cancels.discard(part)
        self.held.pop(part, None)
        self.again.discard(part)
        self.doubts.pop(part, None)
        self.memo_keys.pop(part, None)
        self.memo_asked.discard(part)
        self.memo_none.discard(part)

    def look(self, part: Part) -> None:
        """Its fact is needed."""
        if part in self.tasks and part not in self.asked:
            self.asked.add(part)
            self.looks.append(part)

    def recover(self, parts: Iterable[tuple[Part, bool]]) -> None:
        """These may be in the queue; or they were (True)."""
        for part, known in parts:
            self.tasks[part] = known
            if part.index == WHOLE:
                self.cover(part.place)
        self.doubt_all()

    def doubt_all(self) -> None:
        """What is known may be wrong by now."""
        self.unsure = set(self.tasks)
        self.asked = set(self.tasks)
        self.looks = sorted(self.tasks)
        self.retry_refused()

    def retry_refused(self) -> None:
        """The queue may have room."""
        self.full = False
        back, self.put_back = self.put_back, []
        for part in back:
            self.offer(part)
