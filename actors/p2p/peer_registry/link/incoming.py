# SPDX-License-Identifier: AGPL-3.0-or-later
"""What comes on a link: each frame is checked and given to where it belongs. Nothing here waits but for bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from actors.p2p.peer_registry.link.calls import Calls
from actors.p2p.peer_registry.link.frames import CODE_BYTES, READ_BYTES, Cutter, Op, Seal
from actors.p2p.peer_registry.link.hello import Hello, Proof, Ready, read_body
from actors.p2p.peer_registry.link.messages import ANSWERS, NOTES, Body, End, Note, Problem, Said
from actors.p2p.peer_registry.link.reasons import Cause, LinkEndError, LinkViolation, Violation
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.link.serving import Serving
from actors.p2p.peer_registry.stream import PeerStream

_HIGHEST_ID: Final = (1 << 53) - 1
_ANSWER: Final = int(Op.ANSWER)
_REQUEST: Final = int(Op.REQUEST)
_FAILURE: Final = int(Op.FAILURE)

_decode = msgspec.msgpack.Decoder(tuple[int, int, Body | Hello | Proof | Ready | None]).decode


class Incoming:
    """The reading side of a link. Raises `LinkEndError` (`LinkViolation` among them) and what the stream raises."""

    def __init__(
        self,
        stream: PeerStream,
        rules: LinkRules,
        calls: Calls,
        serving: Serving,
        on_note: Callable[[Note], None],
    ) -> None:
        self.heard_at = trio.current_time()
        """When bytes came last."""
        self.frame_since = math.inf
        """When the frame began of which a part has come."""
        self.frames = 0
        self.bytes = 0
        self.last_id = 0
        """Of the latest request that was taken."""
        self.their_last_id: int | None = None
        """Of the latest request that the peer took, once it has ended the link."""
        self._stream = stream
        self._rules = rules
        self._calls = calls
        self._serving = serving
        self._on_note = on_note
        self._cutter = Cutter(rules.max_hello_bytes)

    async def frame(self) -> bytes | bytearray:
        """Wait for one frame; for the hello."""
        while (frame := self._cutter.cut()) is None:
            await self._fill()
        return frame

    async def run(self, nursery: trio.Nursery, seal: Seal | None) -> None:
        """Take frames until the link ends. `nursery` is where requests are worked on."""
        cutter = self._cutter
        cutter.most = self._rules.max_frame_bytes + (CODE_BYTES if seal is not None else 0)
        while True:
            some = False
            while (frame := cutter.cut()) is not None:
                some = True
                self._take(nursery, frame if seal is None else seal.opened(frame))
            if not cutter.unfinished:
                self.frame_since = math.inf
            elif some or self.frame_since == math.inf:
                self.frame_since = self.heard_at
            await self._fill()

    async def _fill(self) -> None:
        chunk = await self._stream.read(READ_BYTES)
        if not chunk:
            raise LinkEndError(Cause.LOST, "the stream ended without a word")
        self.heard_at = trio.current_time()
        self.bytes += len(chunk)
        self._cutter.feed(chunk)

    def _take(self, nursery: trio.Nursery, frame: bytes | bytearray) -> None:
        frame_id, op, body = read_body(_decode, frame)
        self.frames += 1
        if op == _REQUEST:
            if body is None or type(body) not in ANSWERS:
                raise _unfit(op, body)
            if not self.last_id < frame_id <= _HIGHEST_ID:
                raise LinkViolation(Violation.REPLAY, f"request {frame_id} came after {self.last_id}")
            self.last_id = frame_id
            self._serving.begin(nursery, frame_id, body, len(frame))
        elif op in (_ANSWER, _FAILURE):
            if body is None or (type(body) is Problem) != (op == _FAILURE):
                raise _unfit(op, body)
            self._calls.answered(frame_id, body)
        elif op == Op.CANCEL:
            if body is not None:
                raise _unfit(op, body)
            if not 0 < frame_id <= self.last_id:
                raise LinkViolation(Violation.ORDER, f"request {frame_id} was cancelled before it was made")
            self._serving.cancel(frame_id)
        elif frame_id:
            raise LinkViolation(Violation.FRAME, f"frame {op} has an id")
        else:
            self._take_unnumbered(op, body)

    def _take_unnumbered(self, op: int, body: Said | None) -> None:
        if op == Op.NOTE and type(body) in NOTES:
            self._on_note(body)  # type: ignore[arg-type]
        elif op == Op.END and isinstance(body, End):
            self.their_last_id = body.last_id
            raise LinkEndError(Cause.ENDED, body.reason)
        elif op in (Op.HELLO, Op.PROOF, Op.READY):
            raise LinkViolation(Violation.ORDER, "a second hello")
        else:
            raise _unfit(op, body)


def _unfit(op: int, body: Said | None) -> LinkViolation:
    return LinkViolation(Violation.FRAME, f"frame {op} does not hold what it should ({type(body).__name__})")
