# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values of the durable task queue: what it is asked (`Op`), what it answers, and the task itself (`Task`).

They cross process borders, so they keep the rules of `actors/messages.py`. Each operation is a method of the task queue
actor named by its tag (`tasks/enqueue`, ...); method `tasks/apply` takes many at once (`Ops` -> `Outcomes`).

What it tells without changing anything is in `actors/task_views.py`.

Times are Unix seconds by the clock of the queue's owner, unless a name ends in `_s` (a length in seconds). Priorities
go from 1 to 10, higher earlier. Payloads, results, questions and answers are JSON text and travel as they came.
Delivery is at least once; one result is accepted.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from actors.messages import ErrorInfo

PRIORITY_DEFAULT: Final = 5.0
ASK_ALONE: Final = "ASK_ALONE"
"""Code of a refusal in `Outcomes`: the answer was too large for the common message; the same operation, sent by its own
method, is answered with it."""


class TaskState(StrEnum):
    """Where a task is. To people, the first three are `queued`, and `leased` is `running` (`status_of`)."""

    BLOCKED = "blocked"
    """Waits for tasks that it depends on."""
    SCHEDULED = "scheduled"
    """Waits for its time: the first start, or the next attempt."""
    READY = "ready"
    LEASED = "leased"
    """Somebody works on it, until its lease ends."""
    COMPLETED = "completed"
    FAILED = "failed"
    """Finally: a dead letter."""
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """A task that it depends on did not complete."""


FINAL: Final = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED})
Status = Literal["queued", "running", "completed", "failed", "cancelled", "skipped"]


def status_of(state: TaskState) -> Status:
    """A state in the words of the tools."""
    if state == TaskState.LEASED:
        return "running"
    return state.value if state in FINAL else "queued"  # type: ignore[return-value]


def made_id(now: float, drawn: bytes) -> str:
    """An id for a task: 12 hex digits of the time in milliseconds, so that tasks of one time lie together where they
    are kept (random ids cost three times as much there), and those of 16 random bytes, so that nobody can guess it."""
    return f"{int(now * 1000):012x}{drawn.hex()}"


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a failed attempt is followed by another one."""

    max_attempts: int = 3
    """Attempts in all; 0 = without end."""
    base_s: float = 2.0
    """Bound of the wait after the first attempt; the wait is drawn between 0 and the bound."""
    factor: float = 2.0
    """The bound grows by it with each attempt."""
    cap_s: float = 300.0
    """The bound never exceeds it."""


class Task(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A task with all that is known of it."""

    id: str
    type: str
    """Name of the tool that does it, or any word that external workers know."""
    state: TaskState
    payload: str = "{}"
    """A JSON object."""
    links: bool = False
    """See `Enqueue`."""
    model_name: str = ""
    owner: str = ""
    """Who submitted it (principal)."""
    key: str = ""
    """Idempotency key, unique per owner."""
    priority: float = PRIORITY_DEFAULT
    next_priority: float | None = None
    """Counts from the next attempt on."""
    fairness_key: str = ""
    """Tasks of different keys take turns."""
    tags: list[str] = []
    metadata: str = "{}"
    """A JSON object."""
    needs: list[str] = []
    """Capabilities that its worker must have."""
    depends_on: list[str] = []
    sticky_worker: str = ""
    """Kept for this worker while that one is alive."""
    retry: Retry = Retry()
    retry_of: str = ""
    """The failed or cancelled task that this one does again."""
    timeout_s: float | None = None
    """For one attempt; the worker keeps it."""
    queue_timeout_s: float | None = None
    """It fails when it was never claimed for so long."""
    deadline: float | None = None
    """It fails when it has not ended by then."""
    keep_s: float | None = None
    """How long it can be read after its end; None = the queue's setting."""
    created_at: float = 0.0
    updated_at: float = 0.0
    run_at: float = 0.0
    """Not before: first start or next attempt."""
    started_at: float | None = None
    """Of the latest attempt."""
    ended_at: float | None = None
    attempt: int = 0
    """Attempts begun, but for those that were given back without fault."""
    token: int = 0
    """Fencing token of the latest lease; grows with each lease of this task."""
    worker: str = ""
    lease_until: float = 0.0
    beat_at: float | None = None
    progress: float | None = None
    """From 0 to 100, as the worker says."""
    progress_text: str = ""
    logs: list[str] = []
    """The last lines that its workers wrote; at most 200."""
    cancel_requested: bool = False
    reason: str = ""
    """Why it was cancelled, given back or skipped."""
    result: str | None = None
    """JSON text."""
    error: ErrorInfo | None = None
    """Of the latest failed attempt."""
    asked: dict[str, str] = {}
    """Questions for its owner that wait for an answer: key -> JSON text. The task is `input_required` meanwhile."""
    answers: dict[str, str] = {}
    """All answers of the owner: key -> JSON text."""
    blocked_by: int = 0
    """Tasks that it still waits for."""


# --- operations ----------------------------------------------------------------------------------------------------


class Op_(  # noqa: N801
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    gc=False,
):
    """What all operations have in common: nothing but their rules."""


class Enqueue(Op_, frozen=True, tag="enqueue"):
    """Put a task into the queue -> `Submitted`. The same id or key again: equal content (all but priority and `run_at`,
    which change in a task's life) is answered with the task that is there (`replayed`), other content is
    `ID_CONFLICT`. More than `max_queue_size` waiting tasks: `QUEUE_FULL`."""

    type: str
    id: str = ""
    """Empty = one is made."""
    payload: str = "{}"
    model_name: str = ""
    owner: str = ""
    key: str = ""
    priority: float = PRIORITY_DEFAULT
    fairness_key: str = ""
    tags: list[str] = []
    metadata: str = "{}"
    needs: list[str] = []
    depends_on: list[str] = []
    sticky_worker: str = ""
    retry: Retry = Retry()
    timeout_s: float | None = None
    queue_timeout_s: float | None = None
    deadline: float | None = None
    keep_s: float | None = None
    run_at: float | None = None
    links: bool = False
    """The payload names results of other tasks (`actors/task_links.py`); whoever runs the task puts them in first."""
    fresh: bool = False
    """Nobody but the sender knows the id, and it is sent for the first time: it needs no search among ended tasks."""
    position: bool = False
    """The answer tells the place in the queue and an estimate; costs a look at all that wait."""


class Claim(Op_, frozen=True, tag="claim"):
    """Take up to `n` tasks -> `Claimed`. `wait_s` is how long the actor waits for the first one when there is none
    (`TaskStore.apply` does not wait)."""

    worker: str
    types: list[str] = []
    """Empty = those that the worker registered with, or else all."""
    without: list[str] = []
    """Types that are not wanted."""
    capabilities: list[str] = []
    needing: str = ""
    """Only tasks that need this one of its capabilities; '' = also those that need nothing."""
    n: int = 1
    same_type: bool = False
    lease_s: float = 0.0
    """0 = the queue's setting."""
    wait_s: float = 0.0
    request: str = ""
    """Names this claim: the same again, as the worker's latest one, is answered with the tasks that it was given. So a
    claim whose answer was lost can be repeated."""


class Beat(Op_, frozen=True, tag="beat"):
    """The holder is alive: extend the lease -> `Beaten`."""

    id: str
    token: int
    lease_s: float = 0.0
    progress: float | None = None
    progress_text: str = ""
    logs: list[str] = []


class Complete(Op_, frozen=True, tag="complete"):
    """The task is done -> `Ended`. An equal repeat is `replayed`."""

    id: str
    token: int
    result: str = "null"
    logs: list[str] = []


class Fail(Op_, frozen=True, tag="fail"):
    """The attempt failed -> `Ended` with the state that follows: `scheduled` or `ready` while there are attempts left,
    else `failed`; `cancelled` when that was asked for."""

    id: str
    token: int
    error: ErrorInfo
    """`retryable` = another attempt may help."""
    logs: list[str] = []


class Release(Op_, frozen=True, tag="release"):
    """Give a task back -> `Ended`."""

    id: str
    token: int
    reason: str = ""
    counts: bool = True
    """The attempt counts; not when its worker is draining."""
    worker: str = ""


class AckCancel(Op_, frozen=True, tag="ack_cancel"):
    """The holder stopped because cancelling was asked for -> `Ended`."""

    id: str
    token: int


class AskOwner(Op_, frozen=True, tag="ask_owner"):
    """The running task has questions for its owner -> `Asked`. Keys are unique for the task's whole life; those that
    are answered already are not asked again."""

    id: str
    token: int
    questions: dict[str, str]


class AnswerOwner(Op_, frozen=True, tag="answer_owner"):
    """The owner answers -> `Asked`. Unknown and answered keys are ignored."""

    id: str
    answers: dict[str, str]


class Cancel(Op_, frozen=True, tag="cancel"):
    """Cancel a task -> `Ended`. A running one hears of it with its next beat; `force` ends its lease now. A
    finished one is `INVALID_STATE`, one that was cancelled before is `replayed`."""

    id: str
    reason: str = ""
    force: bool = False


class Reprioritise(Op_, frozen=True, tag="reprioritise"):
    """Change a waiting task's priority -> `Reprioritised`. `requeue` false: from the next attempt on."""

    id: str
    priority: float
    requeue: bool = True


class RetryTask(Op_, frozen=True, tag="retry"):
    """Do a failed or cancelled task again, as a new one -> `Submitted`."""

    id: str
    new_id: str = ""
    """Of the task that is made; empty = one is made up. A repeat with the same one is `replayed`."""
    max_attempts: int | None = None
    timeout_s: float | None = None


class Pause(Op_, frozen=True, tag="pause"):
    """Stop claims, durably -> `Paused`. Both empty = of all tasks; one of them at a time."""

    type: str = ""
    fairness_key: str = ""
    reason: str = ""


class Resume(Op_, frozen=True, tag="resume"):
    """Allow claims again -> `Paused`."""

    type: str = ""
    fairness_key: str = ""


class Clear(Op_, frozen=True, tag="clear"):
    """Remove tasks that are `queued`, `failed` or `cancelled` (empty = all of these) -> `Cleared`."""

    statuses: list[Literal["queued", "failed", "cancelled"]] = []


class RegisterWorker(Op_, frozen=True, tag="register_worker"):
    """Make an external worker known, or say again what it can -> `WorkerInfo`. An id belongs to its owner
    (`NOT_OWNER`)."""

    worker: str
    owner: str = ""
    types: list[str] = []
    max_tasks: int = 5
    limits: str = "{}"
    metadata: str = "{}"
    internal: bool = False


class BeatWorker(Op_, frozen=True, tag="beat_worker"):
    """The worker is alive -> `WorkerInfo`. Claims and beats of tasks say that, too."""

    worker: str


class UnregisterWorker(Op_, frozen=True, tag="unregister_worker"):
    """The worker goes -> `WorkerInfo`. `release`: what it holds is queued again, without using an attempt; else it gets
    no more tasks and keeps what it has."""

    worker: str
    owner: str = ""
    release: bool = True


class Expire(Op_, frozen=True, tag="expire"):
    """End leases, time-outs and deadlines that have passed, and drop what was kept long enough -> `Expired`. For the
    queue's own clockwork."""

    most: int = 1000


Op = (
    Enqueue
    | Claim
    | Beat
    | Complete
    | Fail
    | Release
    | AckCancel
    | AskOwner
    | AnswerOwner
    | Cancel
    | Reprioritise
    | RetryTask
    | Pause
    | Resume
    | Clear
    | RegisterWorker
    | BeatWorker
    | UnregisterWorker
    | Expire
)


# --- answers -------------------------------------------------------------------------------------------------------


class Answer_(  # noqa: N801
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    gc=False,
):
    """What all answers have in common: nothing but their rules."""


class Submitted(Answer_, frozen=True, tag="submitted"):
    """The task is stored."""

    id: str
    state: TaskState
    created_at: float
    replayed: bool = False
    position: int | None = None
    """1 = next."""
    estimated_start: float | None = None
    """By measured rates; None = nothing was measured yet."""
    retry_count: int = 0
    """Of `RetryTask`: how many tasks this one follows."""


class Lease(Answer_, frozen=True):
    """One claimed task."""

    id: str
    type: str
    token: int
    lease_until: float
    attempt: int
    payload: str = "{}"
    links: bool = False
    metadata: str = "{}"
    model_name: str = ""
    owner: str = ""
    priority: float = PRIORITY_DEFAULT
    timeout_s: float | None = None
    deadline: float | None = None
    created_at: float = 0.0
    answers: dict[str, str] = {}


class Claimed(Answer_, frozen=True, tag="claimed"):
    """The tasks that the worker has now; none when there was none for it."""

    tasks: list[Lease] = []
    paused: bool = False


class Beaten(Answer_, frozen=True, tag="beaten"):
    """The lease goes on."""

    lease_until: float
    cancel_requested: bool = False
    answers: dict[str, str] = {}
    """All answers of the owner so far."""


class Ended(Answer_, frozen=True, tag="ended"):
    """The state that follows."""

    id: str
    state: TaskState
    at: float
    replayed: bool = False
    run_at: float | None = None
    """Of the next attempt."""
    cleanup_required: bool = False
    """A lease was ended by force: what its holder did may be unfinished."""


class Asked(Answer_, frozen=True, tag="asked"):
    """What is still asked, and all answers so far."""

    asked: dict[str, str] = {}
    answers: dict[str, str] = {}


class Reprioritised(Answer_, frozen=True, tag="reprioritised"):
    """The new place."""

    id: str
    old: float
    new: float
    position: int | None = None


class Paused(Answer_, frozen=True, tag="paused"):
    """Whether claims are answered, and what waits."""

    paused: bool
    at: float
    queued: int
    running: int


class Cleared(Answer_, frozen=True, tag="cleared"):
    """How many were removed and how many are left."""

    cleared: int
    remaining: int
    at: float


class WorkerInfo(Answer_, frozen=True, tag="worker"):
    """A worker and what it did."""

    worker: str
    registered_at: float
    seen_at: float
    status: Literal["active", "idle", "busy", "offline", "unregistered"]
    owner: str = ""
    types: list[str] = []
    max_tasks: int = 5
    limits: str = "{}"
    metadata: str = "{}"
    internal: bool = False
    running: list[str] = []
    """Ids of the tasks that it holds."""
    completed: int = 0
    failed: int = 0
    released: int = 0
    run_s: float = 0.0
    """Seconds of work on completed tasks."""


class Expired(Answer_, frozen=True, tag="expired"):
    """What the clock ended."""

    leases: int = 0
    timeouts: int = 0
    dropped: int = 0
    next_at: float | None = None
    """When there may be something to do again."""


class Refused(Answer_, frozen=True, tag="refused"):
    """The operation changed nothing. Codes: `NOT_FOUND, ID_CONFLICT, INVALID_STATE, INVALID_PARAMS, STALE_FENCE,
    LEASE_EXPIRED, NOT_OWNER, QUEUE_FULL, LIMIT_EXCEEDED`."""

    error: ErrorInfo


Outcome = (
    Submitted | Claimed | Beaten | Ended | Asked | Reprioritised | Paused | Cleared | WorkerInfo | Expired | Refused
)


MOST_OPS: Final = 512
"""In one message, and about as many in one transaction of the store."""


class Ops(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `tasks/apply`: many operations, stored together -> `Outcomes`. A refused one does not harm the others."""

    ops: list[Op]
    """At most `MOST_OPS`."""


class Outcomes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One for each operation, in order."""

    outcomes: list[Outcome]
