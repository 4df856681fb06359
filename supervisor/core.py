# SPDX-License-Identifier: AGPL-3.0-or-later
"""The supervisor's decisions: events in, commands out. No clock, no I/O, no randomness of its own.

The contract follows OTP's supervisor (https://www.erlang.org/doc/man/supervisor.html), with these rules of ours:

* The order of the tree is: of each group first its nested groups, then its own children, as they were given. Children
  start in that order; in `rest_for_one` and `one_for_all` groups each waits until the one before it is ready, others
  start at once, because the first answer of a system counts. They stop in the reverse order, one after the other;
  processes of one base name (`tools.general#0`, `#1`) stop together.
* The first start fails fast: a child that ends before the tree was up once ends the tree with exit code 1. Restarts are
  retried, with back-off, until the intensity of their group is exceeded.
* A group that gives up stops its children. If it `escalates`, its parent restarts it as a child of its own, at last
  the root gives up and the tree ends with exit code 70; else it stays failed and the rest of the tree works on.
* A stop wins over every restart that is planned. A second one kills what is left at once.

Every event of an incarnation that is no more is ignored and reported.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal

from supervisor.events import (
    AddChild,
    CancelTimer,
    ChildExited,
    ChildHung,
    ChildReady,
    ChildView,
    Command,
    Event,
    ExitReason,
    Kill,
    RemoveChild,
    Report,
    RestartChild,
    SetTimer,
    Spawn,
    StopTree,
    Terminate,
    TimerFired,
    TreeStopped,
)
from supervisor.members import Child, Group
from supervisor.spec import ChildSpec, GroupSpec, Restart, SpecError, Strategy

EXIT_START_FAILED = 1
EXIT_GAVE_UP = 70
"""EX_SOFTWARE of sysexits.h: the service manager may start the tree again."""


class Core:
    """The state of the whole tree."""

    def __init__(self, groups: Iterable[GroupSpec], children: Iterable[ChildSpec], rng: random.Random) -> None:
        """Raises `SpecError` for duplicate names, unknown groups, or anything but one root."""
        self._rng = rng
        self._groups: dict[str, Group] = {}
        self._children: dict[str, Child] = {}
        self._incarnation = 0
        self._up = False
        self._stopping = ""
        self._exit_code = 0
        self._ended = False
        self._out: list[Command] = []
        for group in groups:
            self._add_group(group)
        for child in children:
            self._add_child(child)
        self._root = self._only_root()

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
            state=child.state(group_failed=self._groups[child.spec.group].failed),
            incarnation=child.incarnation,
            restarts=child.restarts,
            reason=child.reason,
        )

    # --- building --------------------------------------------------------------------------------------------------

    def _add_group(self, spec: GroupSpec) -> None:
        if spec.id in self._groups:
            raise SpecError(f"group {spec.id!r}", "id", "is used twice")
        group = self._groups[spec.id] = Group(spec)
        if spec.parent is not None:
            parent = self._groups.get(spec.parent)
            if parent is None:
                raise SpecError(f"group {spec.id!r}", "parent", f"{spec.parent!r} is no group before this one")
            parent.nested.append(group)

    def _add_child(self, spec: ChildSpec) -> Child:
        if spec.id in self._children:
            raise SpecError(f"child {spec.id!r}", "id", "is used twice")
        if spec.group not in self._groups:
            raise SpecError(f"child {spec.id!r}", "group", f"{spec.group!r} is not part of the tree")
        child = self._children[spec.id] = Child(spec)
        self._groups[spec.group].children.append(child)
        return child

    def _only_root(self) -> Group:
        roots = [group for group in self._groups.values() if group.spec.parent is None]
        if len(roots) != 1:
            raise SpecError("the tree", "groups", f"must have one group without a parent, not {len(roots)}")
        return roots[0]

    # --- events ----------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at monotonic time `now` (seconds); return what is to be done, in order."""
        self._out = []
        if not self._ended:
            self._take(event, now)
            self._advance()
        return self._out

    def _take_life(self, event: ChildReady | ChildExited | ChildHung, now: float) -> None:
        child = self._children.get(event.name)
        if child is None or not child.alive or child.incarnation != event.incarnation:
            self._report("DEBUG", "stale", self._root.spec.id, event.name, event.incarnation)
        elif isinstance(event, ChildReady):
            self._child_ready(child, now)
        elif isinstance(event, ChildExited):
            self._child_exited(child, event.reason, now)
        else:
            self._report("ERROR", "hung", child.spec.group, child.name, child.incarnation, decision="kill")
            self._out.append(Kill(child.name, child.incarnation, "hung"))

    def _take(self, event: Event, now: float) -> None:
        if isinstance(event, (ChildReady, ChildExited, ChildHung)):
            self._take_life(event, now)
        elif isinstance(event, TimerFired):
            for child in self._children.values():
                if child.key == event.key:
                    child.timer = False
        elif isinstance(event, StopTree):
            self._stop_tree(event.reason)
        elif isinstance(event, RestartChild):
            self._operator_restart(event.name)
        elif isinstance(event, AddChild):
            self._add_child(event.spec)
        elif isinstance(event, RemoveChild):
            self._remove(self._children[event.name])

    def _child_ready(self, child: Child, now: float) -> None:
        child.ready = True
        child.ready_since = now
        child.reason = ""
        self._report("INFO", "started", child.spec.group, child.name, child.incarnation)
        if not self._up and all(other.ready for other in self._children.values()):
            self._up = True

    def _child_exited(self, child: Child, reason: ExitReason, now: float) -> None:
        backoff = self._groups[child.spec.group].spec.backoff
        if child.ready and now - child.ready_since >= backoff.reset_after_s:
            child.failures = 0
        asked = child.terminating or child.must_stop
        child.alive = child.ready = child.terminating = child.must_stop = False
        child.reason = "" if asked else reason.words
        if child.forget:
            self._forget(child)
        elif self._stopping or not child.wanted or asked:
            self._report("INFO", "exited", child.spec.group, child.name, child.incarnation, reason.words, "as asked")
            if child.spec.restart is Restart.TEMPORARY:
                self._forget(child)
        elif not self._up:
            self._fail_start(child, reason)
        else:
            self._died(child, reason, now)

    def _fail_start(self, child: Child, reason: ExitReason) -> None:
        self._exit_code = EXIT_START_FAILED
        text = f"{child.name} could not be started: {reason.words}"
        self._report("ERROR", "exited", child.spec.group, child.name, child.incarnation, reason.words, "stop the tree")
        self._stop_tree(text)

    def _died(self, child: Child, reason: ExitReason, now: float) -> None:
        """A child ended without being asked, in a tree that was up."""
        group = self._groups[child.spec.group]
        normal = reason.kind == "normal"
        restart = child.spec.restart is Restart.PERMANENT or (child.spec.restart is Restart.TRANSIENT and not normal)
        level: Literal["INFO", "ERROR"] = "INFO" if normal and not restart else "ERROR"
        if not restart:
            decision = "stop the group" if child.spec.significant else "leave it"
            self._report(level, "exited", group.spec.id, child.name, child.incarnation, reason.words, decision)
            child.wanted = False
            if child.spec.restart is Restart.TEMPORARY:
                self._forget(child)
            if child.spec.significant:
                self._stop_group(group)
            return
        if not group.count(now):
            self._report(level, "exited", group.spec.id, child.name, child.incarnation, reason.words, "give up")
            self._give_up(group, f"{child.name}: {reason.words}", now)
            return
        delay = group.delay(child, self._rng)
        decision = "restart" if delay == 0 else f"restart in {delay:.2f} s"
        self._report(level, "exited", group.spec.id, child.name, child.incarnation, reason.words, decision)
        child.restarts += 1
        child.failures += 1
        if delay:
            child.timer = True
            self._out.append(SetTimer(child.key, delay))
        for sibling in group.affected(child):
            self._stop_for_restart(sibling)

    def _stop_for_restart(self, sibling: Child) -> None:
        if sibling.spec.restart is Restart.TEMPORARY:
            sibling.wanted = False
        if sibling.alive:
            sibling.must_stop = True
        elif sibling.spec.restart is Restart.TEMPORARY:
            self._forget(sibling)

    # --- giving up, stopping ---------------------------------------------------------------------------------------

    def _give_up(self, group: Group, why: str, now: float) -> None:
        intensity = group.spec.intensity
        text = f"{why}; more than {intensity.restarts} restarts in {intensity.within_s:g} s"
        parent = self._groups[group.spec.parent] if group.spec.parent is not None else None
        if parent is None:
            self._report("ERROR", "gave_up", group.spec.id, reason=text, decision="stop the tree")
            self._exit_code = EXIT_GAVE_UP
            self._stop_tree(f"gave up: {text}")
            return
        if not group.spec.escalates:
            self._report("ERROR", "gave_up", group.spec.id, reason=text, decision="stay failed; others work on")
            self._stop_group(group)
            for member in group.below():
                member.failed = True
            for child in group.all():
                child.reason = child.reason or f"its group {group.spec.id} gave up: {text}"
            return
        if not parent.count(now):
            self._report("ERROR", "gave_up", group.spec.id, reason=text, decision="escalate")
            self._give_up(parent, f"group {group.spec.id}: {text}", now)
            return
        self._report("ERROR", "gave_up", group.spec.id, reason=text, decision="restart the group")
        self._restart_group(parent, group)

    def _restart_group(self, parent: Group, group: Group) -> None:
        """Restart a group as its parent's strategy wants it, from a clean count."""
        affected = set(group.all())
        order = parent.all()
        if parent.spec.strategy is Strategy.ONE_FOR_ALL:
            affected = set(order)
        elif parent.spec.strategy is Strategy.REST_FOR_ONE:
            first = min((order.index(child) for child in group.all()), default=0)
            affected = set(order[first:])
        for below in group.below():
            below.attempts.clear()
        for child in [child for child in order if child in affected]:
            self._cancel_timer(child)
            child.failures = 0
            child.restarts += 1
            self._stop_for_restart(child)

    def _stop_group(self, group: Group) -> None:
        """Take a whole group down for good."""
        for child in list(group.all()):
            self._put_down(child)

    def _put_down(self, child: Child) -> None:
        child.wanted = False
        self._cancel_timer(child)
        if child.alive:
            child.must_stop = True

    def _cancel_timer(self, child: Child) -> None:
        if child.timer:
            child.timer = False
            self._out.append(CancelTimer(child.key))

    def _stop_tree(self, reason: str) -> None:
        if self._stopping:
            for child in self._children.values():
                if child.alive:
                    self._out.append(Kill(child.name, child.incarnation, "stop at once"))
            return
        self._stopping = reason
        self._report("INFO", "stopping", self._root.spec.id, reason=reason)
        self._stop_group(self._root)

    # --- operators -------------------------------------------------------------------------------------------------

    def _operator_restart(self, name: str) -> None:
        child = self._children[name]
        if self._stopping:
            return
        group = self._groups[child.spec.group]
        self._report("INFO", "operator", group.spec.id, name, child.incarnation, decision="restart")
        if group.failed:
            group.failed = False
            for member in group.children:
                member.wanted = True
        group.attempts.clear()
        self._cancel_timer(child)
        child.wanted = True
        child.failures = 0
        child.restarts += 1
        child.reason = ""
        if child.alive:
            child.must_stop = True

    def _remove(self, child: Child) -> None:
        child.wanted = False
        child.forget = True
        self._cancel_timer(child)
        if child.alive:
            child.must_stop = True
        else:
            self._forget(child)

    def _forget(self, child: Child) -> None:
        self._cancel_timer(child)
        del self._children[child.name]
        self._groups[child.spec.group].children.remove(child)

    # --- getting there ---------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Issue every stop and start that may happen now."""
        order = self._root.all()
        for child in order:
            if child.must_stop and not child.terminating and self._may_stop(child, order):
                child.terminating = True
                self._terminate(child)
        if self._stopping:
            if not any(child.alive for child in order):
                self._ended = True
                self._report("INFO", "stopped", self._root.spec.id, reason=self._stopping)
                self._out.append(TreeStopped(self._exit_code, self._stopping))
            return
        for child in order:
            if child.wanted and not child.alive and not child.timer and self._may_start(child):
                self._spawn(child)

    def _may_stop(self, child: Child, order: list[Child]) -> bool:
        """Those behind it that are to stop too have stopped."""
        scope = order if self._stopping else self._groups[child.spec.group].all()
        behind = scope[scope.index(child) + 1 :]
        return not any(other.alive and other.must_stop and other.base != child.base for other in behind)

    def _may_start(self, child: Child) -> bool:
        """Nobody of its group is still being stopped, and where order matters those before it are ready."""
        group = self._groups[child.spec.group]
        members = group.all()
        if any(other.must_stop for other in members):
            return False
        if group.spec.strategy is Strategy.ONE_FOR_ONE:
            return True
        before = members[: members.index(child)]
        return all(other.ready or not other.wanted for other in before)

    def _spawn(self, child: Child) -> None:
        self._incarnation += 1
        child.incarnation = self._incarnation
        child.alive = True
        child.ready = False
        self._out.append(Spawn(child.spec, child.incarnation))

    def _terminate(self, child: Child) -> None:
        if child.spec.shutdown == "kill":
            self._out.append(Kill(child.name, child.incarnation, "stop by kill"))
        else:
            self._out.append(Terminate(child.name, child.incarnation, child.spec.shutdown))

    def _report(
        self,
        level: Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        context: Literal["started", "exited", "hung", "gave_up", "stopping", "stopped", "stale", "operator"],
        supervisor: str,
        offender: str = "",
        incarnation: int = 0,
        reason: str = "",
        decision: str = "",
    ) -> None:
        self._out.append(
            Report(
                level=level,
                context=context,
                supervisor=supervisor,
                offender=offender,
                incarnation=incarnation,
                reason=reason,
                decision=decision,
            )
        )
