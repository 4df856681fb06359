# SPDX-License-Identifier: AGPL-3.0-or-later
"""Carries out what a run wants: operations of the queue in their order, looks at tasks, and memos.

All of it can be repeated without harm, so it is, for as long as the queue is not there.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

import trio

from actors.errors import MCPServerError, code_of, to_info
from actors.logs import get_logger
from actors.p2p.asking_queue import may_ask_again
from actors.p2p.workflow_scheduler.live import Live
from actors.p2p.workflow_scheduler.run_values import Commands, MemoAsk, lane
from actors.task_messages import MOST_OPS, Cancel, Enqueue, Op, Outcome, Pause, Refused, Resume
from actors.task_views import MOST_RESULTS, ReadResults, TaskFacts

_CHUNK_CHARS: Final = 512 << 10
"""Of payloads in one message, but for a single one that is larger."""
_WAIT_S: Final = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Before the first repeat, the second one, ..."""

T = TypeVar("T")


class Queue(Protocol):
    """What is needed of `actors.task_client.TaskClient`."""

    async def do_all(self, ops: Sequence[Op]) -> list[Outcome]:
        """Store operations together."""
        ...

    async def read_results(self, ask: ReadResults) -> TaskFacts:
        """Where tasks are."""
        ...

    async def watch(self, on_changed: Callable[[list[str]], None]) -> None:
        """Tell which tasks have changed."""
        ...


class Memos(Protocol):
    """Results of equal work."""

    def __call__(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Those that there are: key -> JSON text. Blocks."""
        ...


class Carrier:
    """See the module's text."""

    def __init__(
        self,
        queue: Queue,
        memos: Memos,
        *,
        settle: Callable[[Live], None],
        now: Callable[[], float],
    ) -> None:
        """`settle` is called each time that a run was told something."""
        self._queue = queue
        self._memos = memos
        self._settle = settle
        self._now = now

    async def carry_out(self, live: Live, commands: Commands) -> None:
        """All of it, however long the queue is away."""
        ops: list[Op] = []
        if commands.pause is not None:
            key = lane(live.id)
            ops.append(Pause(fairness_key=key) if commands.pause else Resume(fairness_key=key))
        await self._do(live, ops)
        await self.look(live, commands.look)
        await self._look_up(live, commands.memo)
        await self._do(live, [*commands.enqueue, *commands.cancel])

    async def look(self, live: Live, ids: Sequence[str]) -> None:
        """Tell a run where tasks are."""
        left = list(ids)
        while left:
            some, left = left[:MOST_RESULTS], left[MOST_RESULTS:]
            facts = await persist(lambda some=some: self._queue.read_results(ReadResults(ids=some)))  # type: ignore[misc]
            live.run.observe(facts.facts, self._now())
            live.run.gone(facts.unknown, self._now())
            self._settle(live)
            left = facts.left + left

    async def drop(self, ids: Sequence[str]) -> None:
        """Take tasks back that nobody waits for any more."""
        for some in _chunks([Cancel(id=one, reason="its workflow can't be continued", force=True) for one in ids]):
            await persist(lambda some=some: self._queue.do_all(some))  # type: ignore[misc]

    async def _look_up(self, live: Live, asks: Sequence[MemoAsk]) -> None:
        if not asks:
            return
        found = await trio.to_thread.run_sync(self._memos, [ask.key for ask in asks])
        for ask in asks:
            live.run.memo_found(ask.step, ask.index, found.get(ask.key), self._now())
        self._settle(live)

    async def _do(self, live: Live, ops: Sequence[Op]) -> None:
        for some in _chunks(ops):
            try:
                outcomes = await persist(lambda some=some: self._queue.do_all(some), whatever=False)  # type: ignore[misc]
            except MCPServerError as error:
                if len(some) > 1:
                    for op in some:
                        await self._do(live, [op])
                    continue
                outcomes = [Refused(error=to_info(error))]
            for op, outcome in zip(some, outcomes, strict=True):
                self._tell(live, op, outcome)
            self._settle(live)

    def _tell(self, live: Live, op: Op, outcome: Outcome) -> None:
        if isinstance(outcome, Refused):
            if isinstance(op, Enqueue | Cancel):
                live.run.refused(op.id, outcome.error, self._now())
            else:
                get_logger().warning("the queue refused a pause", workflow=live.id, reason=outcome.error.message)
        elif isinstance(op, Enqueue):
            live.run.accepted([op.id])


def _chunks(ops: Sequence[Op]) -> Iterator[list[Op]]:
    some: list[Op] = []
    chars = 0
    for op in ops:
        size = len(op.payload) if isinstance(op, Enqueue) else 0
        if some and (len(some) >= MOST_OPS or chars + size > _CHUNK_CHARS):
            yield some
            some, chars = [], 0
        some.append(op)
        chars += size
    if some:
        yield some


async def persist(do: Callable[[], Awaitable[T]], *, whatever: bool = True) -> T:
    """Do this until the queue has answered. Unless `whatever`, raises what a repeat would not change."""
    for wait_s in itertools.chain(_WAIT_S, itertools.repeat(_WAIT_S[-1])):
        try:
            return await do()
        except MCPServerError as error:
            passes = may_ask_again(error)
            if not (passes or whatever):
                raise
            log = get_logger().debug if passes else get_logger().error
            log("the task queue did not answer", code=code_of(error), reason=error.message)
        await trio.sleep(wait_s)
    raise AssertionError
