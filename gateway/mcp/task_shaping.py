# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks as the two revisions know them that have them: 2025-11-25 in its core, 2026-07-28 as an extension.

They differ in names, in what `failed` means (2025-11-25: every failure; 2026-07-28: errors of the protocol, while a
tool that failed has *completed* with a result that says so), and in where results and questions are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from actors.catalogue_view import CatalogueView
from actors.errors import CannotAskError, from_info
from actors.jsonrpc import INTERNAL_ERROR
from actors.messages import ErrorInfo
from actors.settings import Settings
from actors.task_messages import FINAL, Task, TaskState
from actors.task_views import TaskView
from actors.tool_tasks import question_of, result_of
from gateway.mcp.capabilities import for_revision, missing_capability
from gateway.mcp.eras import D, E
from gateway.mcp.jsonrpc import McpError
from gateway.mcp.shaping import Shaper

TASKS: Final = "io.modelcontextprotocol/tasks"
"""The extension, in the capabilities of both sides."""
RELATED: Final = "io.modelcontextprotocol/related-task"
"""Key of `_meta` in what belongs to a task, at 2025-11-25."""
McpStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
_MOST_MESSAGE: Final = 500
_NO_REASON: Final = ErrorInfo(code="INTERNAL", message="it failed, and nobody said why")


class TaskShaper:
    """Writes tasks for both revisions."""

    def __init__(
        self,
        settings: Settings,
        shapers: Sequence[Shaper],
        catalogue: Callable[[], CatalogueView],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keep_s = settings.p2p.task_queue.keep_s
        self._poll_ms = round(settings.mcp.task_poll_s * 1000)
        self._shapers = shapers
        self._catalogue = catalogue
        self._now = now

    def task(self, view: TaskView, revision: int, status: McpStatus | None = None) -> dict[str, object]:
        """`Task`: what is told of a task whatever its state. `status`: what that is, where it is known already."""
        task = view.task
        status = status or self.status(task, revision)
        modern = revision == E
        told: dict[str, object] = {"taskId": task.id, "status": status}
        message = _message(view)
        if message:
            told["statusMessage"] = message[:_MOST_MESSAGE]
        told["createdAt"] = iso(task.created_at)
        told["lastUpdatedAt"] = iso(max(task.updated_at, task.created_at))
        told["ttlMs" if modern else "ttl"] = self._ttl_ms(task)
        told["pollIntervalMs" if modern else "pollInterval"] = self._poll_ms
        return told

    def detailed(self, view: TaskView) -> dict[str, object]:
        """`DetailedTask` of 2026-07-28: with its questions, its result or its error."""
        task = view.task
        if task.state in {TaskState.COMPLETED, TaskState.FAILED}:
            try:
                result = msgspec.Raw(self.outcome(task, E))
            except McpError as error:
                content: dict[str, object] = {"code": error.code, "message": error.message}
                if error.data is not None:
                    content["data"] = error.data
                return self.task(view, E, "failed") | {"error": content}
            return self.task(view, E, "completed") | {"result": result}
        told = self.task(view, E)
        if told["status"] == "input_required":
            told["inputRequests"] = self.questions(task)
        return told

    def status(self, task: Task, revision: int) -> McpStatus:
        """The state in the words of MCP."""
        if task.state == TaskState.COMPLETED:
            failed = revision == D and task.result is not None and result_of(task.result).is_error
            return "failed" if failed else "completed"
        if task.state == TaskState.FAILED:
            return "completed" if revision == E and not self._is_protocol_error(task) else "failed"
        if task.state in FINAL:
            return "cancelled"
        return "input_required" if task.asked and not task.cancel_requested else "working"

    def outcome(self, task: Task, revision: int) -> bytes:
        """What `tools/call` would have answered: the JSON of its result, or its error raised."""
        shaper = self._shapers[revision]
        if task.state == TaskState.COMPLETED:
            return shaper.tool_result(result_of(task.result or "null"))
        if task.state != TaskState.FAILED:
            raise McpError(INTERNAL_ERROR, f"the task was cancelled{f': {task.reason}' if task.reason else ''}")
        error = from_info(task.error or _NO_REASON)
        if revision == E and isinstance(error, CannotAskError):
            raise missing_capability(error.message, error.details.get("capabilities"))
        tool = self._catalogue().get(task.type)
        took_s = (task.ended_at or 0.0) - (task.started_at or task.ended_at or 0.0)
        return shaper.failed_call(error, runtime=tool.runtime if tool is not None else None, took_s=max(0.0, took_s))

    def questions(self, task: Task) -> dict[str, object]:
        """`inputRequests`: those that are open."""
        requests: dict[str, object] = {}
        for key, text in task.asked.items():
            question = question_of(key, text)
            if question is not None:
                requests[key] = {"method": question.method, "params": for_revision(question, E)}
        return requests

    def _is_protocol_error(self, task: Task) -> bool:
        try:
            self.outcome(task, E)
        except McpError:
            return True
        return False

    def _ttl_ms(self, task: Task) -> int:
        """Milliseconds from its creation for which it can be read. Its time begins when it ends; while it has not, what
        is told is as if it ended now."""
        keep_s = task.keep_s if task.keep_s is not None else self._keep_s
        ended_at = task.ended_at if task.ended_at is not None else max(self._now(), task.created_at)
        return max(1, round((ended_at - task.created_at + keep_s) * 1000))


def _message(view: TaskView) -> str:
    """A word about its state for people."""
    task = view.task
    if task.state == TaskState.FAILED:
        return task.error.message if task.error is not None else ""
    if task.state in FINAL:
        return "" if task.state == TaskState.COMPLETED else task.reason
    if task.cancel_requested:
        return "it is being cancelled"
    if task.asked:
        return "it waits for answers"
    if task.progress is not None:
        return f"{task.progress:.0f} %{f': {task.progress_text}' if task.progress_text else ''}"
    return task.progress_text or (f"it waits: {view.why_waiting}" if view.why_waiting else "")


def iso(seconds: float) -> str:
    """A moment, as MCP writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
