# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs tasks of other nodes here, for as long as they want it.

A task is run once for each token, whatever is lost: an offer that comes again is answered as before, and a result is
told until its origin has heard it, over whichever connection there is by then. When the origin is not heard of for the
length of a lease, or says so, the work is stopped and forgotten: the task is somebody else's by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from actors.errors import MCPServerError, code_of, to_info
from actors.logs import get_logger
from actors.messages import ErrorInfo
from actors.p2p.identity import NodeSigner
from actors.p2p.peer_registry.link.messages import Accepted, Offer, Progress, Refused, TaskCancel
from actors.p2p.peer_registry.sharing.own_events import OwnEvents, as_sent
from actors.p2p.peer_registry.sharing.statement import content_id, made_result, value_link
from actors.p2p.peer_registry.sharing.wires import Wire, Wires
from actors.p2p.task_worker.run import told
from actors.peer_messages import TAKEN
from actors.tool_messages import ToolResult
from actors.tool_tasks import result_text

OnProgress = Callable[[float | None, str], None]
RunTool = Callable[[str, Offer, OnProgress], Awaitable[ToolResult]]
"""Runs an offered task for the node with this id. Raises `MCPServerError`."""
Admit = Callable[[str, Offer], None]
"""Raises `MCPServerError` when the node may not have this run here."""

_LOOK_S: Final = 1.0
_AGAIN_S: Final = 0.5
_TELL_S: Final = 10.0
_NEWS_EVERY_S: Final = 1.0

Key = tuple[str, str, int]
"""Origin, task and token."""


class RunnerRules(msgspec.Struct, frozen=True, kw_only=True):
    """What it goes by, from the settings."""

    slots: int = 4
    """Tasks of others that run at once."""
    max_untold: int = 256
    """Results that wait until their origin has heard them; more, and nothing new is taken."""
    max_result_bytes: int = 900_000
    """Frames have a limit."""
    timeout_s: float = 300.0
    """For tasks that come without one."""


class Runner:
    """See the module's text."""

    def __init__(self, run_tool: RunTool, admit: Admit, signer: NodeSigner, wires: Wires, rules: RunnerRules) -> None:
        self.counts = Counter[str](dict.fromkeys(TAKEN, 0))
        """What became of tasks that were offered."""
        self._run_tool = run_tool
        self._admit = admit
        self._signer = signer
        self._wires = wires
        self._rules = rules
        self._events = OwnEvents(signer)
        self._jobs: dict[Key, _Job] = {}
        self._seen: dict[str, float] = {}
        """Origin -> when it was heard of."""
        self._nursery: trio.Nursery | None = None
        self._leaving = False
        self.on_free: Callable[[], None] = lambda: None
        """Called when there is room for one more."""

    @property
    def running(self) -> int:
        """Tasks that run now."""
        return sum(1 for job in self._jobs.values() if job.runs)

    @property
    def free_slots(self) -> int:
        """So many more would be taken."""
        if self._leaving or len(self._jobs) - self.running >= self._rules.max_untold:
            return 0
        return max(0, self._rules.slots - self.running)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry the work until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await trio.sleep(_LOOK_S)
                self._drop_forsaken()
                self._events.drop_idle()

    def leave(self) -> None:
        """Take nothing more."""
        self._leaving = True

    # --- what the origin says --------------------------------------------------------------------------------------

    def heard(self, origin: str) -> None:
        """A sign of life."""
        if origin in self._seen:
            self._seen[origin] = trio.current_time()

    def offered(self, wire: Wire, offer: Offer) -> Accepted | Refused:
        """The answer to an offer; the work has begun when it is `Accepted`."""
        key = (wire.peer_id, offer.task_id, offer.token)
        self._seen[wire.peer_id] = trio.current_time()
        if key not in self._jobs:
            try:
                self._check(wire.peer_id, offer)
            except MCPServerError as error:
                self.counts["refused"] += 1
                return Refused(code=code_of(error), reason=error.message[:2000], free_slots=self.free_slots)
            if self.free_slots < 1:
                self.counts["refused"] += 1
                return Refused(code="BUSY", reason="all slots are used", free_slots=0)
            try:
                self._events.begin(wire.peer_id, offer)
            except MCPServerError as error:
                return Refused(code=code_of(error), reason=error.message[:2000], free_slots=0)
            assert self._nursery is not None
            self.counts["accepted"] += 1
            job = self._jobs[key] = _Job(key, offer)
            self._nursery.start_soon(self._live, job)
        return Accepted(free_slots=self.free_slots)

    def _check(self, origin: str, offer: Offer) -> None:
        if content_id(offer.payload.encode()) != offer.input_cid:
            raise BadOfferError("the payload is not what its CID says")
        self._admit(origin, offer)

    def cancelled(self, wire: Wire, note: TaskCancel) -> None:
        """It is not wanted any more."""
        job = self._jobs.get((wire.peer_id, note.task_id, note.token))
        if job is not None:
            job.scope.cancel()

    # --- the work --------------------------------------------------------------------------------------------------

    async def _live(self, job: _Job) -> None:
        try:
            with job.scope:
                output, error = await self._attempt(job)
                self._events.end(job.key[0], job.offer, output, error)
                job.runs = False
                self.on_free()
                await self._tell(job, output, error)
            self.counts["dropped" if job.scope.cancelled_caught else "told"] += 1
        finally:
            del self._jobs[job.key]
            self._events.leave(job.key[0], job.offer)
            if not any(key[0] == job.key[0] for key in self._jobs):
                self._seen.pop(job.key[0], None)
            self.on_free()

    async def _attempt(self, job: _Job) -> tuple[str, ErrorInfo | None]:
        try:
            with trio.fail_after(
                self._rules.timeout_s if job.offer.timeout_s is None else job.offer.timeout_s + _LOOK_S
            ):
                text = result_text(await self._run_tool(job.key[0], job.offer, self._progress_of(job)))
        except trio.TooSlowError:
            return "", ErrorInfo(code="TIMEOUT", message="it took too long", retryable=True)
        except MCPServerError as error:
            return "", told(error)
        except Exception as error:  # noqa: BLE001 - one task never ends the node, which has others
            get_logger().error("a peer's task failed unexpectedly", tool=job.offer.type, exc_info=error)
            return "", to_info(error)
        size = len(text.encode())
        if size > self._rules.max_result_bytes:
            return "", ErrorInfo(code="LIMIT_EXCEEDED", message=f"its result has {size} bytes, too many to be sent")
        try:
            value_link(text)
        except ValueError as error:
            return "", ErrorInfo(code="INVALID_RESULT", message=str(error)[:2000])
        return text, None

    def _progress_of(self, job: _Job) -> OnProgress:
        due = trio.current_time()

        def progress(percent: float | None, text: str) -> None:
            nonlocal due
            now = trio.current_time()
            wire = self._wires.get(job.key[0])
            if now >= due and wire is not None:
                due = now + _NEWS_EVERY_S
                percent = None if percent is None else min(100.0, max(0.0, percent))
                wire.note(Progress(task_id=job.key[1], token=job.key[2], percent=percent, text=text[:2000]))

        return progress

    async def _tell(self, job: _Job, output: str, error: ErrorInfo | None) -> None:
        origin = job.key[0]
        result = made_result(self._signer, origin, job.offer, output, error)
        if job.offer.clock is not None:
            result = msgspec.structs.replace(result, workflow_id=job.offer.clock.workflow_id)
        while True:
            wire = self._wires.get(origin)
            if wire is None:
                await self._wires.changed()
                continue
            events = self._events.untold(origin, job.offer)
            try:
                taken = await wire.call(msgspec.structs.replace(result, events=as_sent(events)), _TELL_S)
            except MCPServerError as why:
                get_logger().debug("a result could not be told", peer=origin, reason=why.message)
            else:
                if taken.merged:
                    self._events.told(origin, job.offer, events)
                return
            await trio.sleep(_AGAIN_S)

    def _drop_forsaken(self) -> None:
        now = trio.current_time()
        for origin in [origin for origin in self._seen if self._wires.get(origin) is not None]:
            self._seen[origin] = now
        for job in self._jobs.values():
            if now - self._seen.get(job.key[0], now) > job.offer.lease_s:
                job.scope.cancel()


class BadOfferError(MCPServerError):
    """An offer contradicts itself."""

    code = "INVALID_PARAMS"


class _Job:
    """One offer that was accepted."""

    __slots__ = ("key", "offer", "runs", "scope")

    def __init__(self, key: Key, offer: Offer) -> None:
        self.key = key
        self.offer = offer
        self.scope = trio.CancelScope()
        self.runs = True
        """Its tool has not ended."""
