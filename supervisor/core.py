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
  operator restarts it or a new configuration makes it permanent. The end of a significant one stops its group, in the
  root group the tree.
* A child may have spares: processes that are as ready as it is, and do nothing. They start once the tree is up. When
  the child dies, or is restarted by an operator, a ready spare's life takes its place at once, without any delay, and a
  new spare is started. The death of a spare is no attempt that counts.
* A child can be replaced without a moment in which nobody does its work, be taken out of service, and the tree can be
  given another shape: `supervisor.orders`.
* A stop wins over every restart that is planned. A second one kills what is left at once.

Every event of an incarnation that is no more, or of a child that is not part of the tree, is ignored and reported.
"""

from __future__ import annotations

from supervisor.events import (
    ChildExited,
    ChildHung,
    ChildReady,
    Command,
    Event,
    ExitReason,
    Start,
    StopTree,
    TimerFired,
    TreeStopped,
)
from supervisor.members import Child, Group, Member, flat
from supervisor.orders import Orders
from supervisor.spec import Restart

EXIT_START_FAILED = 1
EXIT_GAVE_UP = 70
"""EX_SOFTWARE of sysexits.h: the service manager may start the tree again."""


class Core(Orders):
    """The state of the whole tree, and what is done about each event."""

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
        elif not isinstance(event, Start) and self._stopping is None:
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
        waiting = next((other for other in child.siblings() if other.timer and not other.spare), None)
        if child.spare and waiting is not None and not child.must_stop:
            self._cancel_timer(waiting)
            self._swap(waiting, child)
        elif child.replaces is not None and not child.must_stop:
            self._succeed(child, child.replaces)
        else:
            self._report_child("INFO", "started", child)
            self._tell_to_drain(child)

    def _child_exited(self, child: Child, reason: ExitReason, now: float) -> None:
        if child.ready and now - child.ready_since >= child.group.spec.backoff.reset_after_s:
            child.failures = 0
        asked = child.must_stop
        child.alive = child.ready = child.must_stop = child.terminating = child.killed = child.finishing = False
        if asked:
            self._report_child("INFO", "exited", child, reason.words, "as asked")
            if child.forget or (child.spec.restart == Restart.TEMPORARY and not child.wanted):
                self._forget(child)
            return
        child.reason = reason.words
        if child.replaces is not None:
            self._report_child("ERROR", "exited", child, reason.words, "no successor; the present life works on")
            self._forget(child)
        elif child.spare:
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

    def _finished(self, child: Child, reason: ExitReason) -> None:
        """It ended and is not started again."""
        normal = reason.kind == "normal"
        decision = "stop the group" if child.spec.significant else "leave it"
        self._report_child("INFO" if normal else "ERROR", "exited", child, reason.words, decision)
        child.wanted, child.done = False, True
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
            if child.spec.restart == Restart.TEMPORARY or child.replaces is not None:
                child.forget = True
                self._put_down(child)
            child.must_stop = child.alive

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
            if group.ordered and any(other.wanted and not other.ready and not other.spare for other in before):
                return False
        return True
