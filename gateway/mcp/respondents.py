# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the two kinds of respondents (`rounds`, `requests`) have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class TaskStart:
    """Where a call that runs directly becomes a task, if it comes to that: for tools that say so themselves."""

    def __init__(self, create: Callable[[dict[str, str]], Awaitable[bytes]]) -> None:
        """`create` makes the task, from the answers that the client gave so far (key ->
        `answer_text`), and returns the call's result."""
        self._create = create
        self._scope = trio.CancelScope()
        self.begun = False

    async def begin(self) -> None:
        """End the run of the tool: it will run again in the task."""
        self.begun = True
        self._scope.cancel()
        await trio.sleep_forever()

    async def run(self, work: Callable[[], Awaitable[bytes]], answers: Callable[[], dict[str, str]]) -> bytes:
        """The JSON of the call's result, or of the task that it became."""
        with self._scope:
            return await work()
        return await self._create(answers())


class MayBecomeTask:
    """A respondent whose call may become a task."""

    start: TaskStart | None = None
    """Where the call becomes a task, when it can."""

    async def begin_task(self) -> None:
        """End the run: it was asked for all that comes before the work."""
        if self.start is not None:
            await self.start.begin()

    @property
    def became_task(self) -> bool:
        """Whether the run was ended so."""
        return self.start is not None and self.start.begun
