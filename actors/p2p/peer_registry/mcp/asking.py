# SPDX-License-Identifier: AGPL-3.0-or-later
"""One stream that we opened, and the requests on it: many at once, each with its own answer and time."""

from __future__ import annotations

from typing import Any

import trio
from msgspec import UNSET

from actors.errors import DeadlineExceededError, OutcomeUnknownError, RuntimeUnavailableError
from actors.jsonrpc import INTERNAL_ERROR, METHOD_NOT_FOUND, RpcError, error_message, id_json, result_message
from actors.p2p.peer_registry.mcp.failures import LIMIT_EXCEEDED, refused
from actors.p2p.peer_registry.mcp.frames import FrameError, FrameReader, FrameWriter
from actors.p2p.peer_registry.mcp.rpc import Frame, parse, request_message
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError
from actors.p2p.peer_registry.stream_end import part


class _Waiting:
    """A request without an answer."""

    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: bytes | RpcError | None = None
        """None = there will be none: the stream has ended."""

    def end(self, answer: bytes | RpcError | None) -> None:
        """The first end counts."""
        if not self.done.is_set():
            self.answer = answer
            self.done.set()


class AskedStream:
    """See the module's text. `run` has to run beside all that is asked."""

    def __init__(self, stream: PeerStream, most_bytes: int) -> None:
        """`most_bytes` of a message, in both directions until the other side says what it takes."""
        self._stream = stream
        self.most_bytes = most_bytes
        """Of a message to the other side."""
        self._reader = FrameReader(stream, most_bytes)
        self._writer = FrameWriter(stream)
        self._waiting: dict[int, _Waiting] = {}
        self._next_id = 0
        self.sent = 0
        """Messages."""
        self.used_at = trio.current_time()
        """When something was asked or answered for the last time."""
        self._closing = False
        self._over = ""

    @property
    def usable(self) -> bool:
        """Whether more can be asked."""
        return not self._closing and not self._over

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        return len(self._waiting)

    async def ask(self, method: str, params: dict[str, object], timeout_s: float) -> bytes:
        """The result of a request, as JSON. Raises `RpcError` (what the other side answers), `DeadlineExceededError`
        (it is told to stop), `OutcomeUnknownError` when the stream ends before the answer, `RuntimeUnavailableError`
        when it had ended before, and LIMIT_EXCEEDED for what the other side would not take."""
        self._next_id += 1
        request_id = self._next_id
        message = request_message(request_id, method, params)
        if len(message) > self.most_bytes:
            raise refused(LIMIT_EXCEEDED, f"{method} has {len(message)} bytes; the peer takes {self.most_bytes}")
        waiting = self._waiting[request_id] = _Waiting()
        sent = False
        try:
            with trio.move_on_after(timeout_s) as scope:
                await self._send(message)
                sent = True
                await waiting.done.wait()
        except StreamBrokenError as error:
            raise RuntimeUnavailableError(f"{method} was not sent: {error}") from None
        finally:
            del self._waiting[request_id]
            if sent and not waiting.done.is_set():
                self._tell_now("notifications/cancelled", {"requestId": request_id})
            self._close_when_done()
        if scope.cancelled_caught:
            raise DeadlineExceededError(f"the peer did not answer {method} within {timeout_s:g} seconds")
        self.used_at = trio.current_time()
        if waiting.answer is None:
            raise OutcomeUnknownError(
                f"the stream ended before {method} was answered ({self._over}); it may or may not have taken effect"
            )
        if isinstance(waiting.answer, RpcError):
            raise waiting.answer
        return waiting.answer

    async def tell(self, method: str) -> None:
        """Send a notification. Raises `StreamBrokenError`."""
        await self._send(request_message(None, method, {}))

    def close(self) -> None:
        """Ask nothing more; `run` ends when all that was asked has its answer."""
        self._closing = True
        self._close_when_done()

    async def run(self) -> None:
        """Take answers until the end. Raises nothing but cancellation."""
        why = "it was given up here"
        try:
            async with trio.open_nursery() as both:

                async def write() -> None:
                    nonlocal why
                    try:
                        await self._writer.run()
                        why = "it was closed here"
                    except StreamBrokenError as error:
                        why = str(error)
                    both.cancel_scope.cancel()

                both.start_soon(write)
                try:
                    await self._read()
                    why = "the peer ended it"
                except (StreamBrokenError, FrameError, RpcError) as error:
                    why = str(error)
                both.cancel_scope.cancel()
            self._end(why)
            await part(self._stream)
        except StreamBrokenError:
            await self._stream.reset()
        except BaseException:
            self._end(why)
            with trio.CancelScope(shield=True):
                await self._stream.reset()
            raise

    async def _read(self) -> None:
        while (message := await self._reader.next()) is not None:
            frame = parse(message)
            self.used_at = trio.current_time()
            if frame.method is not UNSET:
                await self._asked(frame)
            elif (waiting := self._waiting.get(frame.id) if type(frame.id) is int else None) is not None:
                waiting.end(_answer(frame))
            elif frame.error is not UNSET and not id_json(frame.id):
                # It concerns the stream, which ends now; each request fails for this reason.
                answer = _answer(frame)
                for waiting in list(self._waiting.values()):
                    waiting.end(answer)

    async def _asked(self, frame: Frame) -> None:
        """The other side asks: it may see whether we are there, nothing else."""
        echo = id_json(frame.id)
        if not echo:
            return
        if frame.method == "ping":
            await self._send(result_message(echo, b"{}"))
        else:
            await self._send(error_message(echo, RpcError(METHOD_NOT_FOUND, "nothing can be asked of a client here")))

    async def _send(self, message: bytes) -> None:
        if self._over:
            raise StreamBrokenError(self._over)
        await self._writer.send(message)
        self.sent += 1

    def _tell_now(self, method: str, params: dict[str, object]) -> None:
        self.sent += 1
        self._writer.send_now(request_message(None, method, params))

    def _close_when_done(self) -> None:
        if self._closing and not self._waiting:
            self._writer.finish()

    def _end(self, why: str) -> None:
        self._over = why
        for waiting in self._waiting.values():
            waiting.end(None)


def _answer(frame: Frame) -> bytes | RpcError:
    if frame.error is UNSET or (frame.error is None and frame.result):
        return bytes(frame.result) or RpcError(INTERNAL_ERROR, "the peer's answer has neither result nor error")
    error: Any = frame.error
    if isinstance(error, dict) and type(error.get("code")) is int:
        message = error.get("message")
        return RpcError(error["code"], message if isinstance(message, str) else "", error.get("data"))
    return RpcError(INTERNAL_ERROR, f"the peer's answer has an error of no known form: {str(error)[:200]}")
