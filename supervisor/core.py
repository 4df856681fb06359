# SPDX-License-Identifier: AGPL-3.0-or-later
"""The supervisor's decisions: events in, commands out. No clock, no I/O, no randomness of its own.

The contract follows OTP's supervisor (https://www.erlang.org/doc/man/supervisor.html), with these rules of ours:

* The order of the tree is: of each group first its nested groups, then its own children, as they were given. Children
  start in that order; in `rest_for_one` and `one_for_all` groups each member (a nested group as a whole) waits until
  those before it are ready, others start at once, because the first answer of a system counts. Where several stop, they
  stop in the reverse order, one after the other; processes of one base name (`tools.general#0`, `#1`) stop together.
* The first start fails fast: a child that ends before the tree was up once ends the tree with exit code 1. Restarts are
  retried, with back-off, until the intensity of their group is exceeded.
* A group that gives up stops its children. If it `escalates`, its parent restarts it as a child of its own, at last
  the root gives up and the tree ends with exit code 70; else it stays failed and the rest of the tree works on.
* A child that has done its work (transient, normal end) stays so, also when its siblings are restarted, until an
  operator restarts it. The end of a significant one stops its group, in the root group the tree.
* A child may have spares: processes that are as ready as it is, and do nothing. They start once the tree is up. When
  the child dies, or is restarted by an operator, a ready spare's life takes its place at once, without any delay, and a
  new spare is started. The death of a spare is no attempt that counts.
* A stop wins over every restart that is planned. A second one kills what is left at once.

Every event of an incarnation that is no more, or of a child that is not part of the tree, is ignored and reported.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from supervisor.events import (
    AddChild,
    CancelTimer,
    ChildExited,
    ChildHung,
    ChildReady,
    ChildView,
    Command,
    Context,
    Event,
    ExitReason,
    Kill,
    Level,
    RemoveChild,
    Report,
    RestartChild,
    SetTimer,
    Spawn,
    StopTree,
    Swap,
    Terminate,
    TimerFired,
    TreeStopped,
)
from supervisor.members import Child, Group, Member, Roster, flat
from supervisor.spec import ChildSpec, GroupSpec, Restart, SpecError

EXIT_START_FAILED = 1
EXIT_GAVE_UP = 70
"""EX_SOFTWARE of sysexits.h: the service manager may start the tree again."""


class Core:
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
        )

    # --- events ----------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at monotonic time `now` (seconds); return what is to be done, in order."""
        self._out = []
        if not self._ended:
            self._take(event, now)
            self._up = self._up or all(child.ready or child.spare for child in self._children.values())
            self._advance()
        return self._out

    def _take(self, event: Event, now: float) -> None:
        if isinstance(event, (ChildReady, ChildExited, ChildHung)):
            self._take_life(event, now)
        elif isinstance(event, TimerFired):
            for child in self._children.values():
                child.timer = child.timer and child.key != event.key
        elif isinstance(event, StopTree):
            self._stop_tree(event.reason)
        elif isinstance(event, (RestartChild, AddChild, RemoveChild)) and self._stopping is None:
            self._take_order(event)

    def _take_life(self, event: ChildReady | ChildExited | ChildHung, now: float) -> None:
        # By its number, not by its name: lives that change places change names.
        lives = (child for child in self._children.values() if child.alive and child.incarnation == event.incarnation)
        child = next(lives, None)
        if child is None:
            self._report("DEBUG", "stale", self._root, event.name, event.incarnation)
        elif isinstance(event, ChildReady):
            self._child_ready(child, now)
        elif isinstance(event, ChildExited):
            self._child_exited(child, event.reason, now)
        else:
            self._report_child("ERROR", "hung", child, decision="kill")
            self._kill(child, "hung")

    def _child_ready(self, child: Child, now: float) -> None:
        child.ready = True
        child.ready_since = now
        child.reason = ""
        waiting = next((other for other in child.siblings() if other.timer), None) if child.spare else None
        if waiting is not None and not child.must_stop:
            self._cancel_timer(waiting)
            self._swap(waiting, child)
        else:
            self._report_child("INFO", "started", child)

    def _child_exited(self, child: Child, reason: ExitReason, now: float) -> None:
        if child.ready and now - child.ready_since >= child.group.spec.backoff.reset_after_s:
            child.failures = 0
        asked = child.must_stop
        child.alive = child.ready = child.must_stop = child.terminating = child.killed = False
        if asked:
            self._report_child("INFO", "exited", child, reason.words, "as asked")
            if child.forget or (child.spec.restart == Restart.TEMPORARY and not child.wanted):
                self._forget(child)
            return
        child.reason = reason.words
        if child.spare:
            self._spare_died(child, reason)
        elif not self._up:
            self._report_child("ERROR", "exited", child, reason.words, "stop the tree")
            self._stop_tree(f"{child.name} could not be started: {reason.words}", EXIT_START_FAILED)
        else:
            self._died(child, reason, now)

    def _died(self, child: Child, reason: ExitReason, now: float) -> None:
        """A child ended without being asked, in a tree that was up."""
        normal = reason.kind == "normal"
        if child.spec.restart == Restart.TEMPORARY or (child.spec.restart == Restart.TRANSIENT and normal):
            self._finished(child, reason)
        elif not child.group.count(now):
            self._report_child("ERROR", "exited", child, reason.words, "give up")
            self._give_up(child.group, f"{child.name}: {reason.words}", now)
        else:
            self._begin_again(child, reason)

    def _begin_again(self, child: Child, reason: ExitReason) -> None:
        spare = child.ready_spare()
        delay = 0.0 if spare is not None else child.group.delay(child, self._rng)
        decision = f"restart in {delay:.2f} s" if delay else "restart" if spare is None else f"restart as {spare.name}"
        self._report_child("ERROR", "exited", child, reason.words, decision)
        child.failures += 1
        if spare is not None:
            self._swap(child, spare)
            return
        if delay:
            self._set_timer(child, delay)
        self._restart(child.group.affected(child))

    def _spare_died(self, spare: Child, reason: ExitReason) -> None:
        delay = spare.group.delay(spare, self._rng)
        spare.failures += 1
        self._report_child("WARNING", "exited", spare, reason.words, f"a new one in {delay:.2f} s")
        if delay:
            self._set_timer(spare, delay)

    def _swap(self, child: Child, spare: Child) -> None:
        """A spare's life takes a child's place; what is left of the child's own life ends under the other name."""
        child.take_life_of(spare)
        self._out.append(Swap(child.name, spare.name))
        self._report_child("INFO", "started", child)

    def _finished(self, child: Child, reason: ExitReason) -> None:
        """It ended and is not started again."""
        normal = reason.kind == "normal"
        decision = "stop the group" if child.spec.significant else "leave it"
        self._report_child("INFO" if normal else "ERROR", "exited", child, reason.words, decision)
        child.wanted = False
        if child.spec.restart == Restart.TEMPORARY:
            self._forget(child)
        if child.spec.significant and child.group is self._root:
            self._stop_tree(f"{child.name}: {reason.words}", 0 if normal else EXIT_GAVE_UP)
        elif child.spec.significant:
            self._stop_group(child.group)

    def _restart(self, members: list[Member]) -> None:
        """Stop those of them that live, so that they start again; groups start again from a clean count."""
        for member in members:
            if isinstance(member, Group):
                for group in member.below():
                    group.closing = True
                    group.attempts.clear()
                for child in member.all():
                    self._cancel_timer(child)
                    child.failures = 0
        for child in flat(members):
            child.must_stop = child.alive
            if child.spec.restart == Restart.TEMPORARY:
                child.wanted = False
                if not child.alive:
                    self._forget(child)

    # --- giving up, stopping ---------------------------------------------------------------------------------------

    def _give_up(self, group: Group, why: str, now: float) -> None:
        intensity = group.spec.intensity
        text = f"{why}; more than {intensity.restarts} restarts in {intensity.within_s:g} s"
        parent = group.parent
        if parent is None:
            self._report("ERROR", "gave_up", group, reason=text, decision="stop the tree")
            self._stop_tree(f"gave up: {text}", EXIT_GAVE_UP)
        elif not group.spec.escalates:
            self._report("ERROR", "gave_up", group, reason=text, decision="stay failed; others work on")
            self._stop_group(group)
            for member in group.below():
                member.failed = True
            for child in group.all():
                child.reason = child.reason or f"its group {group.spec.id} gave up: {text}"
        elif not parent.count(now):
            self._report("ERROR", "gave_up", group, reason=text, decision="escalate")
            self._give_up(parent, f"group {group.spec.id}: {text}", now)
        else:
            self._report("ERROR", "gave_up", group, reason=text, decision="restart the group")
            self._restart(parent.affected(group))

    def _stop_group(self, group: Group) -> None:
        """Take a whole group down for good."""
        for below in group.below():
            below.closing = True
        for child in group.all():
            self._put_down(child)

    def _put_down(self, child: Child) -> None:
        child.wanted = False
        child.must_stop = child.alive
        self._cancel_timer(child)

    def _set_timer(self, child: Child, delay: float) -> None:
        child.timer = True
        self._out.append(SetTimer(child.key, delay))

    def _cancel_timer(self, child: Child) -> None:
        if child.timer:
            child.timer = False
            self._out.append(CancelTimer(child.key))

    def _kill(self, child: Child, cause: str) -> None:
        if not child.killed:
            child.killed = True
            self._out.append(Kill(child.name, child.incarnation, cause))

    def _stop_tree(self, reason: str, exit_code: int = 0) -> None:
        if self._stopping is not None:
            for child in self._root.all():
                if child.alive:
                    self._kill(child, "stop at once")
            return
        self._stopping = reason
        self._exit_code = exit_code
        self._report("INFO", "stopping", self._root, reason=reason)
        self._stop_group(self._root)

    # --- operators -------------------------------------------------------------------------------------------------

    def _take_order(self, event: RestartChild | AddChild | RemoveChild) -> None:
        if isinstance(event, AddChild):
            try:
                self._roster.add(event.spec)
            except SpecError as error:
                self._report("ERROR", "operator", self._root, event.spec.id, reason=str(error), decision="refused")
            return
        child = self._children.get(event.name)
        if child is None:
            self._report("WARNING", "operator", self._root, event.name, reason="no such child", decision="refused")
        elif isinstance(event, RestartChild):
            self._operator_restart(child)
        else:
            self._report_child("INFO", "operator", child, decision="remove")
            child.forget = True
            self._put_down(child)
            if not child.alive:
                self._forget(child)

    def _operator_restart(self, child: Child) -> None:
        self._report_child("INFO", "operator", child, decision="restart")
        if child.group.failed:
            child.group.failed = False
            for member in child.group.children:
                member.wanted = True
        child.group.attempts.clear()
        self._cancel_timer(child)
        child.wanted = True
        child.failures = 0
        child.reason = ""
        spare = child.ready_spare()
        if spare is not None:
            self._swap(child, spare)
        else:
            child.must_stop = child.alive

    def _forget(self, child: Child) -> None:
        self._cancel_timer(child)
        self._roster.remove(child)

    # --- getting there ---------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Issue every stop and start that may happen now."""
        order = self._root.all()
        for child in order:
            if child.must_stop and not child.terminating and self._may_stop(child):
                child.terminating = True
                self._terminate(child)
        for group in self._groups.values():
            group.closing = group.closing and any(child.must_stop for child in group.all())
        if self._stopping is not None:
            if not any(child.alive for child in order):
                self._ended = True
                self._report("INFO", "stopped", self._root, reason=self._stopping)
                self._out.append(TreeStopped(self._exit_code, self._stopping))
            return
        for child in order:
            may = self._up or not child.spare
            if may and child.wanted and not child.alive and not child.timer and self._may_start(child):
                self._spawn(child)

    def _may_stop(self, child: Child) -> bool:
        """Where order matters, those behind it that are to stop too have stopped."""
        return not any(
            other.must_stop and other.base != child.base
            for group, _, behind in child.levels()
            if group.ordered or group.closing
            for other in behind
        )

    def _may_start(self, child: Child) -> bool:
        """Where order matters, nobody is still being stopped and those before it are ready."""
        for group, before, _ in child.levels():
            if (group.ordered or group.closing) and any(other.must_stop for other in group.all()):
                return False
            if group.ordered and any(other.wanted and not other.ready for other in before):
                return False
        return True

    def _spawn(self, child: Child) -> None:
        self._incarnation += 1
        child.restarts += 1 if child.incarnation else 0
        child.incarnation = self._incarnation
        child.alive = True
        self._out.append(Spawn(child.spec, child.incarnation))

    def _terminate(self, child: Child) -> None:
        if child.spec.shutdown == "kill":
            self._kill(child, "stop by kill")
        else:
            self._out.append(Terminate(child.name, child.incarnation, child.spec.shutdown))

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
