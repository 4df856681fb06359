# SPDX-License-Identifier: AGPL-3.0-or-later
"""Is an exported workflow what it says it is? Nothing but the file is needed, and nothing in it is believed.

From the file's roots (the newest events) all others are reached by their CIDs, down to the submission, which names the
definition. So a changed, missing or added event shows; that the signers are the right ones is for the reader to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import libipld
import msgspec

from actors.p2p.cids import cid_text
from actors.p2p.workflow_scheduler import car, verify_rules
from actors.p2p.workflow_scheduler.content import workflow_of
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.findings import Findings, Said
from actors.p2p.workflow_scheduler.payloads import KINDS, StepCompleted, StepExpanded, Submitted
from actors.p2p.workflow_scheduler.verify_outputs import check_outputs
from actors.p2p.workflow_scheduler.verify_replay import replay
from actors.workflow_messages import Workflow
from actors.workflow_report import WorkflowReport

_MOST_LISTED: Final = 100


def verified(data: bytes, *, signers: Collection[str] = (), limits: car.CarLimits | None = None) -> WorkflowReport:
    """What the file says, and all that is wrong with it. With `signers`, events by other peers are wrong, too."""
    findings = Findings()
    try:
        found = car.read(data, limits)
    except car.BadCarError as error:
        findings.add("FILE", error.message)
        return WorkflowReport(sound=False, findings=findings.kept, findings_total=findings.total)
    return _Verifier(found, findings).report(signers)


class _Verifier:
    def __init__(self, file: car.Car, findings: Findings) -> None:
        self.file = file
        self.findings = findings
        self.named: set[bytes] = set()
        """Blocks that something names."""

    def report(self, signers: Collection[str]) -> WorkflowReport:
        for cid in self.file.damaged:
            self.findings.add("BLOCK", "the block is not what its CID says", cid)
        clock = self._clock()
        self._check_signers(clock, signers)
        said = list(self._said(clock))
        submitted = self._submitted(said)
        workflow = self._definition(submitted)
        verify_rules.check(clock, said, workflow, self.findings)
        missing = self._missing_outputs(said)
        check_outputs(said, self.file.blocks, self.findings)
        report = WorkflowReport(
            sound=False,
            events=len(clock),
            peers=sorted({event.peer for event in clock.ordered()}),
            heads=sorted(cid_text(head) for head in clock.heads),
            missing_outputs=[cid_text(cid) for cid in missing[:_MOST_LISTED]],
            missing_outputs_total=len(missing),
            unused_blocks=len(self.file.blocks.keys() - self.named),
        )
        if submitted is not None:
            report.workflow_id, report.owner = submitted.workflow_id, submitted.owner
            report.cid = cid_text(submitted.workflow)
        replay(said, workflow, report, self.findings)
        report.findings, report.findings_total = self.findings.kept, self.findings.total
        report.sound = not self.findings.total
        return report

    # --- events ------------------------------------------------------------------------------------------------

    def _clock(self) -> EventClock:
        clock = EventClock()
        roots = frozenset(self.file.roots)
        if not roots:
            self.findings.add("ROOTS", "the file has no roots, so no events")
        merged = clock.merge(self._pairs())
        for error in merged.refused:
            self.findings.add("EVENT", error.message, error.cid)
        if not merged.refused and not self.findings.total and clock.heads != roots:
            self.findings.add("ROOTS", "the file's roots are not the newest events")
        return clock

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Nodes and their payloads, from the roots downwards."""
        todo, seen = list(dict.fromkeys(self.file.roots)), set(self.file.roots)
        while todo:
            cid = todo.pop()
            node = self._needed(cid, "event")
            if node is None:
                continue
            payload, parents = _links(node)
            if payload is None:
                self.findings.add("EVENT", "the block is no event", cid)
                continue
            for parent in parents:
                if parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
            block = self._needed(payload, "payload")
            if block is not None:
                yield node, block

    def _needed(self, cid: bytes, what: str) -> bytes | None:
        self.named.add(cid)
        block = self.file.blocks.get(cid)
        if block is None:
            self.findings.add("MISSING", f"the {what} is not in the file", cid)
        return block

    def _check_signers(self, clock: EventClock, signers: Collection[str]) -> None:
        numbers: set[tuple[str, int]] = set()
        others: dict[str, list[bytes]] = {}
        for event in clock.ordered():
            if signers and event.peer not in signers:
                others.setdefault(event.peer, []).append(event.cid)
            if (event.peer, event.seq) in numbers:
                self.findings.add("FORK", f"{event.peer} made two events with the number {event.seq}", event.cid)
            numbers.add((event.peer, event.seq))
        for peer, events in others.items():
            self.findings.add("SIGNER", f"{len(events)} signed by {peer}, this one first", events[0])

    def _said(self, clock: EventClock) -> Iterator[Said]:
        for event in clock.ordered():
            kind = KINDS.get(event.kind)
            if kind is None:
                self.findings.add("PAYLOAD", f"there is no kind of event {event.kind!r}", event.cid)
                continue
            try:
                yield Said(event, msgspec.convert(event.payload, kind))
            except msgspec.ValidationError as error:
                self.findings.add("PAYLOAD", f"its payload is not that of {event.kind}: {error}", event.cid)

    # --- what they name ----------------------------------------------------------------------------------------

    def _submitted(self, said: list[Said]) -> Submitted | None:
        first: Submitted | None = None
        for event, fact in said:
            if not event.parents and not isinstance(fact, Submitted):
                self.findings.add("SUBMITTED", f"{event.kind} comes after nothing", event.cid)
            elif isinstance(fact, Submitted) and (event.parents or first is not None):
                self.findings.add("SUBMITTED", "it is submitted a second time", event.cid)
            elif isinstance(fact, Submitted):
                first = fact
        if first is None:
            self.findings.add("SUBMITTED", "there is no submission")
        return first

    def _definition(self, submitted: Submitted | None) -> Workflow | None:
        block = None if submitted is None else self._needed(submitted.workflow, "definition")
        if submitted is None or block is None:
            return None
        try:
            return workflow_of(block)
        except ValueError as error:
            self.findings.add("DEFINITION", str(error)[:500], submitted.workflow)
            return None

    def _missing_outputs(self, said: list[Said]) -> list[bytes]:
        damaged = frozenset(self.file.damaged)
        missing: dict[bytes, None] = {}
        for _, fact in said:
            link = fact.result if isinstance(fact, StepCompleted) else None
            link = fact.items if isinstance(fact, StepExpanded) else link
            if link is None:
                continue
            self.named.add(link)
            if link not in self.file.blocks and link not in damaged:
                missing[link] = None
        return list(missing)


def _links(node: bytes) -> tuple[bytes | None, list[bytes]]:
    """The payload and the parents that a node names, as far as it is one."""
    try:
        fields: Any = libipld.decode_dag_cbor(node)
    except (ValueError, RecursionError):
        return None, []
    if not isinstance(fields, dict):
        return None, []
    payload, parents = fields.get("payload"), fields.get("parents")
    if not isinstance(payload, bytes) or not isinstance(parents, list):
        return None, []
    return payload, [parent for parent in parents if isinstance(parent, bytes)]
