# SPDX-License-Identifier: AGPL-3.0-or-later
"""Operations that must not be cancelled half way, for callers that must not wait for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio
from outcome import Error, Outcome, Value

_T = TypeVar("_T")


class TookTooLongError(Exception):
    """The operation is still under way."""


class _Under(Generic[_T]):
    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: Outcome[_T] | None = None
        self.fetched = False
        self.left_alone = False


class Background:
    """Runs operations to their end in a nursery that outlives their callers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.running = 0
        """Operations under way."""

    def start(self, operation: Callable[[], Awaitable[object]]) -> None:
        """Begin it; what it returns or raises doesn't matter."""
        self._nursery.start_soon(self._carry_out, operation, _Under(), None)

    async def run(self, operation: Callable[[], Awaitable[object]], within_s: float) -> bool:
        """Whether it ended in this time. What it returns or raises doesn't matter."""
        try:
            await self.result(operation, within_s)
        except TookTooLongError:
            return False
        except Exception:  # noqa: BLE001
            return True
        return True

    async def result(
        self,
        operation: Callable[[], Awaitable[_T]],
        within_s: float,
        *,
        late: Callable[[_T], Awaitable[object]] | None = None,
    ) -> _T:
        """What it returns or raises. Raises `TookTooLongError` after this time.

        When the caller has gone by then, or is cancelled, what it returns is given to `late`.
        """
        under: _Under[_T] = _Under()
        self._nursery.start_soon(self._carry_out, operation, under, late)
        try:
            with trio.move_on_after(within_s):
                await under.done.wait()
            under.fetched = under.outcome is not None
        finally:
            under.left_alone = not under.fetched
            if under.left_alone and isinstance(under.outcome, Value) and late is not None:
                # It ended in the moment in which the caller was cancelled.
                self._nursery.start_soon(_quietly, late, under.outcome.value)
        if under.outcome is None:
            raise TookTooLongError
        return under.outcome.unwrap()

    async def _carry_out(
        self,
        operation: Callable[[], Awaitable[_T]],
        under: _Under[_T],
        late: Callable[[_T], Awaitable[object]] | None,
    ) -> None:
        self.running += 1
        try:
            value = await operation()
        except Exception as error:  # noqa: BLE001
            under.outcome = Error(error)
        else:
            under.outcome = Value(value)
            if under.left_alone and late is not None:
                await _quietly(late, value)
        finally:
            self.running -= 1
            under.done.set()


async def _quietly(late: Callable[[_T], Awaitable[object]], value: _T) -> None:
    with contextlib.suppress(Exception):
        await late(value)
