# SPDX-License-Identifier: AGPL-3.0-or-later
"""What two nodes say to each other on a link.

Every field is bounded, and unknown ones are refused: what was decoded is small enough to be kept and may be wrong in
its meaning only. JSON travels as text. Times are Unix seconds by the clock of whoever names them, unless a name ends in
`_s` (a length in seconds). Tokens are fencing tokens of the task queue that owns the task.

`ANSWERS` tells which messages are requests and what answers each; `NOTES` are those that nobody answers.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(min_length=1, max_length=200)]
"""Of a task, a type, a tool, a capability."""
NameOrNone = Annotated[str, Meta(max_length=200)]
Names = Annotated[list[Name], Meta(max_length=1000)]
Text = Annotated[str, Meta(max_length=2000)]
Json = Annotated[str, Meta(max_length=1 << 20)]
Token = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Place = Annotated[int, Meta(ge=1, le=1_000_000)]
"""In a line, from 1."""
Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
Time = Annotated[float, Meta(ge=0, le=1e11)]
Cid = Annotated[str, Meta(max_length=128)]
"""Empty = none."""
Load = Annotated[float, Meta(ge=0, le=1_000_000)]


class Said(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    gc=False,
):
    """What all messages have in common: nothing but their rules."""


class Problem(Said, frozen=True, tag="problem"):
    """Why a request was not answered: an `ErrorInfo` whose details are JSON."""

    code: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Text
    retryable: bool = False
    details: Annotated[str, Meta(max_length=4096)] = ""
    """A JSON object; empty = none."""


# --- tasks ---------------------------------------------------------------------------------------------------------


class ClockPlace(Said, frozen=True, tag="clock_place"):
    """Where the events of the peer's work come in the Merkle clock of the workflow that it is for."""

    workflow_id: Name
    after: Cid
    """CID of the event that comes before them."""
    height: Place
    """Of the peer's next event, as far as the sender knows,"""
    seq: Place
    """and its number."""


class WorkEvent(Said, frozen=True, tag="work_event"):
    """An event of a workflow's Merkle clock, made by the sender."""

    node: Annotated[bytes, Meta(max_length=2048)]
    payload: Annotated[bytes, Meta(max_length=2048)]


class Offer(Said, frozen=True, tag="offer"):
    """Work for the peer -> `Accepted` or `Refused`. The result comes as a `TaskResult` from the other side."""

    task_id: Name
    token: Token
    type: Name
    payload: Json
    lease_s: Seconds
    """So long the task is the peer's without a `Progress`."""
    input_cid: Cid = ""
    """Of the payload."""
    deadline: Time | None = None
    attempt: Count = 1
    timeout_s: Seconds | None = None
    """For this attempt."""
    idempotency_token: NameOrNone = ""
    """The same work again has the same one."""
    clock: ClockPlace | None = None
    """Of a workflow's step."""


class Accepted(Said, frozen=True, tag="accepted"):
    """The peer has begun, or will at once."""

    free_slots: Count = 0
    """How many more tasks it would take."""


class Refused(Said, frozen=True, tag="refused"):
    """The peer does not take the task."""

    reason: Text
    free_slots: Count = 0
    code: NameOrNone = ""
    """`BUSY`, or why it never will: `FORBIDDEN`, `UNKNOWN_TOOL`, `INVALID_PARAMS`, ..."""


class TaskResult(Said, frozen=True, tag="task_result"):
    """An accepted task has ended: `output` or `error` -> `ResultTaken`."""

    task_id: Name
    token: Token
    input_cid: Cid = ""
    output: Json | None = None
    """The tool's result as JSON."""
    error: Problem | None = None
    output_cid: Cid = ""
    signature: Annotated[str, Meta(max_length=128)] = ""
    workflow_id: NameOrNone = ""
    """Of a workflow's step."""
    events: Annotated[list[WorkEvent], Meta(max_length=64)] = []
    """All that the sender did for the workflow and does not know the owner to have, oldest first."""


class ResultTaken(Said, frozen=True, tag="result_taken"):
    """Whether the owner's queue has accepted the result. If not, the task was somebody else's by then."""

    accepted: bool
    reason: Text = ""
    merged: bool = False
    """The owner has the events, or never will want them."""


class Progress(Said, frozen=True, tag="progress"):
    """Note: the task is being worked on; its lease goes on."""

    task_id: Name
    token: Token
    percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    text: Text = ""


class TaskCancel(Said, frozen=True, tag="task_cancel"):
    """Note: the result is not wanted any more."""

    task_id: Name
    token: Token


class Pull(Said, frozen=True, tag="pull"):
    """Note: the sender has nothing to do and would like `Offer`s of what it told that it runs."""

    n: Annotated[int, Meta(ge=1, le=1000)] = 1


class Heartbeat(Said, frozen=True, tag="heartbeat"):
    """Note: the sender lives, and has this much to do."""

    free_slots: Count = 0
    running: Count = 0
    load: Load = 0.0
    """Of its machine: runnable processes per core."""


# --- tools, and the node itself ------------------------------------------------------------------------------------


class CallTool(Said, frozen=True, tag="call_tool"):
    """Run a tool of the peer -> `ToolAnswer`."""

    name: Name
    arguments: Json = "{}"
    timeout_s: Seconds = 30.0
    """Time that is left."""
    token: Text = ""
    """A call token, where the peer wants one."""
    idempotency_token: NameOrNone = ""


class ToolAnswer(Said, frozen=True, tag="tool_answer"):
    """What the tool answered."""

    result: Json
    """As `actors.tool_tasks.result_text` writes it."""


class Echo(Said, frozen=True, tag="echo"):
    """Say the same -> `Echo`. For measuring."""

    data: Annotated[bytes, Meta(max_length=1 << 20)] = b""


class Describe(Said, frozen=True, tag="describe"):
    """Say who you are -> `PeerDescription`."""


class PeerDescription(Said, frozen=True, tag="peer_description"):
    """What a node says of itself, as far as the other side may know it."""

    agent: NameOrNone = ""
    """Program and version."""
    capabilities: Names = []
    task_types: Names = []
    tools: Names = []
    """That the other side may call."""
    protocols: Annotated[list[Name], Meta(max_length=64)] = []
    addresses: Annotated[list[Annotated[str, Meta(min_length=1, max_length=512)]], Meta(max_length=32)] = []
    free_slots: Count = 0
    running: Count = 0
    load: Load = 0.0
    uptime_s: Seconds = 0.0


class FindPeers(Said, frozen=True, tag="find_peers"):
    """Say whom you know -> `PeersFound`."""

    n: Annotated[int, Meta(ge=1, le=1000)] = 100


class PeerPlace(Said, frozen=True, tag="peer_place"):
    """Where a peer was reached lately."""

    peer_id: Annotated[str, Meta(min_length=1, max_length=128)]
    addresses: Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=8)]


class PeersFound(Said, frozen=True, tag="peers_found"):
    """Hearsay: none of it is proven."""

    peers: Annotated[list[PeerPlace], Meta(max_length=1000)] = []


class End(Said, frozen=True, tag="end"):
    """The last that a side says. Of a link's own; never given to a handler."""

    reason: Annotated[str, Meta(max_length=200)] = ""
    last_id: Token = 0
    """Requests with higher ids were not taken: nothing of them was done."""


Request = Offer | TaskResult | CallTool | Echo | Describe | FindPeers
Answer = Accepted | Refused | ResultTaken | ToolAnswer | Echo | PeerDescription | PeersFound
Note = Progress | TaskCancel | Pull | Heartbeat
Message = Request | Answer | Note
Body = Message | Problem | End

ANSWERS: Final[dict[type[Said], tuple[type[Said], ...]]] = {
    Offer: (Accepted, Refused),
    TaskResult: (ResultTaken,),
    CallTool: (ToolAnswer,),
    Echo: (Echo,),
    Describe: (PeerDescription,),
    FindPeers: (PeersFound,),
}
"""Request -> what may answer it."""
NOTES: Final[frozenset[type[Said]]] = frozenset({Progress, TaskCancel, Pull, Heartbeat})
