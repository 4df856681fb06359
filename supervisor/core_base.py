# SPDX-License-Identifier: AGPL-3.0-or-later
"""The state of the supervisor's core, and how it words its commands. `supervisor.core` has the contract and decides on
what happens by itself, `supervisor.orders` on what operators want."""

from __future__ import annotations

import random
from collections.abc import Iterable

from supervisor.events import (
    CancelTimer,
    ChildView,
    Command,
    Context,
    Drain,
    Kill,
    Level,
    Report,
    SetTimer,
    Spawn,
    Swap,
    Terminate,
)
from supervisor.members import Child, Group, Roster
from supervisor.spec import ChildSpec, GroupSpec


class CoreBase:
    """The state of the whole tree."""

    def __init__(self, groups: Iterable[GroupSpec], children: Iterable[ChildSpec], rng: random.Random) -> None:
        """Raises `SpecError` for duplicate names, unknown groups, or anything but one root."""
        self._rng = rng
        self._roster = roster = Roster(groups, children)
        self._groups, self._children, self._root = roster.groups, roster.children, roster.root
        self._incarnation = 0
        self._up = False
        self._stopping: str | None = None
        self._exit_code = 0
        self._ended = False
        self._out: list[Command] = []

    # --- what others may see ---------------------------------------------------------------------------------------

    def children(self) -> list[ChildView]:
        """All children in start order."""
        return [self._view(child) for child in self._root.all()]

    def child(self, name: str) -> ChildView | None:
        """One child."""
        child = self._children.get(name)
        return self._view(child) if child is not None else None

    def groups(self) -> list[GroupSpec]:
        """All groups, as they were given."""
        return [group.spec for group in self._groups.values()]

    def _view(self, child: Child) -> ChildView:
        return ChildView(
            spec=child.spec,
            name=child.name,
            state=child.state,
            incarnation=child.incarnation,
            restarts=child.restarts,
            reason=child.reason,
            leaving=child.forget,
        )

    # --- commands --------------------------------------------------------------------------------------------------

    def _spawn(self, child: Child) -> None:
        self._incarnation += 1
        child.restarts += 1 if child.incarnation else 0
        child.incarnation = self._incarnation
        child.alive = True
        self._out.append(Spawn(child.spec, child.incarnation))

    def _terminate(self, child: Child) -> None:
        if child.finishing:
            self._out.append(Terminate(child.name, child.incarnation, child.spec.drain))
        elif child.spec.shutdown == "kill":
            self._kill(child, "stop by kill")
        else:
            self._out.append(Terminate(child.name, child.incarnation, child.spec.shutdown))

    def _kill(self, child: Child, cause: str) -> None:
        if not child.killed:
            child.killed = True
            self._out.append(Kill(child.name, child.incarnation, cause))

    def _swap(self, child: Child, spare: Child) -> None:
        """A spare's life takes a child's place; what is left of the child's own life ends under the other name."""
        child.take_life_of(spare)
        self._out.append(Swap(child.name, spare.name))
        self._report_child("INFO", "started", child)
        self._tell_to_drain(child)
        if spare.forget and not spare.alive:
            self._forget(spare)

    def _tell_to_drain(self, child: Child) -> None:
        """A life that has come to a child out of service is told so."""
        if child.drained:
            self._out.append(Drain(child.name, child.incarnation))

    def _put_down(self, child: Child) -> None:
        """It is not to run any more. One that could take its time to finish its calls has less of it now."""
        child.wanted = child.done = False
        child.must_stop = child.alive
        if child.finishing:
            child.finishing = child.terminating = False
        self._cancel_timer(child)
        if child.forget and not child.alive:
            self._forget(child)

    def _forget(self, child: Child) -> None:
        self._cancel_timer(child)
        self._roster.remove(child)

    def _set_timer(self, child: Child, delay: float) -> None:
        child.timer = True
        self._out.append(SetTimer(child.key, delay))

    def _cancel_timer(self, child: Child) -> None:
        if child.timer:
            child.timer = False
            self._out.append(CancelTimer(child.key))

    # --- telling ---------------------------------------------------------------------------------------------------

    def _report_child(self, level: Level, context: Context, child: Child, reason: str = "", decision: str = "") -> None:
        self._report(level, context, child.group, child.name, child.incarnation, reason, decision)

    def _report(
        self,
        level: Level,
        context: Context,
        group: Group,
        offender: str = "",
        incarnation: int = 0,
        reason: str = "",
        decision: str = "",
    ) -> None:
        self._out.append(Report(level, context, group.spec.id, offender, incarnation, reason, decision))
