# SPDX-License-Identifier: AGPL-3.0-or-later
"""What follows when something became known: skips, late decisions, the ends of steps and of the whole.

`Deciding` is what the parts of a run share. `settle` looks at the steps that a change concerns, and only at those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler import facts, late
from actors.p2p.workflow_scheduler.definition import Plan
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.events import Event, Signer
from actors.p2p.workflow_scheduler.fold import fold
from actors.p2p.workflow_scheduler.outputs import OutputCache
from actors.p2p.workflow_scheduler.peer_work import PeerWork
from actors.p2p.workflow_scheduler.references import ReferenceMissingError, looked_up_in
from actors.p2p.workflow_scheduler.run_values import MemoGain, Outputs, Rules
from actors.p2p.workflow_scheduler.sending import Sending
from actors.p2p.workflow_scheduler.steps import WHOLE, Graph, Part, RunState
from actors.tool_messages import ToolDescriptor
from actors.workflow_messages import WORKFLOW_ENDED

MAX_TEXT: Final = 2000
"""Characters of a message or reason in an event."""
NAMED: Final = 20
"""Items that the error of a `for_each` step names."""


class Deciding:
    """See the module's text. `now` is that of the latest call from outside."""

    def __init__(
        self,
        plan: Plan,
        clock: EventClock,
        signer: Signer,
        rules: Rules,
        graph: Graph,
        state: RunState,
        *,
        owner: str,
        tools: Mapping[str, ToolDescriptor],
        outputs: Outputs,
    ) -> None:
        self.plan = plan
        self.clock = clock
        self.signer = signer
        self.rules = rules
        self.graph = graph
        self.state = state
        self.owner = owner
        self.tools = tools
        self.outputs = OutputCache(outputs, rules.cached_chars)
        self.lookup = looked_up_in(lambda name: self.output(graph.place[name]))
        """Of references to outputs."""
        self.sending = Sending(graph)
        self.peers = PeerWork()
        self.now = 0.0
        self.events: list[Event] = []
        self.memos: list[MemoGain] = []
        self.pause: bool | None = None
        self._touched: deque[int] = deque()
        self._unnoticed: set[int] = set()
        """Places of steps that ended without the queue's knowing."""

    # --- events ------------------------------------------------------------------------------------------------

    def append(self, kind: str, *, at: float | None = None, **payload: Any) -> None:  # noqa: ANN401
        """Decide."""
        payload["at"] = int((self.now if at is None else at) * 1000)
        self.events.append(self.clock.append(kind, payload, self.signer))
        fold(self.state, self.graph, kind, payload)

    def named(self, part: Part) -> dict[str, Any]:
        """How an event names it."""
        name = self.graph.steps[part.place].step_id
        return {"step": name} if part.at == WHOLE else {"step": name, "index": part.at}

    def end(self, part: Part, kind: str, *, noticed: bool = False, at: float | None = None, **payload: Any) -> None:  # noqa: ANN401
        """A step or an item ends. `noticed`: the queue knows, and has told those that depend on it."""
        self.append(kind, at=at, **self.named(part), **payload)
        self.sending.drop(part, withdraw=not noticed)
        if part.at != WHOLE:
            self.touch((part.place,))
            return
        if not noticed:
            self._unnoticed.add(part.place)
        if kind == "step_completed":
            self.sending.cover(part.place)
        self.touch(self.graph.dependents[part.place])

    def fail(self, part: Part, code: str, message: str) -> None:
        """It can't be done."""
        self.end(part, "step_failed", error={"code": code, "message": cut(message)})

    def touch(self, places: Iterable[int]) -> None:
        """These steps have to be looked at."""
        self._touched.extend(places)

    # --- what follows ------------------------------------------------------------------------------------------

    @property
    def going(self) -> bool:
        """New work may be begun."""
        return self.state.status == "running" and not self.state.cancelling

    def settle(self) -> None:
        """Decide all that can be decided."""
        while self._touched:
            self._consider(self._touched.popleft())
        self._check_size()
        self._maybe_end()

    def _consider(self, place: int) -> None:
        """News that were held count now; then the step is skipped, decided, or may be sent."""
        record = self.state.steps[place]
        if record.ended or self.state.status != "running":
            return
        if not record.open and Part(place) in self.sending.held:
            facts.take_fact(self, Part(place), self.sending.held.pop(Part(place)))
        if record.items is not None and not record.items_open:
            self._end_list(place)
        if not record.ended and self.going:
            self._decide(place)

    def _decide(self, place: int) -> None:
        record = self.state.steps[place]
        if self.graph.steps[place].when == "on_success" and record.bad:
            # Whether it is skipped for a failure must not depend on who of those before it ends first.
            if not record.open or self.state.steps[record.cause].for_failure:
                self._skip(place)
        elif not self.graph.plain[place]:
            if record.decided:
                if record.items is None:
                    self.sending.offer(Part(place))
            elif not record.open:
                late.decide(self, place)
        elif not self.sending.uncovered[place] and record.open <= self.most_open(place):
            self.sending.offer(Part(place))

    def most_open(self, place: int) -> int:
        """Of the steps that a plain one depends on, so many may be running when it is sent."""
        return 0 if Part(place) in self.sending.stuck else self.rules.max_depends_on

    def _skip(self, place: int) -> None:
        cause = self.state.steps[place].cause
        why = f"step {self.graph.steps[cause].step_id} {_HOW[self.state.steps[cause].status]}"
        self.end(Part(place), "step_skipped", noticed=cause not in self._unnoticed, reason=why)

    def _end_list(self, place: int) -> None:
        """All items of a step have ended."""
        part, record = Part(place), self.state.steps[place]
        items = record.items or []
        if record.items_failed:
            failed = [index for index, item in enumerate(items) if item.status == "failed"]
            names = ", ".join(f"[{index}]" for index in failed[:NAMED]) + (", ..." if len(failed) > NAMED else "")
            error = items[failed[0]].error
            first = error.message if error else ""
            why = f"{len(failed)} of {len(items)} items failed: {names}; the first one: {first}"
            self.fail(part, "ITEMS_FAILED", why)
            return
        if record.items_cancelled:
            why = next(item.reason for item in items if item.status in ("cancelled", "skipped"))
            self.end(part, "step_cancelled", reason=cut(f"items were cancelled: {why}"))
            return
        texts, chars = [], 0
        for item in items:
            assert item.result is not None
            texts.append(self.outputs.text(item.result))
            chars += len(texts[-1])
            if chars > self.rules.max_output_bytes:
                most = self.rules.max_output_bytes
                self.fail(part, "LIMIT_EXCEEDED", f"the outputs of its items are larger than {most} bytes together")
                return
        self.end(part, "step_completed", result=self.outputs.put_text(f"[{','.join(texts)}]"), attempt=0, worker="")

    # --- the end -----------------------------------------------------------------------------------------------

    def stop(self, reason: str, *, force: bool, code: str = "") -> None:
        """End it before its time. With `code` it failed, else it was cancelled."""
        why: dict[str, Any] = {"code": code} if code else {}
        self.append("cancelling", reason=cut(reason), force=force, **why)
        self.sending.cancels = set(self.sending.tasks) - self.sending.unsure

    def _check_size(self) -> None:
        most = self.rules.max_events
        if self.going and self.state.events - self.peers.count > most:
            self.stop(f"it has more than {most} events", force=True, code="LIMIT_EXCEEDED")

    def _maybe_end(self) -> None:
        s = self.state
        if s.status in WORKFLOW_ENDED or (s.status == "submitted" and not s.cancelling):
            return
        if s.open and (not s.cancelling or self.sending.tasks):
            return
        if s.paused:
            self.pause = False
        if s.code and s.open + s.counts.get("cancelled", 0):
            self.append("ended", status="failed", error={"code": s.code, "message": s.reason})
        elif s.cancelling and s.open + s.counts.get("cancelled", 0):
            self.append("ended", status="cancelled")
        elif s.counts.get("failed") or s.counts.get("cancelled"):
            self.append("ended", status="failed", error=self._first_failure())
        else:
            self.append("ended", status="completed")

    def _first_failure(self) -> dict[str, str]:
        for place, record in enumerate(self.state.steps):
            if record.status in ("failed", "cancelled"):
                why = record.error.message if record.error else record.reason
                name = self.graph.steps[place].step_id
                return {"code": "STEP_FAILED", "message": cut(f"step {name} {_HOW[record.status]}: {why}")}
        raise AssertionError

    # --- values ------------------------------------------------------------------------------------------------

    def output(self, place: int) -> Any:  # noqa: ANN401
        """A step's output. Raises ReferenceMissingError when it has none."""
        record = self.state.steps[place]
        if record.result is None:
            name = self.graph.steps[place].step_id
            raise ReferenceMissingError(f"step {name} has no output: it {_HOW.get(record.status, 'has not ended')}")
        return self.outputs.value(record.result)

    def keep_memo(self, part: Part, output: bytes) -> None:
        """This work was done: equal work may take its output."""
        key = self.sending.memo_keys.get(part)
        if key is None:
            try:
                key = late.key_of(self, part, late.arguments(self, part))
            except ReferenceMissingError:
                return
        if key is not None:
            self.memos.append(MemoGain(key, output))

    def end_at(self) -> float | None:
        """When it has to have ended; None = nothing was said."""
        begun, deadline = self.state.begun_at, self.plan.workflow.deadline
        if begun is None:
            return deadline
        latest = begun + self.rules.timeout_s
        return latest if deadline is None else min(latest, deadline)

    def error_of(self, error: ErrorInfo | None) -> dict[str, str]:
        """An error as events write it."""
        return {"code": error.code, "message": cut(error.message)} if error else {"code": "INTERNAL", "message": ""}


_HOW: Final = {"failed": "failed", "skipped": "was skipped", "cancelled": "was cancelled"}


def cut(text: str) -> str:
    """A text that is not too long."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}"
