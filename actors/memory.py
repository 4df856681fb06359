# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process's own memory: how much it has, what the collector looks at, what goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from typing import Final

import trio

GIVE_BACK_EVERY_S: Final = 30.0
_PAGE_BYTES: Final = 4096
_GC_THRESHOLDS: Final = (10_000, 20, 50)
"""New objects before a collection of the youngest, collections before one of the next generation, and again."""


def settle_memory() -> None:
    """Take all that was loaded so far out of the garbage collector's sight: it stays, and looking at it again in each
    full collection would stop every call for 10 to 20 ms."""
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def give_memory_back() -> None:
    """Give the system, now and then, the pages that the C library keeps after they were freed. Runs until cancelled.

    It gives back by itself only what is free at the heap's end: without this a process keeps the size of its busiest
    moment, and looks as if it leaked. Costs 0.1 ms when there is little to give. Only glibc has such pages.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    while True:
        await trio.sleep(GIVE_BACK_EVERY_S)
        with contextlib.suppress(RuntimeError):  # no thread can be started just now
            await trio.to_thread.run_sync(trim, 0)


class MemoryGauge:
    """Tells this process's resident memory. Its file stays open: a process that is out of files still beats."""

    def __enter__(self) -> MemoryGauge:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._statm)

    def read(self) -> int:
        """Bytes, now."""
        return int(os.pread(self._statm, 256, 0).split()[1]) * _PAGE_BYTES
