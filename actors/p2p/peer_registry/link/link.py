# SPDX-License-Identifier: AGPL-3.0-or-later
"""One link: a stream to one peer that carries many calls at once in both directions. Promises:

* Whatever the peer sends or does, `run` ends with a reason and raises nothing; nothing is unbounded meanwhile.
* A call ends exactly once: with its answer, a typed error, its deadline, or as soon as the link ends: with
  `OutcomeUnknownError` when the peer may have begun it, else with `PeerUnreachableError`.
* Cancelling the task that waits for a call, or its deadline, touches the table of calls only, never the stream; the
  peer's handler is cancelled.
* The reader never waits for work: two peers whose handlers call each other can't stand still.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Generator
from typing import Final, overload

import msgspec
import trio

from actors.errors import BusyError, MCPServerError, code_of
from actors.p2p.peer_registry.link.calls import Calls, Pending, lost
from actors.p2p.peer_registry.link.frames import READ_BYTES, Op, Seal
from actors.p2p.peer_registry.link.hello import Handshake, PeerHello
from actors.p2p.peer_registry.link.incoming import Incoming
from actors.p2p.peer_registry.link.messages import (
    ANSWERS,
    Accepted,
    Answer,
    CallTool,
    Describe,
    Echo,
    End,
    FindPeers,
    Heartbeat,
    Note,
    Offer,
    PeerDescription,
    PeersFound,
    Refused,
    Request,
    ResultTaken,
    TaskResult,
    ToolAnswer,
)
from actors.p2p.peer_registry.link.outgoing import Outgoing
from actors.p2p.peer_registry.link.reasons import Cause, Ending, LinkEndError, LinkViolation
from actors.p2p.peer_registry.link.serving import Serving, too_large
from actors.p2p.peer_registry.link.side import LinkStatistics, OwnSide
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

_HEARTBEATS_OF_SILENCE: Final = 3
_PAUSE_S: Final = 1.0
"""When this process wakes so much later than it wanted to, it was stopped: the peer can't be blamed for silence."""
_IN_ORDER: Final = frozenset({Cause.CLOSED, Cause.REFUSED, Cause.INCOMPATIBLE, Cause.VIOLATION})
"""The peer is told of these; it has ended itself, or can't be reached, with the others."""
_RESET_S: Final = 2.0

_encode = msgspec.msgpack.Encoder().encode


class Link:
    """One link. Whoever opens the stream runs `run`; calls can be made once `ready` is set."""

    def __init__(self, stream: PeerStream, side: OwnSide, on_ready: Callable[[Link], None] = lambda _: None) -> None:
        """`on_ready` is called once, when the hello is done."""
        self.peer_id = stream.peer_id
        """Proven by the stream's secure channel."""
        self.address = stream.address
        self.inbound = stream.inbound
        """The peer dialled."""
        self.ready = trio.Event()
        """The hello is done."""
        self.over = trio.Event()
        """`run` is done."""
        self.ending: Ending | None = None
        """Why the link ended, or is about to."""
        self.heartbeat = Heartbeat()
        """The peer's latest one."""
        self._stream = stream
        self._side = side
        self._rules = side.rules
        self._on_ready = on_ready
        self._peer: PeerHello | None = None
        self._ready_at = math.inf
        self._scope = trio.CancelScope()
        self._outgoing = Outgoing(side.rules)
        self._calls = Calls(self.peer_id, side.rules, self._outgoing, self._look_by)
        self._serving = Serving(self._handle, side.rules, self._outgoing, side.on_error, self._violated)
        self._incoming = Incoming(stream, side.rules, self._calls, self._serving, self._noted)
        self._handshake: Handshake | None = None
        self._most_bytes = side.rules.max_frame_bytes
        self._next_id = 0
        self._dropped = 0
        self._retiring = ""
        """Why it makes no more calls."""
        self._retire_by = math.inf
        self._silence_s = side.rules.dead_after_s
        self._cut = False
        """A frame of the hello is being written, or was left unfinished."""
        self._look = trio.CancelScope()
        self._look_at = math.inf

    @property
    def peer(self) -> PeerHello:
        """What the other side said of itself. Not before the link is ready."""
        assert self._peer is not None
        return self._peer

    @property
    def usable(self) -> bool:
        """Calls can be made."""
        return self._peer is not None and self.ending is None and not self._retiring

    @property
    def silent_s(self) -> float:
        """So long nothing has come."""
        return trio.current_time() - self._incoming.heard_at

    # --- calling ---------------------------------------------------------------------------------------------------

    @overload
    async def call(self, request: Offer, timeout_s: float) -> Accepted | Refused: ...
    @overload
    async def call(self, request: TaskResult, timeout_s: float) -> ResultTaken: ...
    @overload
    async def call(self, request: CallTool, timeout_s: float) -> ToolAnswer: ...
    @overload
    async def call(self, request: Echo, timeout_s: float) -> Echo: ...
    @overload
    async def call(self, request: Describe, timeout_s: float) -> PeerDescription: ...
    @overload
    async def call(self, request: FindPeers, timeout_s: float) -> PeersFound: ...

    async def call(self, request: Request, timeout_s: float) -> Answer:
        """Have the peer answer a request.

        Raises `BusyError` (nothing was begun), `DeadlineExceededError` (the peer is told to stop; it may have done the
        work), `PeerUnreachableError` (no link, or it ended before the peer took the request), `OutcomeUnknownError` (it
        ended later), `FrameTooLargeError`, and what the peer's handler raised.
        """
        self._check_usable()
        frame = _encode((self._next_id + 1, Op.REQUEST, request))
        if len(frame) > self._most_bytes:
            raise too_large(len(frame), self._most_bytes)
        if self._outgoing.is_full():
            with trio.move_on_after(timeout_s):
                await self._outgoing.room()
            self._check_usable()
            if self._outgoing.is_full():
                raise BusyError(f"too much waits to be sent to {self.peer_id}; try again")
            frame = _encode((self._next_id + 1, Op.REQUEST, request))
        self._next_id = call_id = self._next_id + 1
        pending = Pending(trio.lowlevel.current_task(), frame, ANSWERS[type(request)], timeout_s)
        self._calls.begin(call_id, pending)
        answer: Answer = await self._calls.result(call_id)
        return answer

    def note(self, message: Note) -> bool:
        """Tell the peer something. Never waits; False when it was dropped, because the peer takes too little or the
        link is not there. Raises `FrameTooLargeError`."""
        if not self.usable or self._outgoing.is_full():
            self._dropped += 1
            return False
        frame = _encode((0, Op.NOTE, message))
        if len(frame) > self._most_bytes:
            raise too_large(len(frame), self._most_bytes)
        self._outgoing.put(frame)
        return True

    async def close(self, reason: str = "closed") -> None:
        """End the link in good order, and wait until it has ended. Open calls end at once; handlers are cancelled."""
        self.end(Ending(Cause.CLOSED, reason))
        await self.over.wait()

    def end(self, ending: Ending) -> None:
        """End the link now, for this reason, unless it has one already."""
        if self.ending is None:
            self.ending = ending
            self._scope.cancel()

    def retire(self, reason: str) -> None:
        """Make no more calls, and end when those of both sides are done, or after `drain_s`."""
        if not self._retiring:
            self._retiring = reason
            self._serving.on_less = self._calls.on_less = self._end_if_done
            self._retire_by = trio.current_time() + self._rules.drain_s
            self._look_by(self._retire_by)
            self._end_if_done()

    def statistics(self) -> LinkStatistics:
        """A snapshot."""
        calls, serving, outgoing = self._calls, self._serving, self._outgoing
        return LinkStatistics(
            age_s=max(0.0, trio.current_time() - self._ready_at),
            open_calls=calls.open,
            waiting_calls=len(calls),
            serving=len(serving),
            answered_calls=calls.done,
            late_answers=calls.late,
            served=serving.served,
            refused=serving.refused,
            frames_in=self._incoming.frames,
            frames_out=outgoing.taken_total,
            bytes_in=self._incoming.bytes,
            bytes_out=outgoing.bytes_out,
            writes=outgoing.writes,
            queued_bytes=outgoing.queued_bytes,
            dropped_notes=self._dropped,
        )

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> Ending:
        """Carry the link until it ends; returns why. Raises nothing but cancellation."""
        try:
            async with trio.open_nursery() as writing:
                with self._scope:
                    await self._carry(writing)
                ending = self._stop()
                with trio.move_on_after(self._rules.linger_s), contextlib.suppress(Exception):
                    await self._say_goodbye(ending)
                writing.cancel_scope.cancel()
        finally:
            ending = self._stop()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _RESET_S), contextlib.suppress(Exception):
                await self._stream.reset()
            self.over.set()
        return ending

    async def _carry(self, writing: trio.Nursery) -> None:
        with self._guard():
            handshake = await self._greet()
            self._begin(handshake)
            writing.start_soon(self._write, handshake.sending)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep)
                self._on_ready(self)
                self.ready.set()
                with self._guard():
                    await self._incoming.run(nursery, handshake.receiving)

    @contextlib.contextmanager
    def _guard(self) -> Generator[None]:
        """Whatever goes wrong here ends the link."""
        try:
            yield
        except LinkEndError as error:
            self.end(error.ending)
        except StreamBrokenError as error:
            self.end(Ending(Cause.LOST, str(error)))
        except Exception as error:  # noqa: BLE001
            self._side.on_error("a link", error)
            self.end(Ending(Cause.FAULT, type(error).__name__))

    def _stop(self) -> Ending:
        """Nothing more is asked or answered; those who wait are told."""
        self.end(Ending(Cause.CANCELLED, "its task was cancelled"))
        assert self.ending is not None
        self._calls.fail(str(self.ending), self._incoming.their_last_id)
        self._outgoing.close()
        return self.ending

    async def _greet(self) -> Handshake:
        stream = self._stream
        with trio.move_on_after(self._rules.hello_timeout_s):
            handshake = self._handshake = Handshake(
                self._side.peer_id,
                stream.peer_id,
                address=stream.address,
                inbound=stream.inbound,
                instance=self._side.instance,
                about=self._side.about(stream.peer_id),
                rules=self._rules,
                secret=self._side.secret,
            )
            await self._write_now(handshake.first())
            while handshake.peer is None:
                if said := handshake.take(await self._incoming.frame()):
                    await self._write_now(said)
            return handshake
        raise LinkEndError(Cause.SILENT, f"no hello within {self._rules.hello_timeout_s:g} s")

    def _begin(self, handshake: Handshake) -> None:
        peer = handshake.peer
        assert peer is not None
        try:
            self._side.accept(peer)
        except MCPServerError as error:
            raise LinkEndError(Cause.REFUSED, code_of(error)) from None
        self._most_bytes = self._serving.most_bytes = min(self._rules.max_frame_bytes, peer.limits.max_frame_bytes)
        self._calls.places = peer.limits.max_serving
        self._silence_s = max(self._rules.dead_after_s, _HEARTBEATS_OF_SILENCE * peer.limits.heartbeat_s)
        self._ready_at = trio.current_time()
        self._peer = peer

    async def _say_goodbye(self, ending: Ending) -> None:
        if ending.cause in _IN_ORDER:
            reason = ending.text if ending.cause is Cause.CLOSED else str(ending)
            if self._peer is not None:
                if ending.cause is not Cause.CLOSED:
                    self._outgoing.drop()
                self._outgoing.put(_encode((0, Op.END, End(reason[:200], self._incoming.last_id))))
                await self._outgoing.emptied()
            elif self._handshake is not None and not self._cut:
                await self._stream.write(self._handshake.refusal(reason))
        elif ending.cause is not Cause.ENDED:
            return
        await self._stream.finish()
        while await self._stream.read(READ_BYTES):  # a stream that is reset at once may lose what was written
            pass

    def _end_if_done(self) -> None:
        if not self._serving and not self._calls.unsettled:
            self.end(Ending(Cause.CLOSED, self._retiring))

    def _check_usable(self) -> None:
        if not self.usable:
            why = str(self.ending) if self.ending else self._retiring or "its hello is not done"
            raise lost(self.peer_id, why, sent=False)

    # --- writing ---------------------------------------------------------------------------------------------------

    async def _write(self, seal: Seal | None) -> None:
        with self._guard():
            await self._outgoing.run(self._stream, seal)

    async def _write_now(self, data: bytes) -> None:
        self._cut = True
        await self._stream.write(data)
        self._cut = False

    # --- time ------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """See to all that is due at some time. One task for all: a cancel scope per call would double its cost."""
        rules = self._rules
        beat_at = trio.current_time() + rules.heartbeat_s
        while True:
            self._look_at = min(self._calls.next_expiry(), beat_at, self._patience_ends())
            with trio.CancelScope(deadline=self._look_at) as self._look:
                await trio.sleep_forever()
            now = trio.current_time()
            if now > self._look_at + _PAUSE_S:
                self._incoming.heard_at = max(self._incoming.heard_at, now - self._silence_s + rules.heartbeat_s)
            self._calls.expire(now)
            if now >= self._patience_ends():
                self._lose_patience(now)
            if now >= beat_at:
                beat_at = now + rules.heartbeat_s
                self._serving.expire()
                self._serving.trim()
                self._beat()

    def _look_by(self, at: float) -> None:
        if at < self._look_at:
            self._look_at = self._look.deadline = at

    def _patience_ends(self) -> float:
        rules = self._rules
        return min(
            self._incoming.heard_at + self._silence_s,
            self._outgoing.writing_since + rules.stalled_after_s,
            self._incoming.frame_since + rules.frame_timeout_s,
            self._retire_by,
        )

    def _lose_patience(self, now: float) -> None:
        rules = self._rules
        if now >= self._retire_by:
            self.end(Ending(Cause.CLOSED, self._retiring))
        elif now >= self._incoming.heard_at + self._silence_s:
            self.end(Ending(Cause.SILENT, f"nothing came for {self._silence_s:g} s"))
        elif now >= self._outgoing.writing_since + rules.stalled_after_s:
            self.end(Ending(Cause.STALLED, f"it took nothing for {rules.stalled_after_s:g} s"))
        else:
            self.end(Ending(Cause.SILENT, f"a frame was not whole after {rules.frame_timeout_s:g} s"))

    def _beat(self) -> None:
        if not self._outgoing.is_full():
            try:
                beat = self._side.beat()
            except Exception as error:  # noqa: BLE001
                self._side.on_error("a heartbeat", error)
                beat = Heartbeat()
            self._outgoing.put(_encode((0, Op.NOTE, beat)))

    # --- the peer's requests and notes --------------------------------------------------------------------------------

    def _handle(self, request: Request) -> Awaitable[Answer]:
        return self._side.handler(self, request)

    def _noted(self, note: Note) -> None:
        if isinstance(note, Heartbeat):
            self.heartbeat = note
        try:
            self._side.on_note(self, note)
        except LinkViolation:
            raise
        except Exception as error:  # noqa: BLE001
            self._side.on_error(type(note).__name__, error)

    def _violated(self, violation: LinkViolation) -> None:
        self.end(violation.ending)
