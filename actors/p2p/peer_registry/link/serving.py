# SPDX-License-Identifier: AGPL-3.0-or-later
"""Requests of the peer that are worked on.

Each is given to a task that is there already, if one is idle: a new task costs more than the rest of the request's way.
A request keeps its place until its answer is in the outbox, so that a peer that never reads can't pile up answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio
from outcome import Value

from actors.channel import FrameTooLargeError
from actors.errors import BusyError, DeadlineExceededError, MCPServerError
from actors.p2p.peer_registry.link.frames import Op
from actors.p2p.peer_registry.link.messages import ANSWERS, Said
from actors.p2p.peer_registry.link.outgoing import Outgoing
from actors.p2p.peer_registry.link.problems import problem_of
from actors.p2p.peer_registry.link.reasons import LinkViolation, Violation
from actors.p2p.peer_registry.link.rules import LinkRules

_encode = msgspec.msgpack.Encoder().encode
_FLOOD = 4
"""Times the outbox: so many answers wait only for a peer that asks on and on without reading."""
OnError = Callable[[str, BaseException], None]


class CancelledByPeerError(MCPServerError):
    """The caller did not want the answer any more."""

    code = "CANCELLED"


class _Job:
    """One request that is worked on."""

    __slots__ = ("began", "id", "request", "scope", "size", "why")

    def __init__(self, call_id: int, request: Said, size: int) -> None:
        self.id = call_id
        self.request = request
        self.size = size
        self.began = trio.current_time()
        self.scope: trio.CancelScope | None = None
        self.why: MCPServerError | None = None
        """Set when it was cancelled."""

    def cancel(self, why: MCPServerError) -> None:
        """End it, unless it has been ended already."""
        if self.why is None:
            self.why = why
            if self.scope is not None:
                self.scope.cancel()


class Serving:
    """The requests and their tasks. `begin` never waits."""

    def __init__(
        self,
        handle: Callable[[Any], Awaitable[Said]],
        rules: LinkRules,
        outgoing: Outgoing,
        on_error: OnError,
        on_violation: Callable[[LinkViolation], None],
    ) -> None:
        """`on_error` hears of errors of `handle` that were not raised on purpose; `on_violation` ends the link."""
        self.most_bytes = rules.max_frame_bytes
        """Of an answer."""
        self.bytes = 0
        self.refused = 0
        self.served = 0
        self.on_less: Callable[[], None] | None = None
        """Called when a request was answered."""
        self._handle = handle
        self._rules = rules
        self._outgoing = outgoing
        self._on_error = on_error
        self._on_violation = on_violation
        self._jobs: dict[int, _Job] = {}
        self._idle: list[trio.lowlevel.Task] = []
        self._least_idle = 0
        """Since the last `trim`."""

    def __len__(self) -> int:
        return len(self._jobs)

    def begin(self, nursery: trio.Nursery, call_id: int, request: Said, size: int) -> None:
        """Work on a request whose frame has `size` bytes, or answer that this side is busy. Raises `LinkViolation`."""
        rules = self._rules
        jobs = self._jobs
        if jobs and (len(jobs) >= rules.max_serving or self.bytes + size > rules.max_serving_bytes):
            self._refuse(call_id)
            return
        job = jobs[call_id] = _Job(call_id, request, size)
        self.bytes += size
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop(), Value(job))
            self._least_idle = min(self._least_idle, len(self._idle))
        else:
            self._least_idle = 0
            nursery.start_soon(self._work, job)

    def cancel(self, call_id: int) -> None:
        """The peer does not want this answer any more."""
        job = self._jobs.get(call_id)
        if job is not None:
            job.cancel(CancelledByPeerError("cancelled by the caller"))

    def expire(self) -> None:
        """Cancel what takes too long."""
        began_before = trio.current_time() - self._rules.serve_timeout_s
        for job in self._jobs.values():
            if job.began <= began_before:
                job.cancel(DeadlineExceededError(f"it took longer than {self._rules.serve_timeout_s:g} s"))

    def trim(self) -> None:
        """End the tasks that were idle all the time since this was called before."""
        for _ in range(self._least_idle):
            trio.lowlevel.reschedule(self._idle.pop(0), Value(None))
        self._least_idle = len(self._idle)

    async def _work(self, first: _Job) -> None:
        """The life of one task."""
        job: _Job | None = first
        while job is not None:
            job = await self._serve_on(job)
            if job is None:
                return
            if job.id in self._jobs:
                if self._outgoing.is_full():
                    await self._outgoing.room()
                self._put(job, self._failure(job, job.why or MCPServerError("it failed")))
            job = await self._next()

    async def _serve_on(self, job: _Job) -> _Job | None:
        """Answer this request and further ones, until one is cancelled: so a cancel scope is made for each of those
        only. Returns that one, which may lack its answer, or None when the task has to end."""
        scope = trio.CancelScope()
        try:
            with scope:
                while job.why is None:
                    job.scope = scope
                    await self._answer(job)
                    if job.why is None:
                        following = await self._next()
                        if following is None:
                            return None
                        job = following
        except* Exception as errors:  # noqa: BLE001
            self._on_error(type(job.request).__name__, errors)
        return job

    async def _next(self) -> _Job | None:
        """Wait idly for a request."""
        task = trio.lowlevel.current_task()
        self._idle.append(task)

        def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
            self._idle.remove(task)
            self._least_idle = min(self._least_idle, len(self._idle))
            return trio.lowlevel.Abort.SUCCEEDED

        given: _Job | None = await trio.lowlevel.wait_task_rescheduled(abort)
        return given

    async def _answer(self, job: _Job) -> None:
        try:
            answer = await self._handle(job.request)
            if type(answer) not in ANSWERS[type(job.request)]:
                raise TypeError(f"{type(answer).__name__} is no answer to {type(job.request).__name__}")
            frame = _encode((job.id, Op.ANSWER, answer))
            if len(frame) > self.most_bytes:
                frame = self._failure(job, too_large(len(frame), self.most_bytes))
        except LinkViolation as violation:
            self._on_violation(violation)
            return
        except Exception as error:  # noqa: BLE001
            frame = self._failure(job, error)
        if self._outgoing.is_full():
            await self._outgoing.room()
        self._put(job, frame)

    def _failure(self, job: _Job, error: BaseException) -> bytes:
        if not isinstance(error, MCPServerError):
            self._on_error(type(job.request).__name__, error)
        return _encode((job.id, Op.FAILURE, problem_of(error)))

    def _put(self, job: _Job, frame: bytes) -> None:
        self._outgoing.put(frame)
        del self._jobs[job.id]
        self.bytes -= job.size
        self.served += 1
        if self.on_less is not None:
            self.on_less()

    def _refuse(self, call_id: int) -> None:
        self.refused += 1
        if len(self._outgoing) >= _FLOOD * self._rules.outbox:
            raise LinkViolation(Violation.FLOOD, "it asks far more than is answered at once, and reads no answers")
        busy = BusyError(f"{len(self._jobs)} of your requests are being worked on, which is the limit; try again")
        self._outgoing.put(_encode((call_id, Op.FAILURE, problem_of(busy))))


def too_large(size: int, most: int) -> FrameTooLargeError:
    """The error for a message that does not fit into a frame."""
    return FrameTooLargeError(f"a message has {size} bytes; the limit between these peers is {most}")
