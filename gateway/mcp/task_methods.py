# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP tasks: a call that is stored in the task queue, whose result the client fetches later. All of it is in the queue,
so every gateway can answer, and any process may die.

At 2025-11-25 the client wishes for a task with each call; at 2026-07-28 it declares that it understands tasks, and the
tool decides. Who made a task may see it. Where nobody has to say who he is, the ids, which can't be guessed, are what
keeps others away; a session lists only what was made in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from actors.errors import CannotAskError, MCPServerError
from actors.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND
from actors.task_messages import (
    FINAL,
    AnswerOwner,
    Asked,
    Cancel,
    Ended,
    Enqueue,
    Retry,
    Submitted,
    Task,
    TaskState,
)
from actors.task_views import GetTask, ScanTasks, TaskView
from actors.tool_messages import ToolCall, ToolDescriptor
from actors.tool_tasks import MCP_TAG, Caller, answer_text, fingerprint, metadata_text, question_of
from gateway.mcp.answers import BadAnswerError, read_answer
from gateway.mcp.capabilities import missing, missing_capability
from gateway.mcp.dialogues import can_of
from gateway.mcp.eras import VERSIONS, D, E
from gateway.mcp.exchange import Core, Exchange, Handler, Tasks
from gateway.mcp.failures import protocol_error
from gateway.mcp.jsonrpc import McpError, params_as
from gateway.mcp.task_news import TaskNews
from gateway.mcp.task_shaping import TASKS, TaskShaper
from gateway.mcp.tokens import Signer

PAGE: Final = 50
"""Tasks on one page of `tasks/list`."""
ATTEMPTS: Final = 3
"""Of a tool that may be run again. A run that waited for answers when its process died does not count."""
_PURPOSE: Final = b"greenroom mcp task cursor 1\n"
_INVALID_STATE: Final = "INVALID_STATE"
_DECLARED: Final[dict[str, object]] = {"extensions": {TASKS: {}}}


class Wish(msgspec.Struct, frozen=True):
    """A call is to be a task."""

    keep_s: float
    """How long it can be read after its end."""


class _Wished(msgspec.Struct):
    ttl: int | None = None


class _UpdateParams(msgspec.Struct, rename="camel"):
    input_responses: dict[str, msgspec.Raw] = {}


class _ListParams(msgspec.Struct):
    cursor: str | None = None


_update_params = msgspec.json.Decoder(_UpdateParams)
_list_params = msgspec.json.Decoder(_ListParams)


class TaskMethods:
    """`tasks/...`, and the task that a call becomes."""

    def __init__(self, core: Core, queue: Tasks | None, shaper: TaskShaper, news: TaskNews) -> None:
        self._core = core
        self._queue = queue
        self._shaper = shaper
        self._news = news
        self._keep_s = core.settings.mcp.task_keep_s
        self._cursors = Signer(core.secret, _PURPOSE, 128)

    @property
    def there(self) -> bool:
        """Whether tasks can be made now."""
        return self._queue is not None and self._queue.there

    # --- making them -----------------------------------------------------------------------------------------------

    def wish(self, x: Exchange, tool: ToolDescriptor) -> Wish | None:
        """Whether this call has to be a task; None: it is run directly. Raises `McpError` when it can be neither."""
        if x.revision == E:
            return self._modern_wish(x, tool)
        if x.revision != D or not self.there:
            if tool.task == "required":
                raise self._only_a_task(x, tool)
            return None
        wished = x.frame.params.task if x.frame.params is not None else msgspec.UNSET
        if wished is msgspec.UNSET:
            if tool.task == "required":
                raise McpError(METHOD_NOT_FOUND, f"tool {tool.name} runs only as a task; send params.task")
            return None
        if tool.task == "forbidden":
            raise McpError(METHOD_NOT_FOUND, f"tool {tool.name} can't run as a task")
        return self._read_wish(wished)

    def _modern_wish(self, x: Exchange, tool: ToolDescriptor) -> Wish | None:
        if tool.task == "forbidden":
            return None  # a wish of the other revision, which has no meaning here
        if not self.there:
            if tool.task == "required":
                raise self._only_a_task(x, tool)
            return None
        if _declared(x):
            return Wish(self._keep_s)
        if tool.task == "required":
            raise missing_capability(
                f"tool {tool.name} runs only as a task, and this client does not declare {TASKS}", _DECLARED
            )
        return None

    def _only_a_task(self, x: Exchange, tool: ToolDescriptor) -> McpError:
        if x.revision < D:
            return McpError(
                METHOD_NOT_FOUND, f"tool {tool.name} runs only as a task, which {VERSIONS[x.revision]} does not have"
            )
        data = {"greenroom/code": "RUNTIME_UNAVAILABLE", "greenroom/retryable": True}
        return McpError(INTERNAL_ERROR, f"tool {tool.name} runs only as a task, and the task queue is off", data)

    def _read_wish(self, wished: object) -> Wish:
        try:
            ttl = msgspec.convert(wished, _Wished).ttl
        except msgspec.ValidationError as error:
            raise McpError(INVALID_PARAMS, f"params.task: {error}") from None
        if ttl is None:
            return Wish(self._keep_s)
        if ttl < 1:
            raise McpError(INVALID_PARAMS, "params.task.ttl must be milliseconds, at least 1")
        # Compared as integers: a number of 400 digits is no float.
        return Wish(min(ttl, math.ceil(self._keep_s * 1000)) / 1000)

    async def create(
        self,
        x: Exchange,
        tool: ToolDescriptor,
        call: ToolCall,
        wish: Wish,
        answers: dict[str, str] | None = None,
    ) -> bytes:
        """Store the call as a task; the JSON of the result that says so. `answers`: those that were given before."""
        can = can_of(x)
        shaper = self._core.shapers[x.revision]
        lacking = missing(tool.requires, can)
        if lacking is not None:
            return shaper.failed_call(CannotAskError(lacking.message), runtime=tool.runtime, took_s=0.0)
        caller = Caller(can=can, answers=answers or {})
        session = _session_tag(x)
        op = Enqueue(
            type=tool.name,
            payload=call.arguments.decode(),
            owner=x.principal,
            fairness_key=x.principal or session,
            tags=[MCP_TAG, session] if session else [MCP_TAG],
            metadata=metadata_text(caller),
            retry=Retry(max_attempts=ATTEMPTS if tool.retry_safe else 1),
            timeout_s=tool.timeout_s,
            keep_s=wish.keep_s,
        )
        try:
            made = await self._kept(x, lambda: self._tasks.do(op, Submitted))
        except MCPServerError as error:
            return shaper.failed_call(error, runtime=tool.runtime, took_s=0.0)
        told = self._shaper.task(TaskView(task=_new(op, made)), x.revision)
        if x.session is not None:
            self._news.follow(x.session, made.id, made.created_at)
            return shaper.result({"task": told})
        return shaper.result({"resultType": "task", **told})

    async def _kept(self, x: Exchange, work: Callable[[], Awaitable[Submitted]]) -> Submitted:
        """A client of a session that leaves cancels nothing."""
        if x.session is None:
            return await work()
        with trio.CancelScope(shield=True) as scope:
            self._core.shielded.add(scope)
            try:
                return await work()
            finally:
                self._core.shielded.discard(scope)
        raise McpError(INTERNAL_ERROR, "the gateway is stopping; whether the task was made is unknown")

    # --- their methods ---------------------------------------------------------------------------------------------

    def modern(self) -> dict[str, Handler]:
        """Handlers of 2026-07-28."""
        return {"tasks/get": self._get, "tasks/update": self._update, "tasks/cancel": self._cancel}

    def legacy(self) -> dict[str, Handler]:
        """Handlers of 2025-11-25, but for `tasks/result`."""
        return {"tasks/get": self._get, "tasks/list": self._list, "tasks/cancel": self._cancel}

    @property
    def _tasks(self) -> Tasks:
        assert self._queue is not None  # `there`
        return self._queue

    async def find(self, x: Exchange) -> TaskView:
        """The task that a request is for. Raises -32601 where there are no tasks, and -32602 when it is not this
        client's."""
        self.check(x)
        id_ = x.frame.params.task_id if x.frame.params is not None else msgspec.UNSET
        if type(id_) is not str:
            raise McpError(INVALID_PARAMS, "params.taskId must be the id of a task")
        view = await self.read(GetTask(id=id_))
        if view is None or not visible(view.task, x.principal):
            raise McpError(INVALID_PARAMS, f"Unknown task: {id_[:200]}")
        return view

    async def named(self, x: Exchange, ids: list[str]) -> list[TaskView]:
        """Those of these tasks that are this client's. Raises -32021 when it does not declare that it knows tasks."""
        if not ids or not self.there:
            return []
        if not _declared(x):
            raise missing_capability(f"taskIds need a client that declares {TASKS}", _DECLARED)
        views = [await self.read(GetTask(id=id_)) for id_ in dict.fromkeys(ids)]
        return [view for view in views if view is not None and visible(view.task, x.principal)]

    def check(self, x: Exchange) -> None:
        """Raise what a request for tasks is answered with where it can't be served."""
        if x.revision < D or not self.there:
            raise McpError(METHOD_NOT_FOUND, f"Method not found: {x.frame.method}")
        if x.revision == E and not _declared(x):
            raise missing_capability(f"{x.frame.method} needs a client that declares {TASKS}", _DECLARED)

    async def read(self, ask: GetTask) -> TaskView | None:
        """`Tasks.get`, with its errors as those of the protocol."""
        try:
            return await self._tasks.get(ask)
        except MCPServerError as error:
            raise protocol_error("the task queue", error, {}) from None

    async def _get(self, x: Exchange) -> bytes:
        view = await self.find(x)
        shaper = self._core.shapers[x.revision]
        if x.session is None:
            return shaper.result(self._shaper.detailed(view))
        if view.task.state not in FINAL:
            self._news.follow(x.session, view.task.id, view.task.updated_at)
        return shaper.result(self._shaper.task(view, x.revision))

    async def _update(self, x: Exchange) -> bytes:
        view = await self.find(x)
        given = params_as(x.body, _update_params).input_responses
        await self.answer(view.task, {key: bytes(raw) for key, raw in given.items()})
        return self._core.shapers[E].result({})

    async def answer(self, task: Task, given: dict[str, bytes]) -> None:
        """Store answers to open questions; others are ignored. Raises -32602 for one that does not fit its question;
        then none is stored."""
        answers: dict[str, str] = {}
        for key, text in task.asked.items():
            question = question_of(key, text)
            if key in given and question is not None:
                try:
                    answers[key] = answer_text(fingerprint(question), read_answer(question, given[key]))
                except BadAnswerError as error:
                    raise McpError(INVALID_PARAMS, f"inputResponses.{key}: {error}") from None
        if answers and task.state not in FINAL:
            await self.store(task.id, answers)

    async def store(self, task_id: str, answers: dict[str, str]) -> None:
        """Give answers to a task, which may have ended."""
        await self._do(AnswerOwner(id=task_id, answers=answers), Asked)

    async def _cancel(self, x: Exchange) -> bytes:
        task = (await self.find(x)).task
        shaper = self._core.shapers[x.revision]
        if x.revision == E:
            # The tool hears of it, and may still come to its end.
            if task.state not in FINAL:
                await self._do(Cancel(id=task.id, reason="its owner cancelled it"), Ended)
            return shaper.result({})
        ended = task.state in FINAL or not await self._do(
            Cancel(id=task.id, reason="its owner cancelled it", force=True), Ended
        )
        if ended:
            raise McpError(INVALID_PARAMS, f"task {task.id} has ended already")
        return shaper.result(self._shaper.task(await self.find(x), x.revision))

    async def _do(self, op: AnswerOwner | Cancel, answer: type[Asked] | type[Ended]) -> bool:
        """False when the task has ended meanwhile."""
        try:
            await self._tasks.do(op, answer)
        except MCPServerError as error:
            if getattr(error, "remote_code", "") == _INVALID_STATE:
                return False
            raise protocol_error("the task queue", error, {}) from None
        return True

    async def _list(self, x: Exchange) -> bytes:
        self.check(x)
        start = self._offset(params_as(x.body, _list_params).cursor)
        tags = [MCP_TAG] if x.principal else [MCP_TAG, _session_tag(x)]
        try:
            page = await self._tasks.scan(ScanTasks(owner=x.principal, tags=tags, limit=PAGE, offset=start))
        except MCPServerError as error:
            raise protocol_error("the task queue", error, {}) from None
        told = []
        for task in page.tasks:
            # Whether a task that was completed counts as failed here, its result says, and pages have none.
            view = await self.read(GetTask(id=task.id)) if task.state == TaskState.COMPLETED else TaskView(task=task)
            if view is not None:
                told.append(self._shaper.task(view, x.revision))
        members: dict[str, object] = {"tasks": told}
        if page.tasks and start + len(page.tasks) < page.total:
            members["nextCursor"] = self._cursors.seal(b"%d" % (start + len(page.tasks)))
        return self._core.shapers[x.revision].result(members)

    def _offset(self, cursor: str | None) -> int:
        if not cursor:
            return 0
        payload = self._cursors.open(cursor)
        if payload is None:
            raise McpError(INVALID_PARAMS, "unknown cursor; list again without one")
        return int(payload)


def visible(task: Task, principal: str) -> bool:
    """Whether this one made it, with MCP's own call."""
    return MCP_TAG in task.tags and task.owner == principal


def _declared(x: Exchange) -> bool:
    """Whether a client of 2026-07-28 declares with this request that it understands tasks."""
    meta = x.frame.params.meta if x.frame.params is not None else None
    capabilities: dict[str, Any] = meta.capabilities if meta is not None else {}
    extensions = capabilities.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(TASKS), dict)


def _session_tag(x: Exchange) -> str:
    """What the tasks of one session have in common; '' where there are none."""
    if x.session is None:
        return ""
    return f"{MCP_TAG}-session:{hashlib.sha256(x.session.claims.nonce).hexdigest()[:24]}"


def _new(op: Enqueue, made: Submitted) -> Task:
    """A task that was made just now, as far as its client is told."""
    return Task(
        id=made.id,
        type=op.type,
        state=made.state,
        keep_s=op.keep_s,
        created_at=made.created_at,
        updated_at=made.created_at,
    )
