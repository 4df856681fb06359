# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the scheduler's store takes and gives. Times are Unix seconds."""

from __future__ import annotations

from collections import Counter

import msgspec

from actors.workflow_messages import WorkflowView


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as it was submitted."""

    id: str
    owner: str
    workflow: bytes
    """JSON of `workflow_messages.Workflow`, its id included."""
    digest: bytes
    """Of that and the owner: equal submissions have equal ones."""
    cid: bytes
    """Of its definition."""
    created_at: float


class EventRow(msgspec.Struct, frozen=True):
    """One event of the Merkle clock."""

    cid: bytes
    node: bytes
    payload: bytes


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What lists show of a workflow, and with its end all that is shown of its steps."""

    view: WorkflowView
    """Without steps and metadata."""
    whole: WorkflowView | None = None
    """With them, but without outputs; once it has ended. None = as it was written before."""
    open: bool = True
    """There is something left to do for it: after its end, too, until the last commands were carried out."""
    drop_at: float | None = None


class Change(msgspec.Struct, kw_only=True):
    """What happened to one workflow since it was written last."""

    id: str
    new: Submission | None = None
    events: list[EventRow] = []
    blocks: dict[bytes, bytes] = {}
    """CID -> definition, output or list of items."""
    workers: set[str] = set()
    """That did one of its steps, or tried."""
    head: Head | None = None


class Batch(msgspec.Struct, kw_only=True):
    """What is written in one transaction."""

    changes: list[Change] = []
    memos: dict[bytes, str] = {}
    """Key -> JSON text of the output."""
    tally: Counter[str] = msgspec.field(default_factory=Counter)
    """What is added to the counters that last."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that is stored, without what is large."""

    id: str
    owner: str
    digest: bytes
    view: WorkflowView
    """As it was when its status changed last, without steps and metadata."""
    open: bool
