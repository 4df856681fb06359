# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the holder of a lease may say: `Beat, Complete, Fail, Release, AckCancel, AskOwner`.

Nothing counts without the task's current token. After the end of a lease only `Complete` counts, and only until
somebody else was given the task.
"""

from __future__ import annotations

from typing import Final, NoReturn

from actors.messages import ErrorInfo
from actors.p2p.task_queue.apply_attempts import beat as apply_beat
from actors.p2p.task_queue.attempts import attempts_left, backoff_s
from actors.p2p.task_queue.checks import check_name, check_size, cut, cut_all, lease_length
from actors.p2p.task_queue.events import (
    ASKED,
    BEATEN,
    CANCEL,
    CANCELLED,
    COMPLETE,
    COMPLETED,
    FAILED,
    FAILURE,
    LEASED,
    NUMBERS,
    READY,
    RELEASED,
    SCHEDULED,
    STATES,
)
from actors.p2p.task_queue.log import Event
from actors.p2p.task_queue.machine import Machine, refuse
from actors.p2p.task_queue.records import Item, pack_error
from actors.task_messages import AckCancel, Asked, AskOwner, Beat, Beaten, Complete, Ended, Fail, Release, Task

_LOGGED_LAG: Final = 3
"""A beat goes to disk when it moves the lease's end by this part of its length beyond what is there."""


def beat(m: Machine, op: Beat) -> Beaten:
    """See `Beat`. Most beats stay in memory: after a restart each lease gets at least as much as that may have lost."""
    if op.progress is not None and not 0 <= op.progress <= 100:
        refuse("INVALID_PARAMS", f"progress is {op.progress}; it goes from 0 to 100")
    item = _held(m, op.id, op.token)
    task, now = item.task, m.now
    lease_s = lease_length(op.lease_s, m.limits) if op.lease_s else item.lease_s
    until = max(task.lease_until, now + lease_s)
    text = cut(op.progress_text, m.limits.max_reason_chars)
    if op.logs or until - item.logged_until >= item.lease_s / _LOGGED_LAG:
        m.emit([BEATEN, now, task.id, op.token, until, op.progress, text, cut_all(op.logs, m.limits)])
    else:
        apply_beat(m.state, item, now, until, op.progress, text)
    return Beaten(lease_until=until, cancel_requested=task.cancel_requested, answers=task.answers)


def complete(m: Machine, op: Complete) -> Ended:
    """See `Complete`."""
    task, item = m.find(op.id)
    if task.token != op.token or not op.token:
        _stale(task)
    if item is None or item.where > LEASED:
        if NUMBERS[task.state] != COMPLETE:
            _over(task)
        if task.result != op.result:
            refuse("ID_CONFLICT", f"task {op.id} was completed with another result")
        return _again(m, task)
    if item.closed == op.token:
        _stale(task)
    check_size("result", op.result, m.limits.max_result_bytes)
    m.emit([COMPLETED, m.now, op.id, op.token, op.result, cut_all(op.logs, m.limits) if op.logs else None])
    return Ended(id=op.id, state=STATES[COMPLETE], at=m.now)


def fail(m: Machine, op: Fail) -> Ended:
    """See `Fail`."""
    if (known := _repeated(m, op.id, op.token, "failed")) is not None:
        return known
    item = _held(m, op.id, op.token)
    task, now = item.task, m.now
    run_at = task.run_at
    if task.cancel_requested:
        to = CANCEL
    elif op.error.retryable and attempts_left(task):
        run_at = now + backoff_s(task, m.rng)
        to = SCHEDULED if run_at > now else READY
    else:
        to = FAILURE
    error = ErrorInfo(
        code=cut(op.error.code, m.limits.max_name_chars),
        message=cut(op.error.message, m.limits.max_reason_chars),
        retryable=op.error.retryable,
        details=op.error.details,
    )
    try:
        packed = pack_error(error)
    except (TypeError, ValueError, OverflowError, RecursionError):
        refuse("INVALID_PARAMS", "error.details holds something that is no JSON value")
    check_size("error.details", packed[3] if packed else "", m.limits.max_metadata_bytes)
    m.emit([FAILED, now, op.id, op.token, to, run_at, packed, cut_all(op.logs, m.limits)])
    _skip(m, task, to)
    return Ended(id=op.id, state=task.state, at=now, run_at=run_at if to == SCHEDULED else None)


def release(m: Machine, op: Release) -> Ended:
    """See `Release`."""
    if (known := _repeated(m, op.id, op.token, "released")) is not None:
        return known
    item = _held(m, op.id, op.token)
    task = item.task
    if op.worker and op.worker != task.worker:
        refuse("NOT_OWNER", f"task {op.id} is held by another worker")
    error = None
    to = READY
    if task.cancel_requested:
        to = CANCEL
    elif op.counts and not attempts_left(task):
        to = FAILURE
        error = ErrorInfo(code="ATTEMPTS_USED", message=f"it was given back in its last attempt ({task.attempt})")
    reason = cut(op.reason, m.limits.max_reason_chars)
    m.emit([RELEASED, m.now, op.id, op.token, to, reason, op.counts, pack_error(error)])
    _skip(m, task, to)
    return Ended(id=op.id, state=task.state, at=m.now)


def ack_cancel(m: Machine, op: AckCancel) -> Ended:
    """See `AckCancel`."""
    task, _ = m.find(op.id)
    if task.token == op.token and NUMBERS[task.state] == CANCEL:
        return _again(m, task)
    _held(m, op.id, op.token)
    if not task.cancel_requested:
        refuse("INVALID_STATE", f"nobody asked to cancel task {op.id}; complete it, or give it back")
    m.emit([CANCELLED, m.now, op.id, op.token, task.reason])
    _skip(m, task, CANCEL)
    return Ended(id=op.id, state=task.state, at=m.now)


def ask_owner(m: Machine, op: AskOwner) -> Asked:
    """See `AskOwner`."""
    item = _held(m, op.id, op.token)
    task, limits = item.task, m.limits
    new = {key: text for key, text in op.questions.items() if key not in task.answers and task.asked.get(key) != text}
    if len(task.asked | new) + len(task.answers) > limits.max_questions:
        refuse("LIMIT_EXCEEDED", f"a task may ask its owner {limits.max_questions} questions in its life")
    for key, text in new.items():
        check_name("a question's key", key, limits)
        check_size("a question", text, limits.max_question_bytes)
    if new:
        event: Event = [ASKED, m.now, op.id, op.token, new]
        m.emit(event)
    return Asked(asked=task.asked, answers=task.answers)


def _held(m: Machine, task_id: str, token: int) -> Item:
    """The task, if the sender has a lease on it that has not ended."""
    task, item = m.find(task_id)
    if task.token != token or not token:
        _stale(task)
    if item is None or item.where > LEASED:
        _over(task)
    if item.closed == token:
        _stale(task)
    if item.where != LEASED or task.lease_until <= m.now:
        refuse("LEASE_EXPIRED", f"the lease on task {task_id} ended; only its result would still count")
    return item


def _repeated(m: Machine, task_id: str, token: int, how: str) -> Ended | None:
    """The answer, if the sender gave this lease back before, in this way."""
    task, item = m.find(task_id)
    if item is not None and item.where <= LEASED:
        return _again(m, task) if token and item.closed == token and item.closed_by == how else None
    if task.token != token or NUMBERS[task.state] not in (FAILURE, CANCEL):
        return None
    by_clock = task.error is not None and task.error.code == "LEASE_EXPIRED"
    return None if by_clock else _again(m, task)


def _again(m: Machine, task: Task) -> Ended:
    m.replayed()
    at = task.updated_at if task.ended_at is None else task.ended_at
    run_at = task.run_at if task.state == STATES[SCHEDULED] else None
    return Ended(id=task.id, state=task.state, at=at, replayed=True, run_at=run_at)


def _skip(m: Machine, task: Task, to: int) -> None:
    if to > COMPLETE:
        m.skip_dependents(task.id, "failed" if to == FAILURE else "was cancelled")


def _stale(task: Task) -> NoReturn:
    refuse("STALE_FENCE", f"this is not the current lease of task {task.id}; what it says does not count")


def _over(task: Task) -> NoReturn:
    if task.error is not None and task.error.code == "LEASE_EXPIRED" and NUMBERS[task.state] == FAILURE:
        refuse("LEASE_EXPIRED", f"the last lease on task {task.id} ended, and the task failed")
    refuse("INVALID_STATE", f"task {task.id} is {task.state.value}")
