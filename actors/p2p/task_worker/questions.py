# SPDX-License-Identifier: AGPL-3.0-or-later
"""The questions of a tool that runs as a task: they are stored with the task, and its owner answers sooner or later.

    owner = TaskOwner(queue, lease, timeout_s=settings.questions.task_timeout_s)
    call = ToolCall(..., can=owner.can)
    result = await owner.call(lambda: tools.call(call, timeout_s=..., on_ask=owner.on_ask))

What was answered stays with the task. So when the worker or the tool's process dies, the tool runs again from its start
and is given all answers at once, as at revision 2026-07-28 between two rounds of a call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from typing import Final

import msgspec
import trio

from actors.calls import Message
from actors.errors import MCPServerError, NoAnswerError, UrlRequiredError
from actors.p2p.asking_queue import persist
from actors.task_client import TaskClient
from actors.task_messages import FINAL, AnswerOwner, Asked, AskOwner, Lease, Task
from actors.task_views import GetTask
from actors.tool_messages import ASK, Answers, Question, Questions, ToolResult
from actors.tool_tasks import answer_of, caller_of, fingerprint, is_answer_to, no_answer_text, question_text

_WAIT_S: Final = 50.0
"""One reading that waits for a change."""
_MOST_VISITS: Final = 8
"""Addresses that the user may be sent to, one after the other, by one run of a tool."""
_decode_questions = msgspec.msgpack.Decoder(Questions).decode


class TaskOwner:
    """Whoever had a task made, as its tool may ask it. For one lease of the task."""

    def __init__(self, queue: TaskClient, lease: Lease, *, timeout_s: float) -> None:
        """`timeout_s`: how long the owner may take for an answer, for each turn of questions."""
        caller = caller_of(lease.metadata)
        self.can = caller.can
        """For `ToolCall.can`."""
        self._queue = queue
        self._lease = lease
        self._timeout_s = timeout_s
        self._answers = caller.answers | lease.answers

    async def call(self, run: Callable[[], Awaitable[ToolResult]]) -> ToolResult:
        """Run the tool, again after each address that the user has to visit first. Raises what it raised."""
        visits = 0
        while True:
            try:
                return await run()
            except UrlRequiredError as error:
                visits += 1
                if "elicitation.url" not in self.can or visits > _MOST_VISITS:
                    raise
                if not await self._visited(error, f"url-{visits}"):
                    raise

    async def on_ask(self, method: str, body: msgspec.Raw) -> Message:
        """For the call of the tool: answers its questions. All else that it may want of its caller needs a connection
        to that one, and is dropped."""
        if method != ASK:
            return None
        return Answers(answers=await self.ask(_decode_questions(body).questions))

    async def ask(self, questions: list[Question]) -> dict[str, bytes]:
        """The answers, in time. Raises `NoAnswerError`."""
        named = {question.key: self._stored(question) for question in questions}
        lacking = {one.key: one for one in named.values() if one.key not in self._answers}
        if lacking:
            texts = {key: question_text(question) for key, question in lacking.items()}
            op = AskOwner(id=self._lease.id, token=self._lease.token, questions=texts)
            asked = await self._queue.do(op, Asked)
            self._answers |= asked.answers
            with trio.move_on_after(self._timeout_s):
                await self._wait_for(lacking.keys())
            await self._give_up([one for key, one in lacking.items() if key not in self._answers])
        found: dict[str, bytes] = {}
        for key, stored in named.items():
            answer = answer_of(stored, self._answers[stored.key])
            if answer is None:
                raise NoAnswerError(f"what was answered under {stored.key} was no answer to this question")
            found[key] = answer
        return found

    def _stored(self, question: Question) -> Question:
        """The question under the key that it has in the task: another one where that key was answered already, but for
        something else that an earlier run of the tool had asked."""
        key, number = question.key, 1
        while key in self._answers:
            if is_answer_to(question, self._answers[key]):
                break
            number += 1
            key = f"{question.key}~{number}"
        return msgspec.structs.replace(question, key=key)

    async def _wait_for(self, keys: Set[str]) -> None:
        seen: float | None = None
        while not keys <= self._answers.keys():
            ask = GetTask(id=self._lease.id, wait_s=0.0 if seen is None else _WAIT_S, newer_than=seen)
            view = await persist(lambda: self._queue.get(ask))  # noqa: B023 - awaited at once
            task = _still_ours(self._lease, view.task if view is not None else None)
            self._answers |= task.answers
            seen = task.updated_at

    async def _give_up(self, questions: list[Question]) -> None:
        """Nobody answered these in time. It is stored as their answer, so that a further run of the tool goes the same
        way, and the owner sees that nothing is asked any more."""
        if not questions:
            return
        reason = f"the task's owner did not answer within {self._timeout_s:g} s (questions.task_timeout_s)"
        given = {question.key: no_answer_text(fingerprint(question), reason) for question in questions}
        # An answer that came at the last moment wins.
        kept = await self._queue.do(AnswerOwner(id=self._lease.id, answers=given), Asked)
        self._answers |= given | kept.answers

    async def _visited(self, error: UrlRequiredError, key: str) -> bool:
        visit = {"mode": "url", "message": error.message, "url": error.url}
        params = msgspec.json.encode(visit)
        answers = await self.ask([Question(key=key, method="elicitation/create", params=params)])
        return msgspec.json.decode(answers[key], type=_Visit).action == "accept"


class _Visit(msgspec.Struct):
    action: str


def _still_ours(lease: Lease, task: Task | None) -> Task:
    if task is None or task.token != lease.token or task.state in FINAL:
        raise MCPServerError(f"task {lease.id} has ended, or was given to another worker")
    return task
