# SPDX-License-Identifier: AGPL-3.0-or-later
"""An idle node asks those that it is linked with for work; what they do with that is in `Sender.pulled`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from actors.p2p.peer_registry.link.messages import Pull
from actors.p2p.peer_registry.sharing.runner import Runner
from actors.p2p.peer_registry.sharing.wires import Wire

EVERY_S: Final = 5.0
"""While it is idle."""
_REST_S: Final = 0.25
"""Between two questions at least: tasks may be short."""
MOST: Final = 1000


class Puller:
    """See the module's text."""

    def __init__(
        self, runner: Runner, wires: Callable[[], Sequence[Wire]], own_work_waits: Callable[[], Awaitable[bool]]
    ) -> None:
        """`wires`: the connections that there are. `own_work_waits`: whether this node has more to do than it can."""
        self._runner = runner
        self._wires = wires
        self._own_work_waits = own_work_waits
        self._maybe = trio.Event()

    def look(self) -> None:
        """It may be idle now, or somebody new is there to be asked."""
        self._maybe.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._pull()
            await trio.sleep(_REST_S)
            with trio.move_on_after(EVERY_S - _REST_S):
                await self._maybe.wait()
            self._maybe = trio.Event()

    async def _pull(self) -> None:
        if not self._is_idle() or await self._own_work_waits() or not self._is_idle():
            return  # work may have come while it was asked about
        pull = Pull(n=min(self._runner.free_slots, MOST))
        for wire in self._wires():
            wire.note(pull)

    def _is_idle(self) -> bool:
        return not self._runner.running and self._runner.free_slots > 0 and bool(self._wires())
