# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a way of starting processes must offer. The runtime knows no more than this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from actors.messages import Boot
from supervisor.spec import Limits

OnStderr = Callable[[str, bytes], None]
"""Called with a child's name and what it wrote, in pieces as they come."""


def stacks_path(runtime_dir: str | Path, incarnation: int) -> Path:
    """Where a life writes the stacks of its threads when it is asked to."""
    return Path(runtime_dir) / f"{incarnation}.stacks"


class ExitStatus(msgspec.Struct, frozen=True):
    """How a process ended."""

    returncode: int | None
    """Exit code; None when a signal ended it or it never started."""
    signal: int | None
    stderr_tail: str
    """The last few KiB that it wrote."""
    error: str
    """Why it could not be started; empty when it was."""


class Process(Protocol):
    """One process that was started."""

    pid: int
    name: str
    incarnation: int

    async def wait(self) -> ExitStatus:
        """Until the process is dead and reaped. May be awaited by several, gives the same each time."""
        ...

    async def stop(self) -> None:
        """Ask it to end. Bounded, never raises, does not wait for the end."""
        ...

    def dump_stacks(self) -> None:
        """Ask it to write where its threads are, to the file of `stacks_path`. Never raises."""
        ...

    def kill(self) -> None:
        """SIGKILL to it and to what it started in its session; nothing once it is reaped."""
        ...


class Spawner(Protocol):
    """Starts actors' processes."""

    async def spawn(self, boot: Boot, *, limits: Limits, on_stderr: OnStderr) -> Process:
        """Start one. Returns as soon as the process exists; a death in boot shows in `wait`. Raises OSError."""
        ...
