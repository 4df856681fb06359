# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the root knows of the processes that live now: one `Life` per incarnation, from spawn to reaped."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import trio

from actors.channel import Channel
from actors.flight import FlightRecord
from actors.messages import Beat, Stop
from actors.peers import is_spare
from supervisor.events import ExitKind
from supervisor.spawn import Process
from supervisor.spec import ChildSpec


class Life:
    """One incarnation of one child."""

    def __init__(self, spec: ChildSpec, incarnation: int) -> None:
        self.spec = spec
        self.spare = is_spare(spec.id)
        """It was started as a spare."""
        self.name = spec.id
        """Of the child whose life it is; changes when lives change places."""
        self.worked_as = ""
        """Whose work it did before another life took its place."""
        self.incarnation = incarnation
        self.token = secrets.token_urlsafe(32)
        self.started_at = trio.current_time()
        self.ready_at: float | None = None
        self.process: Process | None = None
        self.control: Channel | None = None
        self.socket = ""
        self.note = ""
        self.beat: Beat | None = None
        self.last_beat_at = self.started_at
        self.ordered = False
        """It was killed because its end was ordered: it did nothing wrong."""
        self.flight: FlightRecord | None = None
        """What it was running when it died; known once it is dead, if it runs tools."""
        self.stop: Stop | None = None
        """The order to end, once there was one."""
        self.kill_cause = ""
        """Why the root itself killed it; empty when it did not."""
        self.killed_as: ExitKind = "killed"
        self.limit_reached = ""
        """Which of its limits it has reached, in words: it is being replaced for that."""
        self.look_at_limits_at = 0.0
        self.stacks = ""
        """Of all its threads, when it hung."""
        self.ended = trio.Event()

    @property
    def pid(self) -> int | None:
        """The process's id, once it has one."""
        return self.process.pid if self.process is not None else None

    def kill(self, cause: str, kind: ExitKind = "killed") -> None:
        """End it now, and remember the first reason."""
        if not self.kill_cause:
            self.kill_cause = cause
            self.killed_as = kind
        if self.process is not None:
            self.process.kill()


class Lives:
    """All lives, by name; at most one per name, because the core starts no second before the first has ended."""

    def __init__(self) -> None:
        self._by_name: dict[str, Life] = {}

    def add(self, life: Life) -> None:
        """A new incarnation is being spawned."""
        assert life.name not in self._by_name, life.name
        self._by_name[life.name] = life

    def remove(self, life: Life) -> None:
        """It has ended and is reaped."""
        del self._by_name[life.name]

    def swap(self, name: str, other: str) -> None:
        """The lives of two names change places; there may be none of either."""
        first, second = self._by_name.pop(name, None), self._by_name.pop(other, None)
        for life, new in ((first, other), (second, name)):
            if life is not None:
                life.name = new
                self._by_name[new] = life

    def get(self, name: str, incarnation: int | None = None) -> Life | None:
        """The life of this name, if it is this incarnation."""
        life = self._by_name.get(name)
        return life if life is not None and incarnation in {None, life.incarnation} else None

    def by_token(self, name: str, incarnation: int, token: str) -> Life | None:
        """The life that this token proves, compared in constant time."""
        life = self.get(name, incarnation)
        if life is None or not secrets.compare_digest(life.token.encode(), token.encode()):
            return None
        return life

    def __iter__(self) -> Iterator[Life]:
        return iter(list(self._by_name.values()))
