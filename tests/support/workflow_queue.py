# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue and its workers as a workflow's run sees them: no log, no clock, no processes. Which task goes on, and
whether an attempt fails, is drawn."""

from __future__ import annotations

import json
import random

import msgspec
from workflow_sequence import ToolFailedError, mix

from actors.errors import MCPServerError
from actors.messages import ErrorInfo
from actors.task_links import filled, linked_ids
from actors.task_messages import FINAL, Cancel, Enqueue, TaskState
from actors.task_views import TaskFact

FULL = ErrorInfo(code="QUEUE_FULL", message="many tasks wait", retryable=True)


class Held(msgspec.Struct):
    """A task."""

    op: Enqueue
    fact: TaskFact
    waits: set[str]
    cancel: bool = False


class FakeQueue:
    """See the module's text. `news` are facts of tasks that changed, oldest first."""

    def __init__(self, rng: random.Random, *, full: float = 0.0, flaky: float = 0.0) -> None:
        """`full`, `flaky`: how many of 1 submissions are refused and attempts fail."""
        self.rng = rng
        self.full = full
        self.flaky = flaky
        self.tasks: dict[str, Held] = {}
        self.news: list[TaskFact] = []
        self.calls: dict[str, dict] = {}
        """Task -> arguments, of those that completed."""
        self.paused = False
        self.waiting_most = 0
        self._open: dict[str, None] = {}

    # --- what it is asked --------------------------------------------------------------------------------------

    def apply(self, op: Enqueue | Cancel) -> ErrorInfo | None:
        """Do it; the refusal."""
        return self._enqueue(op) if isinstance(op, Enqueue) else self._cancel(op)

    def _enqueue(self, op: Enqueue) -> ErrorInfo | None:
        known = self.tasks.get(op.id)
        if known is not None:
            return None if known.op == op else ErrorInfo(code="ID_CONFLICT", message="there is another one")
        if self.rng.random() < self.full:
            return FULL
        for before in op.depends_on:
            if before not in self.tasks:
                return ErrorInfo(code="INVALID_PARAMS", message=f"depends_on names task {before}, which does not exist")
        parents = [self.tasks[before].fact.state for before in op.depends_on]
        waits = {before for before in op.depends_on if self.tasks[before].fact.state not in FINAL}
        state = TaskState.BLOCKED if waits else TaskState.READY
        if any(one in FINAL and one != TaskState.COMPLETED for one in parents):
            state = TaskState.SKIPPED
        self.tasks[op.id] = Held(op, TaskFact(id=op.id, state=state, owner=op.owner), waits)
        if state not in FINAL:
            self._open[op.id] = None
            self.waiting_most = max(self.waiting_most, len(self._open))
        self._tell(op.id)
        return None

    def _cancel(self, op: Cancel) -> ErrorInfo | None:
        task = self.tasks.get(op.id)
        if task is None:
            return ErrorInfo(code="NOT_FOUND", message="there is no such task")
        if task.fact.state in FINAL:
            return ErrorInfo(code="INVALID_STATE", message="it has ended")
        if task.fact.state == TaskState.LEASED and not op.force:
            task.cancel = True
        else:
            self._change(op.id, state=TaskState.CANCELLED, reason=op.reason)
        return None

    def facts(self, ids: list[str]) -> tuple[list[TaskFact], list[str]]:
        """Where these are, and those that are unknown."""
        return [self.tasks[one].fact for one in ids if one in self.tasks], [one for one in ids if one not in self.tasks]

    def remove(self, task_id: str) -> None:
        """An operator clears it."""
        self._change(task_id, state=TaskState.CANCELLED)
        del self.tasks[task_id]

    # --- what goes on ------------------------------------------------------------------------------------------

    def busy(self) -> list[str]:
        """Tasks with which something can happen."""
        states = (TaskState.LEASED,) if self.paused else (TaskState.LEASED, TaskState.READY, TaskState.SCHEDULED)
        return [one for one in self._open if self.tasks[one].fact.state in states]

    def work(self) -> None:
        """Something happens with one of them."""
        busy = self.busy()
        if not busy:
            return
        task_id = self.rng.choice(busy)
        task = self.tasks[task_id]
        fact = task.fact
        if fact.state == TaskState.SCHEDULED:
            self._change(task_id, state=TaskState.READY)
        elif fact.state == TaskState.READY:
            worker = f"w{self.rng.randrange(3)}"
            attempt, token = fact.attempt + 1, fact.token + 1
            self._change(task_id, state=TaskState.LEASED, attempt=attempt, token=token, worker=worker, started_at=1.0)
        elif task.cancel and self.rng.random() < 0.8:
            self._change(task_id, state=TaskState.CANCELLED, reason="cancelled")
        elif fact.attempt < task.op.retry.max_attempts and self.rng.random() < self.flaky:
            self._change(task_id, state=TaskState.SCHEDULED)
        else:
            self._finish(task_id, task.op)

    def _finish(self, task_id: str, op: Enqueue) -> None:
        try:
            text = op.payload
            if op.links:
                text = filled(text, {one: self._output(one) for one in linked_ids(text)})
            arguments = json.loads(text)
            result = mix(arguments)
        except MCPServerError as error:
            self._change(task_id, state=TaskState.FAILED, error=ErrorInfo(code=error.code, message=str(error)))
        except ToolFailedError as error:
            self._change(task_id, state=TaskState.FAILED, error=ErrorInfo(code="TOOL_FAILED", message=str(error)))
        else:
            assert task_id not in self.calls, "done twice"
            self.calls[task_id] = arguments
            self._change(task_id, state=TaskState.COMPLETED, result=json.dumps(result))

    def _output(self, task_id: str) -> object:
        result = self.tasks[task_id].fact.result
        assert result is not None, "a task ran before one whose result it needs"
        return json.loads(result)

    def _change(self, task_id: str, *, state: TaskState, **more: object) -> None:
        task = self.tasks[task_id]
        task.fact = msgspec.structs.replace(task.fact, state=state, **more)
        if state in FINAL:
            del self._open[task_id]
            for after_id in list(self._open):
                after = self.tasks[after_id]
                if after_id in self._open and task_id in after.waits:
                    after.waits.discard(task_id)
                    if state != TaskState.COMPLETED:
                        self._change(after_id, state=TaskState.SKIPPED, reason=f"task {task_id} {state.value}")
                    elif not after.waits and after.fact.state == TaskState.BLOCKED:
                        self._change(after_id, state=TaskState.READY)
        self._tell(task_id)

    def _tell(self, task_id: str) -> None:
        self.news.append(self.tasks[task_id].fact)
