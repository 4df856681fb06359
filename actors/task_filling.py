# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the values come from that payloads name (`task_links.py`): the queue is asked for them, bit by bit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from actors.task_client import each_answer
from actors.task_links import Filling
from actors.task_views import ReadResults, TaskFact, TaskFacts

_LARGE_CHARS: Final = 100_000
"""So much takes a millisecond to decode: more is done in a thread, so that others need not wait."""


async def fill(filling: Filling, owner: str, read: Callable[[ReadResults], Awaitable[TaskFacts]]) -> None:
    """Put in what is not in it yet; `read` asks the queue, `owner` is that of the task with this payload. Raises what
    `read` and `Filling.put_fact` raise."""

    async def take(facts: list[TaskFact]) -> None:
        def put() -> None:
            for fact in facts:
                filling.put_fact(fact, owner)

        if sum(len(fact.result or "") for fact in facts) > _LARGE_CHARS:
            await trio.to_thread.run_sync(put)
        else:
            put()

    await each_answer(read, filling.missing(), take)
