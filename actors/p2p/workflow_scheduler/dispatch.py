# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which tasks go into the queue now, and what is in them.

They go in topological order, as many as may wait there. A plain step goes ahead of the steps that it depends on, as
soon as these are in the queue: its task depends on theirs, and its payload names their results.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from actors.p2p.workflow_scheduler.deciding import Deciding
from actors.p2p.workflow_scheduler.late import arguments, key_of
from actors.p2p.workflow_scheduler.references import MISSING, ReferenceMissingError, as_links
from actors.p2p.workflow_scheduler.run_values import MemoAsk, lane
from actors.p2p.workflow_scheduler.steps import WHOLE, Part
from actors.task_messages import Enqueue, Retry
from actors.workflow_messages import StepRetry

TAG: Final = "workflow"
"""That all tasks of workflows have."""
_encode = msgspec.json.Encoder().encode


def fill(run: Deciding) -> tuple[list[Enqueue], list[MemoAsk]]:
    """Hand out tasks and questions, until no more may wait or no more is to be done."""
    tasks: list[Enqueue] = []
    asks: list[MemoAsk] = []
    sending = run.sending
    while _may_send(run):
        part = sending.next()
        if part is None:
            break
        if not _is_due(run, part):
            continue
        made = _prepared(run, part)
        if made is None:
            run.settle()
        elif isinstance(made, MemoAsk):
            sending.memo_asked.add(part)
            asks.append(made)
        else:
            tasks.append(made)
            for place in sending.sent(part):
                if run.graph.plain[place] and run.state.steps[place].open <= run.rules.max_depends_on:
                    sending.offer(Part(place))
    return tasks, asks


def _may_send(run: Deciding) -> bool:
    sending = run.sending
    busy = len(sending.tasks) + len(sending.memo_asked)
    return run.going and not sending.unsure and not sending.full and busy < run.rules.max_queued


def _is_due(run: Deciding, part: Part) -> bool:
    """Whether it is still to be sent: things may have changed since it was offered."""
    record, work = run.state.steps[part.place], run.state.work(part)
    if work is None or work.ended or record.ended or part in run.sending.tasks:
        return False
    if run.graph.plain[part.place]:
        return not run.sending.uncovered[part.place] and record.open <= run.rules.max_depends_on
    return record.decided


def _prepared(run: Deciding, part: Part) -> Enqueue | MemoAsk | None:
    """None: it can't be done, and was failed."""
    step = run.graph.steps[part.place]
    links = False
    try:
        if run.graph.plain[part.place]:
            made, links = as_links(step.inputs, lambda name: _known(run, name), lambda name: _task_of(run, name))
        else:
            made = arguments(run, part)
    except ReferenceMissingError as error:
        run.fail(part, "REFERENCE_MISSING", str(error))
        return None
    if step.memo and part not in run.sending.memo_none:
        key = key_of(run, part, made)
        if key is not None:
            run.sending.memo_keys[part] = key
            return MemoAsk(step.step_id, part.item, key)
    try:
        payload = _encode(made)
    except RecursionError:
        run.fail(part, "LIMIT_EXCEEDED", "its arguments are nested too deeply")
        return None
    if len(payload) > run.rules.max_payload_bytes:
        most = run.rules.max_payload_bytes
        run.fail(part, "LIMIT_EXCEEDED", f"its arguments have {len(payload)} bytes; at most {most} are allowed")
        return None
    return _task(run, part, payload.decode(), links=links)


def _known(run: Deciding, name: str) -> Any:  # noqa: ANN401
    place = run.graph.place[name]
    return run.output(place) if run.state.steps[place].ended else MISSING


def _task_of(run: Deciding, name: str) -> str:
    return run.graph.task_id(Part(run.graph.place[name]))


def _task(run: Deciding, part: Part, payload: str, *, links: bool) -> Enqueue:
    step, workflow, graph = run.graph.steps[part.place], run.plan.workflow, run.graph
    end_at, begun_at = run.end_at(), run.state.begun_at
    assert end_at is not None
    assert begun_at is not None
    where: dict[str, Any] = {"workflow_id": graph.workflow_id, "step_id": step.step_id}
    if part.index != WHOLE:
        where["index"] = part.index
    return Enqueue(
        id=graph.task_id(part),
        type=step.action,
        payload=payload,
        links=links,
        owner=run.owner,
        priority=workflow.priority,
        fairness_key=lane(graph.workflow_id),
        tags=list(dict.fromkeys((*step.tags, TAG))),
        metadata=_encode(where).decode(),
        needs=[] if step.placement == "any" else [step.placement],
        depends_on=[graph.task_id(Part(before)) for before in depends_on(run, part)],
        retry=_retry(step.retry_policy),
        timeout_s=step.timeout,
        deadline=end_at,
        keep_s=min(max(end_at - begun_at, 0.0) + run.rules.keep_s, run.rules.keep_max_s),
    )


def depends_on(run: Deciding, part: Part) -> list[int]:
    """Places of the steps whose tasks it waits for in the queue."""
    return [before for before in run.graph.depends[part.place] if not run.state.steps[before].ended]


def _retry(policy: StepRetry | None) -> Retry:
    if policy is None:
        return Retry()
    return Retry(max_attempts=policy.max_retries + 1, factor=policy.backoff_factor)
