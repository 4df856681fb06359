# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the supervisor's core does about orders of operators: restart, replace, drain, resume, add, remove, reconfigure.

* *Restart* ends a child's life within its `shutdown` time; a ready spare takes its place, or else its next life does.
* *Replace* loses no call and no moment: a *successor* starts beside the child, takes its place when it is ready, and
  the old life may finish its calls for as long as `drain` says. A successor that can't start is forgotten and the child
  works on. A child that can't stand by (`ChildSpec.stands_by`) is restarted instead.
* *Drain* takes a child out of service, whatever life it has, until it is *resumed* or restarted.
* *Reconfigure* makes the tree what a new configuration says: children are added, removed, or given new specs, which
  count from their next life on (the restart type from the present life's end on); those that are named get it at once,
  by being replaced. A child that has done its work and is permanent now starts again: new children start by this order,
  too, unlike in OTP, where a change of code starts nobody. One that was stopped with its group stays so.

No order moves a child to another group: it is removed, and added when it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisor.core_base import CoreBase
from supervisor.events import (
    AddChild,
    DrainChild,
    Reconfigure,
    RemoveChild,
    ReplaceChild,
    RestartChild,
    Resume,
    ResumeChild,
)
from supervisor.members import Child, spare_specs
from supervisor.spec import ChildSpec, GroupSpec, Restart, SpecError

Order = RestartChild | ReplaceChild | DrainChild | ResumeChild | AddChild | RemoveChild | Reconfigure


class Orders(CoreBase):
    """Carries out operators' orders on the state."""

    def _take_order(self, order: Order) -> None:
        if isinstance(order, AddChild):
            self._add(order.spec)
        elif isinstance(order, Reconfigure):
            self._reconfigure(order)
        elif (child := self._children.get(order.name)) is None:
            self._report("WARNING", "operator", self._root, order.name, reason="no such child", decision="refused")
        elif child.forget:
            self._report_child("WARNING", "operator", child, "it is leaving", "refused")
        elif isinstance(order, RestartChild):
            self._report_child("INFO", "operator", child, decision="restart")
            self._operator_restart(child)
        elif isinstance(order, ReplaceChild):
            self._replace(child, order)
        elif isinstance(order, RemoveChild):
            self._report_child("INFO", "operator", child, decision="remove")
            self._remove(child)
        else:
            self._set_drained(child, drained=isinstance(order, DrainChild))

    # --- new lives -------------------------------------------------------------------------------------------------

    def _operator_restart(self, child: Child) -> None:
        if child.group.failed:
            child.group.failed = False
            for member in child.group.children:
                member.wanted = True
        child.group.attempts.clear()
        self._cancel_timer(child)
        child.wanted, child.done = True, False
        child.drained = False
        child.failures = 0
        child.reason = ""
        spare = child.ready_spare()
        if spare is not None:
            self._swap(child, spare)
        else:
            child.must_stop = child.alive

    def _replace(self, child: Child, order: ReplaceChild) -> None:
        if order.incarnation is not None and order.incarnation != child.incarnation:
            self._report("DEBUG", "stale", self._root, order.name, order.incarnation)
        elif not child.spare and child.successor() is not None:
            self._report_child("DEBUG", "operator", child, order.reason, "a successor is on its way")
        elif not child.must_stop:
            self._report_child("WARNING" if order.incarnation else "INFO", "replaced", child, order.reason)
            self._give_successor(child)

    def _give_successor(self, child: Child) -> None:
        """Start the life that takes this one's place; where there is no use for two at once, begin again."""
        earlier = child.successor()
        if earlier is not None:
            self._put_down(earlier)
        if child.spare or not (child.ready and child.spec.stands_by):
            child.must_stop = child.alive
            return
        one_more = msgspec.structs.replace(child.spec, spares=1)
        (spec,) = spare_specs(one_more, taken=self._children)
        self._roster.add(spec, replaces=child)

    def _succeed(self, successor: Child, child: Child) -> None:
        """A successor is ready: it takes the child's place, if the child still has the life that was to be replaced."""
        if child.alive and not child.must_stop and child.incarnation == successor.replaces_incarnation:
            self._swap(child, successor)
            successor.finishing = not successor.terminating
        else:
            self._put_down(successor)

    # --- out of service --------------------------------------------------------------------------------------------

    def _set_drained(self, child: Child, *, drained: bool) -> None:
        self._report_child("INFO", "operator", child, decision="drain" if drained else "resume")
        changed, child.drained = child.drained != drained, drained
        if not changed or not child.ready:
            return
        if drained:
            self._tell_to_drain(child)
        else:
            self._out.append(Resume(child.name, child.incarnation))

    # --- the shape of the tree -------------------------------------------------------------------------------------

    def _add(self, spec: ChildSpec) -> None:
        leaving = self._children.get(spec.id)
        if leaving is not None and leaving.forget:
            if self._refused_to_move(leaving, spec):
                return
            leaving.spec, leaving.forget, leaving.wanted = spec, False, not leaving.group.failed
            return
        try:
            self._roster.add(spec)
        except SpecError as error:
            self._report("ERROR", "operator", self._root, spec.id, reason=str(error), decision="refused")

    def _refused_to_move(self, child: Child, spec: ChildSpec) -> bool:
        """A child lives, ends and is counted in one group for as long as it is known."""
        if spec.group == child.group.spec.id:
            return False
        self._report_child("ERROR", "operator", child, f"it can't move to group {spec.group!r}", "refused")
        return True

    def _remove(self, child: Child) -> None:
        """It finishes its calls, ends, and is forgotten."""
        child.forget = True
        if child.finishing:
            child.wanted = False
            return
        self._put_down(child)
        child.finishing = child.must_stop and not child.terminating and not child.spare

    def _reconfigure(self, order: Reconfigure) -> None:
        self._update_groups(order.groups)
        wanted = {spec.id: spec for spec in order.children}
        for child in list(self._children.values()):
            if not (child.spare or child.forget or child.name in wanted):
                self._remove(child)
        for spec in order.children:
            known = self._children.get(spec.id)
            if known is None or known.forget:
                self._add(spec)
                continue
            if self._refused_to_move(known, spec):
                continue
            known.spec = spec
            if known.done and spec.restart == Restart.PERMANENT:
                self._report_child("INFO", "operator", known, "it is permanent now", "start")
                known.wanted, known.done = True, False
            if spec.id in order.replace and known.alive:
                self._report_child("INFO", "replaced", known, "a new configuration")
                self._give_successor(known)
        self._fit_spares(order)

    def _update_groups(self, specs: Iterable[GroupSpec]) -> None:
        for spec in specs:
            if spec.id in self._groups:
                self._groups[spec.id].spec = spec

    def _fit_spares(self, order: Reconfigure) -> None:
        """As many spares of each base as are configured now; those of replaced children begin anew."""
        renewed = {name.partition("#")[0] for name in order.replace}
        for base in {child.base: None for child in list(self._children.values())}:
            family = [child for child in self._children.values() if child.base == base]
            specs = [child.spec for child in family if not child.spare and not child.forget]
            spares = [child for child in family if child.spare and not child.forget]
            wanted = sum(spec.spares for spec in specs)
            for spare in spares[wanted:]:
                self._remove(spare)
            for spare in spares[:wanted]:
                spare.spec = msgspec.structs.replace(specs[0], id=spare.name, spares=0)
                spare.must_stop = spare.must_stop or (spare.alive and base in renewed)
            if specs and wanted > len(spares):
                missing = msgspec.structs.replace(specs[0], spares=wanted - len(spares))
                for spec in spare_specs(missing, taken=self._children):
                    self._add(spec)
