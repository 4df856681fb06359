# SPDX-License-Identifier: AGPL-3.0-or-later
"""`tasks/result` of 2025-11-25: waits for the end of a task, and asks the client what the task's tool wants to know.

The stream of this request is the only one on which a session can be asked for a task. A client that loses it, or sees
its gateway die, asks again for the result, here or elsewhere; what was not answered is asked again then.
"""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from actors.errors import BusyError, NoAnswerError
from actors.jsonrpc import INVALID_PARAMS
from actors.task_messages import FINAL, Task
from actors.task_views import GetTask, TaskView
from actors.tool_messages import Question
from actors.tool_tasks import answer_text, fingerprint, no_answer_text, question_of
from gateway.mcp.dialogues import Dialogues, can_of, run_live
from gateway.mcp.exchange import Core, Exchange
from gateway.mcp.failures import may_pass
from gateway.mcp.jsonrpc import McpError
from gateway.mcp.requests import LateError, SessionRespondent
from gateway.mcp.task_methods import TaskMethods
from gateway.mcp.task_shaping import RELATED, TaskShaper
from gateway.types import Answer, Stream

_WAIT_S: Final = 25.0
"""One reading that waits for a change."""
_AGAIN_S: Final = 1.0
"""Pause when the session has as many open questions as it may have, or the queue is away."""


class TaskResults:
    """The handler."""

    def __init__(self, core: Core, tasks: TaskMethods, shaper: TaskShaper, dialogues: Dialogues) -> None:
        self._core = core
        self._tasks = tasks
        self._shaper = shaper
        self._dialogues = dialogues

    async def result(self, x: Exchange) -> Answer | Stream:
        """Handler of `tasks/result`."""
        view = await self._tasks.find(x)
        live, asked = self._dialogues.open_live(x, can_of(x) if x.may_stream else ())

        async def work() -> Answer:
            said = await self._core.respond(x, lambda _: self._ended(x, view, asked))
            assert isinstance(said, Answer)  # `_ended` returns bytes
            return said

        return await run_live(self._core, x, live, asked, work, f"result of task {view.task.id}")

    async def _ended(self, x: Exchange, view: TaskView, asked: SessionRespondent | None) -> bytes:
        task = view.task
        if task.state not in FINAL:
            task = await self._wait(task, asked)
        outcome = self._shaper.outcome(task, x.revision)
        return self._core.shapers[x.revision].with_meta(outcome, RELATED, {"taskId": task.id})

    async def _wait(self, task: Task, asked: SessionRespondent | None) -> Task:
        """The task, once it has ended."""
        failure: McpError | None = None
        async with trio.open_nursery() as nursery:
            try:
                task = await self._follow(task, asked, nursery)
            except McpError as error:
                failure = error  # raised outside of the nursery, which would wrap it into a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return task

    async def _follow(self, task: Task, asked: SessionRespondent | None, nursery: trio.Nursery) -> Task:
        open_: dict[str, trio.CancelScope] = {}
        while task.state not in FINAL:
            if asked is not None:
                for key, text in task.asked.items():
                    question = question_of(key, text) if key not in open_ else None
                    if question is not None:
                        open_[key] = trio.CancelScope()
                        nursery.start_soon(self._ask, task.id, question, asked, open_[key])
                for key in [key for key in open_ if key not in task.asked]:
                    open_.pop(key).cancel()
            view = await self._tasks.read(GetTask(id=task.id, wait_s=_WAIT_S, newer_than=task.updated_at))
            if view is None:
                raise McpError(INVALID_PARAMS, f"Unknown task: {task.id} was removed")
            task = view.task
        return task

    async def _ask(self, task_id: str, question: Question, asked: SessionRespondent, scope: trio.CancelScope) -> None:
        """Have the client answer one question; no answer is left for the next who asks."""
        shown = _related(question, task_id)
        print_ = fingerprint(question)
        with scope:
            try:
                said = await self._once_there_is_room(shown, asked)
                answer = answer_text(print_, said[question.key])
            except LateError:
                return
            except NoAnswerError as error:
                # The tool is told, as it would be if it ran without a task.
                answer = no_answer_text(print_, error.message)
            if not await self._stored(task_id, question.key, answer):
                why = "the client's answer could not be stored; it may be too large"
                await self._stored(task_id, question.key, no_answer_text(print_, why))
            return
        asked.withdraw(shown)

    async def _stored(self, task_id: str, key: str, answer: str) -> bool:
        """Give the answer to the task, also when the queue is away for a while. False when it does not take it."""
        while True:
            try:
                await self._tasks.store(task_id, {key: answer})
            except McpError as error:
                if not may_pass(error):
                    return False
                await trio.sleep(_AGAIN_S)
            else:
                return True

    @staticmethod
    async def _once_there_is_room(question: Question, asked: SessionRespondent) -> dict[str, bytes]:
        while True:
            try:
                return await asked.ask([question])
            except BusyError:
                await trio.sleep(_AGAIN_S)


def _related(question: Question, task_id: str) -> Question:
    """The question as one of a task."""
    params = msgspec.json.decode(question.params)
    meta = {**params.get("_meta", {}), RELATED: {"taskId": task_id}}
    return msgspec.structs.replace(question, params=msgspec.json.encode({**params, "_meta": meta}))
