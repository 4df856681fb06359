# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow in memory, and what is left to do for it."""

from __future__ import annotations

import math
from collections import deque

from actors.p2p.workflow_scheduler.machine import WorkflowRun
from actors.p2p.workflow_scheduler.run_values import Commands
from actors.workflow_messages import WORKFLOW_ENDED


class Live:
    """See the module's text."""

    __slots__ = ("carrying", "commands", "ended", "left", "retry_at", "run", "users")

    def __init__(self, run: WorkflowRun) -> None:
        self.run = run
        self.commands: deque[Commands] = deque()
        """Whose events are on disk."""
        self.carrying = False
        """Somebody carries them out."""
        self.ended = False
        """Its end is on disk."""
        self.left = True
        """The store says that there is something left to do for it."""
        self.retry_at = math.inf
        """By the clock of the engine: the queue may have room for what it refused."""
        self.users = 0
        """Calls that are about to do something with it."""

    @property
    def id(self) -> str:
        """The workflow's."""
        return self.run.workflow_id

    @property
    def over(self) -> bool:
        """It has ended; perhaps not on disk yet."""
        return self.run.status in WORKFLOW_ENDED

    @property
    def busy(self) -> bool:
        """Something is being carried out for it, or will be."""
        return bool(self.commands) or self.carrying

    @property
    def idle(self) -> bool:
        """Nobody does anything with it."""
        return not (self.busy or self.users)
