# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values of the workflow scheduler: a workflow's definition, what the scheduler is asked, and what it answers.

They cross process borders, so they keep the rules of `actors/messages.py`. Times are Unix seconds unless a name ends in
`_s` (a length in seconds). Priorities go from 1 to 10, higher earlier.

Inside a step's `inputs`, its `for_each` and its `when`, these JSON objects stand for values (`docs/workflows.md`):

* `{"$from": "step", "path": "/a/0"}`: the output of a step that this one comes after, or the part of it that the JSON
  Pointer (RFC 6901) names; without `path`, all of it.
* `{"$item": "/a"}`: the item of `for_each` that this run of the step is for, or a part of it (`""` = all of it).
* `{"$index": true}`: the place of that item, from 0.
* `{"$literal": ...}`: what is in it, as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from actors.messages import ErrorInfo
from actors.task_messages import PRIORITY_DEFAULT

Name = Annotated[str, Meta(min_length=1, max_length=200)]
StepName = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\[\]:\s]+$")]
"""No `:`, brackets or white space: a task's id is made of it."""

WorkflowStatus = Literal["submitted", "running", "completed", "failed", "cancelled"]
WORKFLOW_ENDED: Final = frozenset({"completed", "failed", "cancelled"})
StepStatus = Literal["pending", "ready", "running", "completed", "failed", "skipped", "cancelled"]
"""`pending` waits for steps before it, `ready` for a worker."""
STEP_ENDED: Final = frozenset({"completed", "failed", "skipped", "cancelled"})
Placement = Literal["local", "p2p", "any"]
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "contains", "exists"]


# --- the definition ------------------------------------------------------------------------------------------------


class StepRetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What follows a failed attempt, as in `task_submit`."""

    max_retries: Annotated[int, Meta(ge=0, le=999)] = 2
    """Further attempts after the first one."""
    backoff_factor: Annotated[float, Meta(ge=1, le=100)] = 2.0


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Data that is true or false once the steps before this one have ended. Exactly one of: `step` with `ended`; `op`
    with `left` and (but for `exists`) `right`; `all`; `any`; `not_`."""

    step: StepName = ""
    """One that this step comes after."""
    ended: list[Literal["completed", "failed", "skipped", "cancelled"]] = []
    """It ended in one of these ways."""
    op: Operator | None = None
    """A comparison that can't be made (of text with a number, or with an output that is not there) is false."""
    left: Any = None
    right: Any = None
    all: list[Condition] | None = None
    any: list[Condition] | None = None
    not_: Condition | None = msgspec.field(name="not", default=None)


When = Literal["on_success", "on_failure", "always"] | Condition
"""`on_success`: all steps that it depends on completed. `on_failure`: one of them failed (or was skipped for a
failure). `always`: they ended. A `Condition` is looked at once they have ended, whatever way."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One call of a tool, or with `for_each` one for each item of a list."""

    step_id: StepName
    action: Name
    """Name of the tool."""
    inputs: dict[str, Any] = {}
    """The tool's arguments."""
    depends_on: list[StepName] = []
    when: When = "on_success"
    """When it does not hold, the step is `skipped`."""
    for_each: Any = None
    """A list, or `$from` for one. The output is the list of their outputs, in order."""
    retry_policy: StepRetry | None = None
    timeout: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    """Seconds for one attempt; None = the tool's own."""
    tags: list[Name] = []
    placement: Placement = "any"
    """Where it runs: on this node, on peers, or wherever there is room."""
    memo: bool = False
    """Take the result of equal work that was done before, if there is one. Only for tools that read."""


class Workflow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is submitted; also the form of the file that `greenroom workflow submit` takes."""

    name: Name
    steps: list[Step]
    workflow_id: Annotated[str, Meta(max_length=80, pattern=r"^[^\[\]:\s]*$")] = ""
    """Empty = one is made."""
    priority: Annotated[float, Meta(ge=1, le=10)] = PRIORITY_DEFAULT
    tags: list[Name] = []
    dependencies: list[Name] = []
    """Workflows that have to complete before this one begins."""
    metadata: dict[str, Any] = {}
    deadline: float | None = None
    """It fails when it has not ended by then."""


# --- what is asked -------------------------------------------------------------------------------------------------


class SubmitWorkflow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Method `workflows/submit` -> `WorkflowSubmitted`, once it is on disk. The same id again: equal content (and
    owner) is `replayed`, other content is `ID_CONFLICT`. A definition with faults is `INVALID_ARGUMENTS`: all faults
    are in `details.faults`, a list of `{step, code, message}`."""

    workflow: Workflow
    owner: str = ""


class WorkflowSubmitted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """It is stored, and will be run."""

    workflow_id: str
    status: WorkflowStatus
    cid: str
    """Of the definition: name and steps."""
    created_at: float
    replayed: bool = False


class GetWorkflow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Method `workflows/get` -> `WorkflowView`. Unknown: `NOT_FOUND`."""

    workflow_id: str
    owner: str | None = None
    """Only when it is his (else `NOT_OWNER`); None = whoever's."""
    steps: bool = True
    outputs: bool = False
    """With the outputs of its steps."""
    wait_s: float = 0.0
    """Wait so long for its end,"""
    newer_than: int | None = None
    """or until `version` is greater than this."""


class StepView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A step as it is now."""

    step_id: str
    action: str
    status: StepStatus
    cid: str
    """Of tool, inputs, policy, and the steps before it."""
    depends_on: list[str] = []
    task_id: str = ""
    """Of the queue; with `for_each` one for each item: this with `[0]`, `[1]`, ... behind it."""
    attempt: int = 0
    worker: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    items: int | None = None
    """Of `for_each`, once they are known."""
    items_ended: int = 0
    memo: bool = False
    """Its result is that of equal work done before."""
    result: str = ""
    """CID of its output."""
    output: str | None = None
    """JSON text."""
    error: ErrorInfo | None = None
    reason: str = ""
    """Why it was skipped or cancelled."""


class WorkflowView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workflow as it is now."""

    workflow_id: str
    name: str
    cid: str
    owner: str
    status: WorkflowStatus
    version: int
    """Grows with each change."""
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    deadline: float | None = None
    paused: bool = False
    cancelling: bool = False
    priority: float = PRIORITY_DEFAULT
    tags: list[str] = []
    dependencies: list[str] = []
    metadata: dict[str, Any] = {}
    counts: dict[StepStatus, int] = {}
    """Steps by status."""
    steps: list[StepView] = []
    """In an order in which they can run."""
    reason: str = ""
    """Why it was cancelled, or what it waits for."""
    error: ErrorInfo | None = None
    heads: list[str] = []
    """CIDs of the newest events: the Merkle clock's time."""
    events: int = 0


class ListWorkflows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Method `workflows/list` -> `WorkflowPage`: newest first."""

    status: WorkflowStatus | None = None
    owner: str | None = None
    worker: str = ""
    """A worker or peer that did one of its steps."""
    tags: list[str] = []
    """All of them."""
    limit: int = 50
    offset: int = 0


class WorkflowPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some workflows, without their steps and metadata, and how many there are."""

    workflows: list[WorkflowView]
    total: int


class ControlWorkflow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Method `workflows/control` -> `WorkflowControlled`. One that has ended is `INVALID_STATE`; a repeat is
    harmless."""

    workflow_id: str
    what: Literal["cancel", "pause", "resume"]
    owner: str | None = None
    reason: str = ""
    force: bool = False
    """Of `cancel`: take running steps from their workers now."""


class WorkflowControlled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """It is stored; running steps may take a moment to stop."""

    workflow_id: str
    status: WorkflowStatus
    steps: list[str] = []
    """Of `cancel`: steps that will not complete."""


class ExportWorkflow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Method `workflows/export` -> null; the items are pieces (`bytes`) of a CAR file (version 1,
    https://ipld.io/specs/transport/car/carv1/) whose roots are the heads: events, definition and outputs."""

    workflow_id: str
    owner: str | None = None


# --- work at peers -------------------------------------------------------------------------------------------------


class OfferStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `workflows/offer` -> `StepIsOffered`: a leased task of a workflow is about to be offered to a peer.
    Unknown workflow or task: `NOT_FOUND`; nothing is to be done for it any more: `INVALID_STATE`."""

    workflow_id: str
    owner: str
    task_id: str
    token: int
    attempt: int
    peer: str
    input: bytes
    """CID of the arguments as they are sent."""


class StepIsOffered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where in the workflow's Merkle clock the peer's next event comes."""

    after: bytes
    """CID of the event that says so; nothing is newer."""
    height: int
    """Of the peer's event."""
    seq: int
    """Its number."""


class PeerEnded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an attempt has ended at a peer."""

    task_id: str
    token: int
    result: bytes = b""
    """CID of the output; empty: it failed."""


class MergeEvents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `workflows/merge` -> null: what a peer says of its work for a workflow. All of it is stored, or none:
    `BAD_EVENT` when one of the events is not sound, or none says what `ended` does. Unknown workflow: `NOT_FOUND`; it
    has ended: `INVALID_STATE`. The same again changes nothing."""

    workflow_id: str
    peer: str
    events: list[tuple[bytes, bytes]]
    """Node and payload, oldest first; at most `MOST_PEER_EVENTS`."""
    ended: PeerEnded | None = None


MOST_PEER_EVENTS: Final = 64
"""That are told at once."""


class WorkflowStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `workflows/stats` (null)."""

    counts: dict[WorkflowStatus, int]
    """Ended ones while they are kept."""
    workflows: dict[str, int]
    """Since the scheduler's store was made: `submitted, completed, failed, cancelled`."""
    steps: dict[str, int]
    """Since the scheduler's store was made: `completed, failed, skipped, cancelled, memoised`."""
    store: dict[str, Any]


class WorkflowChanged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="workflow_changed"):
    """Item of method `workflows/watch` (null), which never ends. Empty = any workflow."""

    ids: list[str]


def step_task_id(workflow_id: str, step_id: str, index: int | None = None) -> str:
    """Id of the queue's task that does a step, or one item of it."""
    return f"{workflow_id}:{step_id}" if index is None else f"{workflow_id}:{step_id}[{index}]"
