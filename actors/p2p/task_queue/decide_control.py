# SPDX-License-Identifier: AGPL-3.0-or-later
"""What owners and operators may say: `Cancel, AnswerOwner, Reprioritise, Pause, Resume, Clear`."""

from __future__ import annotations

from typing import Final

from actors.p2p.task_queue.checks import PRIORITY_MAX, PRIORITY_MIN, check_size, cut
from actors.p2p.task_queue.events import (
    ANSWERED,
    BLOCKED,
    CANCEL,
    CANCEL_ASKED,
    CANCELLED,
    CLEARED,
    FAILURE,
    KEY_PAUSED,
    KEY_RESUMED,
    LEASED,
    NUMBERS,
    PAUSED,
    READY,
    REPRIORITISED,
    RESUMED,
    SCHEDULED,
)
from actors.p2p.task_queue.machine import Machine, refuse
from actors.p2p.task_queue.places import position_of
from actors.p2p.task_queue.records import Item
from actors.task_messages import (
    AnswerOwner,
    Asked,
    Cancel,
    Clear,
    Cleared,
    Ended,
    Pause,
    Paused,
    Reprioritise,
    Reprioritised,
    Resume,
)

CLEARABLE: Final = {"queued": (BLOCKED, SCHEDULED, READY), "failed": (FAILURE,), "cancelled": (CANCEL,)}


def cancel(m: Machine, op: Cancel) -> Ended:
    """See `Cancel`."""
    task, item = m.find(op.id)
    if item is None or item.where > LEASED:
        if NUMBERS[task.state] != CANCEL:
            refuse("INVALID_STATE", f"task {op.id} is {task.state.value} already")
        m.replayed()
        return Ended(id=op.id, state=task.state, at=task.ended_at or task.updated_at, replayed=True)
    reason = cut(op.reason, m.limits.max_reason_chars)
    running = item.where == LEASED
    if running and not op.force:
        return _ask_to_stop(m, item, reason)
    token = m.state.next_token() if task.token else 0
    m.emit([CANCELLED, m.now, op.id, token, reason])
    m.skip_dependents(op.id, "was cancelled")
    return Ended(id=op.id, state=task.state, at=m.now, cleanup_required=running)


def _ask_to_stop(m: Machine, item: Item, reason: str) -> Ended:
    task = item.task
    repeated = task.cancel_requested
    if repeated:
        m.replayed()
    else:
        m.emit([CANCEL_ASKED, m.now, task.id, reason])
    return Ended(id=task.id, state=task.state, at=m.now, replayed=repeated)


def answer_owner(m: Machine, op: AnswerOwner) -> Asked:
    """See `AnswerOwner`."""
    task, item = m.find(op.id)
    if item is None or item.where > LEASED:
        refuse("INVALID_STATE", f"task {op.id} is {task.state.value} already; it needs no answers")
    new = {key: text for key, text in op.answers.items() if key in task.asked}
    for text in new.values():
        check_size("an answer", text, m.limits.max_question_bytes)
    if new:
        m.emit([ANSWERED, m.now, op.id, new])
    elif op.answers:
        m.replayed()
    return Asked(asked=task.asked, answers=task.answers)


def reprioritise(m: Machine, op: Reprioritise) -> Reprioritised:
    """See `Reprioritise`."""
    if not PRIORITY_MIN <= op.priority <= PRIORITY_MAX:
        refuse("INVALID_PARAMS", f"priority is {op.priority}; it goes from 1 to 10, higher is earlier")
    task, item = m.find(op.id)
    if item is None or item.where > LEASED:
        refuse("INVALID_STATE", f"task {op.id} is {task.state.value} already")
    if op.requeue and item.where == LEASED:
        refuse("INVALID_STATE", f"task {op.id} is running; with requeue false its next attempt has the new priority")
    old = task.priority
    m.emit([REPRIORITISED, m.now, op.id, op.priority, op.requeue])
    position = position_of(m.state, item) if item.where == READY else None
    return Reprioritised(id=op.id, old=old, new=op.priority, position=position)


def pause(m: Machine, op: Pause) -> Paused:
    """See `Pause`."""
    _check_what(m, op)
    reason = cut(op.reason, m.limits.max_reason_chars)
    if op.fairness_key:
        paused = m.state.ready.paused
        if op.fairness_key not in paused:
            if len(paused) >= m.limits.max_paused_keys:
                refuse("LIMIT_EXCEEDED", f"{len(paused)} fairness keys are paused already; resume some", retryable=True)
            m.emit([KEY_PAUSED, m.now, op.fairness_key, reason])
    elif op.type not in m.state.paused:
        m.emit([PAUSED, m.now, op.type, reason])
    return _standing(m, op, paused=True)


def resume(m: Machine, op: Resume) -> Paused:
    """See `Resume`."""
    _check_what(m, op)
    if op.fairness_key:
        if op.fairness_key in m.state.ready.paused:
            m.emit([KEY_RESUMED, m.now, op.fairness_key])
    elif op.type in m.state.paused:
        m.emit([RESUMED, m.now, op.type])
    return _standing(m, op, paused="" in m.state.paused)


def _check_what(m: Machine, op: Pause | Resume) -> None:
    if op.type and op.fairness_key:
        refuse("INVALID_PARAMS", "type and fairness_key are both given; one of them is paused or resumed at a time")
    for what, name in (("type", op.type), ("fairness_key", op.fairness_key)):
        if len(name) > m.limits.max_name_chars:
            refuse("LIMIT_EXCEEDED", f"{what} is longer than {m.limits.max_name_chars} characters")


def _standing(m: Machine, op: Pause | Resume, *, paused: bool) -> Paused:
    s = m.state
    if op.fairness_key:
        states = [item.where for item in s.tasks.values() if item.task.fairness_key == op.fairness_key]
        counts = [states.count(state) for state in range(len(s.totals))]
    else:
        counts = s.types.get(op.type, [0] * len(s.totals)) if op.type else s.totals
    return Paused(paused=paused, at=m.now, queued=sum(counts[:LEASED]), running=counts[LEASED])


def clear(m: Machine, op: Clear) -> Cleared:
    """See `Clear`. What the history has of them is removed by the store, which adds to these numbers."""
    states = clearable(op)
    totals = m.state.totals
    n = sum(totals[state] for state in states)
    if n:
        m.emit([CLEARED, m.now, states])
    return Cleared(cleared=n, remaining=sum(totals[: LEASED + 1]), at=m.now)


def clearable(op: Clear) -> list[int]:
    """Numbers of the states whose tasks go."""
    return [number for status in op.statuses or CLEARABLE for number in CLEARABLE[status]]
