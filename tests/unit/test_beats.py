# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process tells how much memory it has, also when it is out of files, and gives back what it does not need."""

from __future__ import annotations

import errno
import os
import resource

import pytest
import trio

from actors import memory
from actors.memory import MemoryGauge


def test_memory_is_told_without_opening_anything():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with MemoryGauge() as gauge:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(OSError, match="Too many open files") as full:
                os.open(os.devnull, os.O_RDONLY)
            assert full.value.errno == errno.EMFILE
            assert gauge.read() > 1024 * 1024
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_follows_what_is_taken():
    with MemoryGauge() as gauge:
        before = gauge.read()
        taken = b"x" * 50_000_000
        assert gauge.read() > before + 25_000_000
        del taken


async def test_memory_that_was_freed_between_other_things_goes_back_to_the_system(monkeypatch, nursery):
    monkeypatch.setattr(memory, "GIVE_BACK_EVERY_S", 0.001)
    with MemoryGauge() as gauge:
        taken = [b"x" * 10_000 for _ in range(2_000)]
        before = gauge.read()
        kept = taken[::4]
        del taken
        nursery.start_soon(memory.give_memory_back)
        with trio.fail_after(5):
            while gauge.read() > before - 5_000_000:
                await trio.sleep(0.001)
        assert len(kept) == 500
        nursery.cancel_scope.cancel()
