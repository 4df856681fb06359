# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process that is out of files still tells the root that it lives, and how much memory it has."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from actors.base import MemoryGauge


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
