# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the queue tells of a task, and what it means for the step.

Facts come in any order, late and more than once. What is older than what is known changes nothing. A step's start and
completion are written after the completions of the steps that it depends on: when its news are here first, they are
held, and those steps are looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from actors.p2p.workflow_scheduler.steps import WHOLE, Part
from actors.task_links import output_of
from actors.task_messages import FINAL, TaskState
from actors.task_views import TaskFact

if TYPE_CHECKING:
    from actors.p2p.workflow_scheduler.deciding import Deciding

REMOVED: Final = "its task was removed from the queue"


def take_fact(run: Deciding, part: Part, fact: TaskFact) -> None:
    """Let one fact count."""
    sending, state = run.sending, run.state
    work = state.work(part)
    if work is None or work.ended or state.steps[part.place].ended or part not in sending.tasks:
        return
    if fact.owner != run.owner:
        if part in sending.asked:
            run.fail(part, "ID_CONFLICT", f"there is a task {fact.id} of somebody else")
        return
    if state.cancelling and part in sending.unsure:
        sending.cancels.add(part)
    sending.confirm(part)
    if _is_early(run, part, fact):
        _hold(run, part, fact)
    elif fact.state in FINAL:
        _ended(run, part, fact)
    elif fact.state == TaskState.LEASED and (fact.token, fact.attempt) > (work.token, work.attempt):
        run.append(
            "step_started",
            at=fact.started_at,
            **run.named(part),
            task=fact.id,
            attempt=fact.attempt,
            token=fact.token,
            worker=fact.worker,
        )


def _is_early(run: Deciding, part: Part, fact: TaskFact) -> bool:
    """It says that the task ran, or will never run, because of steps whose ends are not known yet."""
    if part.index != WHOLE or not run.state.steps[part.place].open:
        return False
    if run.state.cancelling and not any(Part(before) in run.sending.tasks for before in run.graph.depends[part.place]):
        return False  # nothing will be heard of them
    if fact.state == TaskState.SKIPPED:
        return not run.state.cancelling
    ran = fact.state == TaskState.FAILED and fact.attempt > 0
    return ran or fact.state in (TaskState.LEASED, TaskState.COMPLETED)


def _hold(run: Deciding, part: Part, fact: TaskFact) -> None:
    known = run.sending.held.get(part)
    if known is None or fact.state in FINAL or (known.state not in FINAL and fact.token > known.token):
        run.sending.held[part] = fact
    for before in run.graph.depends[part.place]:
        if not run.state.steps[before].ended:
            run.sending.look(Part(before))


def _ended(run: Deciding, part: Part, fact: TaskFact) -> None:
    if fact.state == TaskState.COMPLETED:
        _completed(run, part, fact)
    elif fact.state == TaskState.FAILED:
        run.end(
            part,
            "step_failed",
            noticed=True,
            at=fact.ended_at,
            task=fact.id,
            **_attempt(fact),
            error=run.error_of(fact.error),
        )
    else:
        skipped = fact.state == TaskState.SKIPPED and not run.state.cancelling
        why = fact.reason or run.state.reason
        kind = "step_skipped" if skipped else "step_cancelled"
        run.end(part, kind, noticed=True, at=fact.ended_at, reason=why[:2000])


def _attempt(fact: TaskFact) -> dict[str, int | str]:
    known: dict[str, int | str] = {"attempt": fact.attempt, "token": fact.token, "worker": fact.worker}
    if fact.started_at is not None:
        known["started"] = int(fact.started_at * 1000)
    return known


def _completed(run: Deciding, part: Part, fact: TaskFact) -> None:
    try:
        result = run.outputs.put(output_of(fact.result or "null"))
    except (RecursionError, ValueError, msgspec.MsgspecError) as error:
        run.fail(part, "INVALID_RESULT", f"its result can't be read: {error}")
        return
    if run.graph.steps[part.place].memo:
        run.keep_memo(part, result)
    run.end(part, "step_completed", noticed=True, at=fact.ended_at, task=fact.id, **_attempt(fact), result=result)


def take_gone(run: Deciding, part: Part) -> None:
    """The queue does not have it. Believed only when it was asked after the queue was known to have it, if ever."""
    sending = run.sending
    if part not in sending.tasks:
        return
    if part not in sending.asked:
        sending.look(part)
    elif sending.tasks[part]:
        run.end(part, "step_cancelled", reason=REMOVED)
    else:
        sending.absent(part)
        sending.again.add(part)
        send_later(run, part)


def send_later(run: Deciding, part: Part) -> None:
    """It is to be sent when its turn comes, if it still is to be sent then."""
    if part.index == WHOLE:
        run.touch((part.place,))
    else:
        run.sending.offer(part)
