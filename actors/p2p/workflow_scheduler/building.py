# SPDX-License-Identifier: AGPL-3.0-or-later
"""Makes runs: of what is submitted, and of what is stored."""

from __future__ import annotations

import msgspec

from actors.p2p.workflow_scheduler.definition import DefinitionLimits, Plan, check, plan_of
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.events import Signer
from actors.p2p.workflow_scheduler.machine import WorkflowRun
from actors.p2p.workflow_scheduler.records import Submission
from actors.p2p.workflow_scheduler.run_values import Rules
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.p2p.workflow_scheduler.tool_table import ToolTable
from actors.p2p.workflow_scheduler.unwritten import Unwritten
from actors.workflow_messages import Workflow

_decode = msgspec.json.Decoder(Workflow).decode


class Builder:
    """See the module's text."""

    def __init__(
        self,
        store: WorkflowStore,
        tools: ToolTable,
        signer: Signer,
        rules: Rules,
        limits: DefinitionLimits,
    ) -> None:
        self.tools = tools
        self.unwritten = Unwritten(lambda workflow_id, cid: _text_of(store, workflow_id, cid))
        self._store = store
        self._signer = signer
        self._rules = rules
        self._limits = limits

    def check(self, workflow: Workflow) -> Plan:
        """A plan of what is submitted. Raises `InvalidArgumentsError` with all its faults."""
        return check(workflow, self.tools, self._limits)

    def new(self, plan: Plan, owner: str, now: float) -> WorkflowRun:
        """The run of a new workflow."""
        workflow_id = plan.workflow.workflow_id
        return WorkflowRun.submit(
            plan,
            EventClock(),
            self._signer,
            self._rules,
            workflow_id=workflow_id,
            owner=owner,
            tools=self.tools,
            outputs=self.unwritten.of(workflow_id),
            now=now,
        )

    def stored(self, submission: Submission, now: float) -> WorkflowRun:
        """The run of one that was submitted before. Blocks."""
        clock = EventClock()
        for row in self._store.events(submission.id):
            clock.add(row.node, row.payload, cid=row.cid, trusted=True)
        return WorkflowRun.replayed(
            plan_of(_decode(submission.workflow)),
            clock,
            self._signer,
            self._rules,
            workflow_id=submission.id,
            owner=submission.owner,
            tools=self.tools,
            outputs=self.unwritten.of(submission.id),
            now=now,
        )


def _text_of(store: WorkflowStore, workflow_id: str, cid: bytes) -> str | None:
    data = store.blocks(workflow_id, [cid]).get(cid)
    return None if data is None else data.decode()
