# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each operation and the function that decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors.p2p.task_queue import decide_control, decide_lease, decide_submit, decide_workers
from actors.p2p.task_queue.decide_claim import claim
from actors.p2p.task_queue.decide_expire import expire
from actors.p2p.task_queue.machine import Machine, Refusal
from actors.task_messages import (
    AckCancel,
    AnswerOwner,
    AskOwner,
    Beat,
    BeatWorker,
    Cancel,
    Claim,
    Clear,
    Complete,
    Enqueue,
    Expire,
    Fail,
    Op,
    Outcome,
    Pause,
    RegisterWorker,
    Release,
    Reprioritise,
    Resume,
    RetryTask,
    UnregisterWorker,
)

_DECIDE: Final[dict[type, Callable[[Machine, Any], Outcome]]] = {
    Enqueue: decide_submit.enqueue,
    RetryTask: decide_submit.retry_task,
    Claim: claim,
    Beat: decide_lease.beat,
    Complete: decide_lease.complete,
    Fail: decide_lease.fail,
    Release: decide_lease.release,
    AckCancel: decide_lease.ack_cancel,
    AskOwner: decide_lease.ask_owner,
    AnswerOwner: decide_control.answer_owner,
    Cancel: decide_control.cancel,
    Reprioritise: decide_control.reprioritise,
    Pause: decide_control.pause,
    Resume: decide_control.resume,
    Clear: decide_control.clear,
    RegisterWorker: decide_workers.register_worker,
    BeatWorker: decide_workers.beat_worker,
    UnregisterWorker: decide_workers.unregister_worker,
    Expire: expire,
}


def decide(m: Machine, op: Op) -> Outcome:
    """Decide one operation of the running group. A refused one changes nothing."""
    try:
        return _DECIDE[type(op)](m, op)
    except Refusal as refusal:
        return m.refused(refusal)
