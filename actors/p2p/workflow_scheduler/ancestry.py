# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which event of a graph comes before which, in a time that hardly grows with the graph.

The events are laid out in chains: an event joins the chain of a parent that is that chain's last event and of the same
line (the same peer), else it begins one. All that an event has before it is then a beginning of some chains, so one
position per chain says it. There are about as many chains as peers, unless a peer forks its own line.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence

Reach = dict[int, int]
"""Chain -> the last position on it that belongs to what is meant."""


class _Links:
    """From one chain to another: at which positions a parent lies over there, and how far they reach by then."""

    __slots__ = ("at", "reach")

    def __init__(self) -> None:
        self.at = array("q")
        self.reach = array("q")

    def add(self, position: int, target: int) -> None:
        self.at.append(position)
        self.reach.append(max(target, self.reach[-1]) if self.reach else target)


class _Chain:
    __slots__ = ("line", "links", "members")

    def __init__(self, line: str) -> None:
        self.line = line
        self.members = array("q")
        self.links: dict[int, _Links] = {}


class Ancestry:
    """The events are numbers from 0 in the order in which they were added."""

    def __init__(self) -> None:
        self._chains: list[_Chain] = []
        self._chain_of = array("q")
        self._position = array("q")
        self._height = array("q")

    def add(self, parents: Sequence[int], height: int, line: str) -> None:
        """The next event. Its height is greater than that of its parents."""
        chain = self._chain_for(parents, line)
        position = len(self._chains[chain].members)
        self._chains[chain].members.append(len(self._chain_of))
        self._chain_of.append(chain)
        self._position.append(position)
        self._height.append(height)
        for parent in parents:
            other = self._chain_of[parent]
            if other != chain:
                self._chains[chain].links.setdefault(other, _Links()).add(position, self._position[parent])

    def _chain_for(self, parents: Sequence[int], line: str) -> int:
        for parent in parents:
            chain = self._chain_of[parent]
            if self._chains[chain].line == line and self._chains[chain].members[-1] == parent:
                return chain
        self._chains.append(_Chain(line))
        return len(self._chains) - 1

    def before(self, a: int, b: int) -> bool:
        """Whether `a` is an ancestor of `b`."""
        if self._height[a] >= self._height[b]:
            return False
        chain, position = self._chain_of[a], self._position[a]
        return self.reach([b], until=a).get(chain, -1) >= position

    def reach(self, events: Iterable[int], *, until: int | None = None) -> Reach:
        """These events and all before them; no further than to where `until` is found or can't be found any more."""
        floor = 0 if until is None else self._height[until]
        goal = (-1, 0) if until is None else (self._chain_of[until], self._position[until])
        # The highest first: so the first position that is seen of a chain is the last one that belongs to it.
        todo = [(-self._height[event], self._chain_of[event], self._position[event]) for event in events]
        heapq.heapify(todo)
        reached: Reach = {}
        while todo:
            height, chain, position = heapq.heappop(todo)
            if chain in reached:
                continue
            if -height < floor:
                break
            reached[chain] = position
            if chain == goal[0] and position >= goal[1]:
                break
            for other, links in self._chains[chain].links.items():
                if other not in reached and (found := bisect_right(links.at, position)):
                    target = links.reach[found - 1]
                    heapq.heappush(todo, (-self._height[self._chains[other].members[target]], other, target))
        return reached

    def last_of(self, reach: Reach, line: str) -> list[int]:
        """The last events of a line among what `reach` means, one per chain."""
        return [
            self._chains[chain].members[position]
            for chain, position in reach.items()
            if self._chains[chain].line == line
        ]
