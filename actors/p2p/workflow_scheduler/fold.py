# SPDX-License-Identifier: AGPL-3.0-or-later
"""From events to state: the only code that changes a `RunState`, while a workflow runs and when it is replayed.

An event that does not fit (of a step that ended, of an unknown one, after the end) changes nothing but the number of
events: of concurrent events of two nodes, the first one in the total order counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler.events import Event
from actors.p2p.workflow_scheduler.steps import WHOLE, Graph, Part, RunState, StepRecord, Work
from actors.workflow_messages import WORKFLOW_ENDED, StepStatus

Payload = dict[str, Any]


def fold(state: RunState, graph: Graph, kind: str, payload: Payload) -> None:
    """Let one event count."""
    state.events += 1
    how = _FOLDS.get(kind)
    if how is not None and state.status not in WORKFLOW_ENDED:
        how(state, graph, payload)


def replay(graph: Graph, events: Iterable[Event]) -> RunState:
    """The state after these events, which are in their total order."""
    state = RunState.empty(graph)
    for event in events:
        fold(state, graph, event.kind, event.payload)
    return state


def _at(payload: Payload) -> float:
    at: int = payload["at"]
    return at / 1000


def _open_part(state: RunState, graph: Graph, payload: Payload) -> tuple[Part, StepRecord, Work] | None:
    """What an event of a step or an item speaks of; None when there is no such one, or it has ended."""
    place = graph.place.get(payload["step"])
    if place is None:
        return None
    part = Part(place, payload.get("index", WHOLE))
    record, work = state.steps[place], state.work(part)
    return None if work is None or work.ended or record.ended else (part, record, work)


def _set_status(state: RunState, record: StepRecord, status: StepStatus) -> None:
    state.counts[record.status] -= 1
    state.counts[status] = state.counts.get(status, 0) + 1
    record.status = status


# --- the whole -----------------------------------------------------------------------------------------------------


def _submitted(state: RunState, _graph: Graph, payload: Payload) -> None:
    state.created_at = _at(payload)


def _begun(state: RunState, graph: Graph, payload: Payload) -> None:
    if state.status != "submitted":
        return
    state.status = "running"
    state.begun_at = _at(payload)
    for place, record in enumerate(state.steps):
        if graph.plain[place] and not record.open:
            _set_status(state, record, "ready")


def _paused(state: RunState, _graph: Graph, payload: Payload) -> None:
    state.paused = state.lane_used = True
    state.reason = payload.get("reason", "")


def _resumed(state: RunState, _graph: Graph, _payload: Payload) -> None:
    state.paused = False
    if not state.cancelling:
        state.reason = ""


def _cancelling(state: RunState, _graph: Graph, payload: Payload) -> None:
    if not state.cancelling or (payload.get("code") and not state.code):
        state.reason = payload.get("reason", "")
    state.cancelling = True
    state.force = state.force or payload.get("force", False)
    state.code = state.code or payload.get("code", "")


def _ended(state: RunState, _graph: Graph, payload: Payload) -> None:
    """What has not ended by then is cancelled with it."""
    state.ended_at = _at(payload)
    state.error = _error(payload)
    for record in state.steps:
        if not record.ended:
            _set_status(state, record, "cancelled")
            record.ended_at = state.ended_at
            record.reason = state.reason or (state.error.message if state.error else "")
    state.open = 0
    state.paused = False
    state.status = payload["status"]


def _error(payload: Payload) -> ErrorInfo | None:
    error = payload.get("error")
    return None if error is None else ErrorInfo(code=error["code"], message=error["message"])


# --- steps ---------------------------------------------------------------------------------------------------------


def _step_ready(state: RunState, graph: Graph, payload: Payload) -> None:
    found = _open_part(state, graph, payload)
    if found is not None:
        found[1].decided = True
        if found[1].status == "pending":
            _set_status(state, found[1], "ready")


def _step_expanded(state: RunState, graph: Graph, payload: Payload) -> None:
    found = _open_part(state, graph, payload)
    if found is None or found[1].items is not None:
        return
    record = found[1]
    record.decided = True
    record.items_link = payload["items"]
    record.items = [Work(status="ready") for _ in range(payload["count"])]
    record.items_open = len(record.items)
    _set_status(state, record, "ready")


def _step_started(state: RunState, graph: Graph, payload: Payload) -> None:
    found = _open_part(state, graph, payload)
    if found is None:
        return
    part, record, work = found
    work.attempt, work.token, work.worker = payload["attempt"], payload["token"], payload["worker"]
    work.started_at = _at(payload)
    if record.status != "running":
        _set_status(state, record, "running")
    if part.at != WHOLE:
        work.status = "running"
        if record.started_at is None:
            record.started_at = work.started_at


def _step_completed(state: RunState, graph: Graph, payload: Payload) -> None:
    found = _open_part(state, graph, payload)
    if found is not None:
        work = found[2]
        work.result = payload["result"]
        work.memo = payload.get("memo", False)
        _ran(work, payload)
        _end(state, graph, found, "completed", payload)


def _step_failed(state: RunState, graph: Graph, payload: Payload) -> None:
    found = _open_part(state, graph, payload)
    if found is not None:
        found[2].error = _error(payload)
        _ran(found[2], payload)
        _end(state, graph, found, "failed", payload)


def _step_skipped(state: RunState, graph: Graph, payload: Payload) -> None:
    found = _open_part(state, graph, payload)
    if found is not None:
        found[2].reason = payload["reason"]
        _end(state, graph, found, "skipped", payload)


def _step_cancelled(state: RunState, graph: Graph, payload: Payload) -> None:
    found = _open_part(state, graph, payload)
    if found is not None:
        found[2].reason = payload["reason"]
        _end(state, graph, found, "cancelled", payload)


def _ran(work: Work, payload: Payload) -> None:
    """The attempt that ended it. Nobody may have seen its start."""
    work.attempt = payload.get("attempt", work.attempt)
    work.token = payload.get("token", work.token)
    work.worker = payload.get("worker", work.worker)
    if "started" in payload:
        work.started_at = payload["started"] / 1000


def _end(
    state: RunState, graph: Graph, found: tuple[Part, StepRecord, Work], status: StepStatus, payload: Payload
) -> None:
    part, record, work = found
    work.ended_at = _at(payload)
    if part.at != WHOLE:
        work.status = status
        record.items_open -= 1
        record.items_failed += status == "failed"
        record.items_cancelled += status in ("cancelled", "skipped")
        return
    _set_status(state, record, status)
    record.for_failure = status in ("failed", "cancelled") or (
        status == "skipped"
        and graph.steps[part.place].when == "on_success"
        and any(state.steps[before].for_failure for before in graph.depends[part.place])
    )
    state.open -= 1
    for place in graph.dependents[part.place]:
        after = state.steps[place]
        after.open -= 1
        if status != "completed":
            after.bad += 1
            if after.cause < 0 or (record.for_failure and not state.steps[after.cause].for_failure):
                after.cause = part.place
        elif not after.open and not after.bad and after.status == "pending" and graph.plain[place]:
            _set_status(state, after, "ready")


_FOLDS: Final[dict[str, Callable[[RunState, Graph, Payload], None]]] = {
    "submitted": _submitted,
    "begun": _begun,
    "paused": _paused,
    "resumed": _resumed,
    "cancelling": _cancelling,
    "ended": _ended,
    "step_ready": _step_ready,
    "step_expanded": _step_expanded,
    "step_started": _step_started,
    "step_completed": _step_completed,
    "step_failed": _step_failed,
    "step_skipped": _step_skipped,
    "step_cancelled": _step_cancelled,
}
