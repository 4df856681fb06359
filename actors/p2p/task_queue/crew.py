# SPDX-License-Identifier: AGPL-3.0-or-later
"""The workers that the queue knows."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.p2p.task_queue.records import NO_LIST
from actors.task_messages import WorkerInfo

Standing = Literal["active", "idle", "busy", "offline", "unregistered"]


class Worker(msgspec.Struct, eq=False):
    """A worker and what it holds."""

    name: str
    registered_at: float
    seen_at: float
    owner: str = ""
    types: list[str] = NO_LIST
    max_tasks: int = 0
    """0 = it never registered, it just claimed: any number."""
    limits: str = "{}"
    metadata: str = "{}"
    internal: bool = False
    gone: bool = False
    """It said that it goes."""
    completed: int = 0
    failed: int = 0
    released: int = 0
    run_s: float = 0.0
    request: str = ""
    """Of its latest claim that was given something."""
    given: list[Any] = NO_LIST
    """What that claim was given: id, token, id, token, ..."""
    running: dict[str, None] = {}
    """Ids of the tasks that it holds, oldest first."""

    def standing(self, now: float, timeout_s: float) -> Standing:
        """What can be said of it."""
        if self.gone:
            return "unregistered"
        if now - self.seen_at >= timeout_s:
            return "offline"
        if not self.running:
            return "idle"
        return "busy" if self.max_tasks and len(self.running) >= self.max_tasks else "active"

    def info(self, now: float, timeout_s: float) -> WorkerInfo:
        """For people."""
        return WorkerInfo(
            worker=self.name,
            registered_at=self.registered_at,
            seen_at=self.seen_at,
            status=self.standing(now, timeout_s),
            owner=self.owner,
            types=self.types,
            max_tasks=self.max_tasks or 5,
            limits=self.limits,
            metadata=self.metadata,
            internal=self.internal,
            running=list(self.running),
            completed=self.completed,
            failed=self.failed,
            released=self.released,
            run_s=self.run_s,
        )

    def pack(self) -> list[Any]:
        """For the log: all but what it holds, which tasks say themselves."""
        return [getattr(self, name) for name in _PACKED]

    @classmethod
    def unpack(cls, packed: list[Any]) -> Worker:
        """The worker that was packed."""
        return cls(**dict(zip(_PACKED, packed, strict=True)))


_PACKED = tuple(name for name in Worker.__struct_fields__ if name != "running")
