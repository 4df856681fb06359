# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the events of a workflow say, by kind. `at` is when it happened, in Unix milliseconds. More fields may follow
in later versions; readers pass over them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from actors.workflow_messages import StepName

Link = Annotated[bytes, Meta(min_length=36, max_length=36)]
Time = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
PeerId = Annotated[str, Meta(min_length=1, max_length=100)]
Number = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened."""

    at: Time


class Submitted(Fact, frozen=True, kw_only=True):
    """The first event."""

    workflow: Link
    """The block that defines it."""
    workflow_id: str
    owner: str


class Begun(Fact, frozen=True, kw_only=True):
    """It runs."""


class Paused(Fact, frozen=True, kw_only=True):
    """No step begins."""

    reason: str = ""


class Resumed(Fact, frozen=True, kw_only=True):
    """Steps begin again."""


class Cancelling(Fact, frozen=True, kw_only=True):
    """It is to end before its time. With `code` it fails, else it is cancelled."""

    reason: str = ""
    force: bool = False
    code: str = ""


class Error(msgspec.Struct, frozen=True):
    """Why something failed."""

    code: str
    message: str


class Ended(Fact, frozen=True, kw_only=True):
    """Nothing follows; steps that have not ended are cancelled with it."""

    status: Literal["completed", "failed", "cancelled"]
    error: Error | None = None


class Merged(Fact, frozen=True, kw_only=True):
    """Several newest events are one."""


class StepFact(Fact, frozen=True, kw_only=True):
    """Something happened to a step, or with `index` to one item of it."""

    step: StepName
    index: Number | None = None


class StepReady(StepFact, frozen=True, kw_only=True):
    """It may be done."""


class StepExpanded(StepFact, frozen=True, kw_only=True):
    """The items of its `for_each` are known."""

    items: Link
    count: Number


class Attempted(StepFact, frozen=True, kw_only=True):
    """One attempt of a task. Without one (a list of items, a result of equal work) `task` is empty."""

    task: str = ""
    attempt: Number = 0
    token: Number = 0
    """Grows with each attempt."""
    worker: str = ""


class StepStarted(Attempted, frozen=True, kw_only=True):
    """A worker took it."""


class StepCompleted(Attempted, frozen=True, kw_only=True):
    """It has an output."""

    result: Link
    memo: bool = False
    """Of equal work that was done before."""
    started: Time | None = None


class StepFailed(Attempted, frozen=True, kw_only=True):
    """It failed for good. Without an attempt it could not be begun."""

    error: Error
    started: Time | None = None


class StepOffered(Attempted, frozen=True, kw_only=True):
    """A peer is about to be asked for this attempt. What the peer then says of it comes after this event."""

    peer: PeerId
    input: Link
    """Its arguments, as they are sent."""


class StepSkipped(StepFact, frozen=True, kw_only=True):
    """It is not to be done."""

    reason: str


class StepCancelled(StepFact, frozen=True, kw_only=True):
    """It was stopped, or will not be done."""

    reason: str


class PeerFact(Fact, frozen=True, kw_only=True):
    """A peer that was offered an attempt says something of it, with its own signature and by its own clock. It tells
    who did what; what becomes of the step is what the queue says."""

    offer: Link
    """The event `step_offered`."""
    task: str
    attempt: Number
    token: Number
    input: Link


class PeerStarted(PeerFact, frozen=True, kw_only=True):
    """It has begun. An attempt without an end at the peer was stopped, or its end was never heard of."""


class PeerCompleted(PeerFact, frozen=True, kw_only=True):
    """It has an output."""

    result: Link


class PeerFailed(PeerFact, frozen=True, kw_only=True):
    """It has none."""

    error: Error


PeerEnd = PeerCompleted | PeerFailed
StepEnd = StepCompleted | StepFailed | StepSkipped | StepCancelled

KINDS: Final[dict[str, type[Fact]]] = {
    "submitted": Submitted,
    "begun": Begun,
    "paused": Paused,
    "resumed": Resumed,
    "cancelling": Cancelling,
    "ended": Ended,
    "merged": Merged,
    "step_ready": StepReady,
    "step_expanded": StepExpanded,
    "step_started": StepStarted,
    "step_completed": StepCompleted,
    "step_failed": StepFailed,
    "step_offered": StepOffered,
    "step_skipped": StepSkipped,
    "step_cancelled": StepCancelled,
    "peer_started": PeerStarted,
    "peer_completed": PeerCompleted,
    "peer_failed": PeerFailed,
}
PEER_KINDS: Final = frozenset({"peer_started", "peer_completed", "peer_failed"})
"""What is said by other nodes than the one that runs the workflow."""
