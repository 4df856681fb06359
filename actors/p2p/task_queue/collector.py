# SPDX-License-Identifier: AGPL-3.0-or-later
"""The garbage collector of a process that holds very many objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_asleep() -> Iterator[None]:
    """For work that makes hundreds of thousands of objects, none of which is garbage: the collector would visit all of
    them again and again. It is the whole process's."""
    awake = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if awake:
            gc.enable()
