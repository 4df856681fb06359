# SPDX-License-Identifier: AGPL-3.0-or-later
"""What goes between a workflow's run (`machine.py`) and its owner."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.p2p.workflow_scheduler.events import Event
from actors.task_messages import Cancel, Enqueue

Outputs = Callable[[bytes], str]
"""CID -> JSON text of an output. It knows each one from the moment it was taken (`Changes.outputs`), before it is on
disk, too. Raises LookupError."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one workflow."""

    timeout_s: float = 86_400.0
    """From its begin; after it, it fails with `TIMEOUT`."""
    max_queued: int = 2000
    """Tasks in the queue that have not ended."""
    max_items: int = 10_000
    """Of one `for_each`."""
    max_payload_bytes: int = 1_000_000
    """Of one task."""
    max_output_bytes: int = 64_000_000
    """Of the list that a `for_each` step makes."""
    max_events: int = 500_000
    """Of its clock, about; with more it fails with `LIMIT_EXCEEDED`."""
    max_depends_on: int = 1000
    """Tasks that one task of the queue may wait for; a step waits here until so few of those before it are left."""
    keep_s: float = 86_400.0
    """Tasks can be read for so long after the workflow's latest end."""
    keep_max_s: float = 90 * 86_400.0
    """The queue keeps no task for longer."""
    cached_chars: int = 16_000_000
    """Of outputs that are kept in memory, as texts and as values each; what is not is read with `Outputs`."""


class MemoAsk(msgspec.Struct, frozen=True):
    """Was equal work done before? Answered with `memo_found`."""

    step: str
    index: int | None
    key: bytes


class MemoGain(msgspec.Struct, frozen=True):
    """Work was done whose result equal work may take, for `memo_s`."""

    key: bytes
    output: bytes
    """CID."""


class Commands(msgspec.Struct):
    """What has to be done, in this order: `pause`, `look`, `memo`, `enqueue`, `cancel`."""

    enqueue: list[Enqueue] = []
    """In an order in which the queue knows what each depends on. Answered with `accepted` or `refused`, or `lost`."""
    cancel: list[Cancel] = []
    """A refusal is answered with `refused`; otherwise the task's facts tell."""
    look: list[str] = []
    """Tasks whose facts must be known now. Answered with `observe` (whatever their state) or `gone`, or `lost`."""
    memo: list[MemoAsk] = []
    pause: bool | None = None
    """Pause (or resume) the lane `lane(workflow_id)`; None = leave it."""


class Changes(msgspec.Struct):
    """What was decided since the last `take`. All of it is made durable together before `commands` are carried out."""

    events: list[Event]
    outputs: dict[bytes, str]
    """CID -> JSON text, of outputs and of lists of items."""
    memos: list[MemoGain]
    commands: Commands
    full: bool = False
    """The queue had no room for some, since the last `take`: call `retry_refused` in a while."""


def lane(workflow_id: str) -> str:
    """The fairness key of a workflow's tasks."""
    return f"workflow:{workflow_id}"
