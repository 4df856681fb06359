# SPDX-License-Identifier: AGPL-3.0-or-later
"""What two nodes say to each other about tasks. Sent over a link, which knows who is on the other side.

The node whose queue has the task is its origin. A task is known by the origin, its id and the fencing token of its
lease: whatever is said under an older token changes nothing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from actors.messages import ErrorInfo

Id = Annotated[str, Meta(min_length=1, max_length=512)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Cid = Annotated[str, Meta(min_length=1, max_length=128)]
Token = Annotated[int, Meta(ge=0, lt=2**63)]
Seconds = Annotated[float, Meta(ge=0.0, le=31_536_000.0)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Text = Annotated[str, Meta(max_length=2000)]


class Offer(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="offer"
):
    """Will you run this? -> `Accepted` or `Refused`. The same offer again gets the same answer and runs once."""

    task_id: Id
    token: Token
    type: Name
    """The tool."""
    payload: str
    """Its arguments, JSON."""
    input_cid: Cid
    """Of the payload's bytes."""
    lease_s: Seconds
    """The work may go on for so long without a sign of life of the origin."""
    timeout_s: Seconds
    """The call's."""
    attempt: Count = 1
    repeat_key: Text = ""
    """The same for all attempts of the task: for tools whose effects must not be doubled."""


class Accepted(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="accepted"
):
    """It runs, or has run and its result is on the way."""

    free_slots: Count


class Refused(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="refused"
):
    """It was not begun."""

    code: Name
    """`BUSY`, or why it never will be: `FORBIDDEN`, `UNKNOWN_TOOL`, `INVALID_PARAMS`, ..."""
    reason: Text
    free_slots: Count


class TaskResult(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="result"
):
    """How a task ended -> `ResultTaken`. Told until it is answered."""

    task_id: Id
    token: Token
    input_cid: Cid
    output: str
    """`actors.tool_tasks.result_text`; '' when there is an error."""
    error: ErrorInfo | None
    output_cid: Cid
    """Of the bytes of `output`, or of the error's."""
    signature: Annotated[str, Meta(max_length=128)]
    """Of `statement.statement` by the node that ran it."""


class ResultTaken(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="taken"
):
    """It was heard. Not accepted = it changes nothing, and never will."""

    accepted: bool
    reason: Text = ""


class TaskProgress(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="progress"
):
    """How far it is. No answer."""

    task_id: Id
    token: Token
    percent: Annotated[float, Meta(ge=0.0, le=100.0)] | None
    text: Text


class TaskCancel(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="cancel"
):
    """The origin does not want it any more. No answer."""

    task_id: Id
    token: Token


class Capacity(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="kind", tag="capacity"
):
    """What this node would take: with each heartbeat, and whenever a slot becomes free. No answer."""

    free_slots: Count
    running: Count
    types: Annotated[list[Name], Meta(max_length=10_000)] | None = None
    """Tools that the other side may have run here; None = as said before."""


Request = Offer | TaskResult
Answer = Accepted | Refused | ResultTaken
Note = TaskProgress | TaskCancel | Capacity
