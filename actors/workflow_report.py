# SPDX-License-Identifier: AGPL-3.0-or-later
"""What was found out about the export of a workflow (`greenroom workflow verify`). Units as in
`actors/workflow_messages.py`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from actors.messages import ErrorInfo
from actors.workflow_messages import StepStatus, WorkflowStatus

MOST_EXPORT_BYTES: Final = 1 << 30
"""Of an export that is read."""

Code = Literal[
    "FILE",
    "BLOCK",
    "ROOTS",
    "MISSING",
    "EVENT",
    "SIGNER",
    "FORK",
    "SUBMITTED",
    "DEFINITION",
    "PAYLOAD",
    "STEP",
    "ORDER",
    "AFTER_END",
    "TWICE",
    "TOKEN",
    "OUTPUT",
    "STATUS",
    "PEER",
]
"""* `FILE`: it can't be read as a CAR file. `BLOCK`: a block is not what its CID says. `ROOTS`: the file's roots are
  not the newest events. `MISSING`: a block that is needed is not there.
* `EVENT`: an event is none (its form, size, signature, height, parents, number). `SIGNER`: it was made by somebody
  else than was said. `FORK`: a peer made two events that each claim to be its next one.
* `SUBMITTED`: the workflow does not begin with its submission, or begins more than once. `DEFINITION`: the block that
  it names defines no workflow. `PAYLOAD`: an event does not say what its kind says. `STEP`: it speaks of a step or
  item that does not exist.
* `ORDER`: it happened before something that it has to come after. `AFTER_END`: it happened after the end of its step
  or workflow. `TWICE`: a step, an item or the workflow ended more than once. `TOKEN`: an older attempt was accepted
  after a newer one had begun. `OUTPUT`: an output is not JSON, or not made of the outputs that it is made of.
  `STATUS`: the workflow's end does not fit its steps'. `PEER`: a peer speaks of what it was not offered, or contradicts
  itself or what was accepted from it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something that is wrong."""

    code: Code
    message: str
    event: str = ""
    """CID of the event, or of the block."""
    step: str = ""
    """Its id; of an item, with its place behind it (`a[3]`)."""


class ReplayedStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the events say of a step."""

    step_id: str
    action: str
    status: StepStatus
    attempts: int = 0
    """Of `for_each`: of its items together."""
    workers: list[str] = []
    peers: list[str] = []
    """Other nodes that say, signed, that they worked on it."""
    started_at: float | None = None
    ended_at: float | None = None
    items: int | None = None
    items_ended: int = 0
    memo: bool = False
    result: str = ""
    """CID of its output."""
    error: ErrorInfo | None = None
    reason: str = ""


class WorkflowReport(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Result of `workflow verify`."""

    sound: bool
    """There are no findings."""
    events: int = 0
    """That are sound in themselves."""
    peers: list[str] = []
    """Who signed them."""
    heads: list[str] = []
    workflow_id: str = ""
    owner: str = ""
    name: str = ""
    cid: str = ""
    """Of the definition."""
    status: WorkflowStatus | None = None
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    error: ErrorInfo | None = None
    steps: list[ReplayedStep] = []
    findings: list[Finding] = []
    """The first hundred."""
    findings_total: int = 0
    missing_outputs: list[str] = []
    """CIDs of outputs that are not in the file, the first hundred. That is no finding: they may be too old."""
    missing_outputs_total: int = 0
    unused_blocks: int = 0
    """Blocks that nothing names. They say nothing."""
