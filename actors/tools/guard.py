# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which calls may start in this process, and the record of those that run.

A call is known by a keyed digest of its tool and its decoded arguments, so that white space, the order of keys and
defaults make no difference. The root says which digests and tools ended processes (`Marks`): quarantined calls are
refused, a tool whose breaker is open too; of a tool that is tried again one call at a time is let in. When a call that
the root watches is answered, the root is told, once for each list.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from time import monotonic
from typing import Final

import msgspec

from actors.errors import BreakerOpenError, QuarantinedError
from actors.flight import DIGEST_BYTES, FlightRecorder
from actors.messages import Breaker, Marks, QuarantinedCall, Survived
from actors.tool_messages import ToolCall

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_SOON_S: Final = 1.0
"""Told to a caller that comes while the one trial call runs."""


class _Tool:
    """What is made once for each tool."""

    __slots__ = ("hash", "name")

    def __init__(self, name: str, key: bytes) -> None:
        self.name = name.encode()
        self.hash = blake2b(self.name + b"\0", digest_size=DIGEST_BYTES, key=key)


class RunningCall:
    """One call between its start and its end."""

    __slots__ = ("abandoned", "at", "digest", "guard", "over", "probe", "tool")

    def __init__(self, guard: CallGuard, tool: str, digest: bytes, at: int, *, probe: bool) -> None:
        self.guard = guard
        self.tool = tool
        self.digest = digest
        self.at = at
        self.probe = probe
        self.abandoned = False
        """Its caller has left and its thread runs on: it stays on the record until that ends."""
        self.over = False
        """Its place on the record may be another call's."""

    def waits(self, waiting: bool) -> None:
        """Nothing of it runs, because it waits for its client's answer; or it runs again."""
        if not self.over:
            self.guard.recorder.waits(self.at, waiting)

    def thread_ended(self) -> None:
        """The thread that was left behind has ended. From that thread."""
        self.over = True
        self.guard.recorder.end(self.at)


class CallGuard:
    """See the module's text. One per process; all but `RunningCall.thread_ended` from the loop's thread."""

    def __init__(self, recorder: FlightRecorder, key: bytes, survived: Callable[[Survived], None]) -> None:
        """`survived` tells the root."""
        self.recorder = recorder
        self._key = key
        self._tell = survived
        self._tools: dict[str, _Tool] = {}
        self._refusing = self._watching = False
        self._quarantined: dict[bytes, QuarantinedCall] = {}
        self._breakers: dict[str, tuple[Breaker, float]] = {}
        self._watched: set[bytes] = set()
        self._watched_tools: set[str] = set()
        self._probes: set[str] = set()

    def take(self, marks: Marks) -> None:
        """Go by this list from now on."""
        now = monotonic()
        self._quarantined = {bytes.fromhex(one.digest): one for one in marks.quarantined}
        self._breakers = {one.tool: (one, now + one.retry_after_s) for one in marks.breakers}
        self._watched = {bytes.fromhex(one) for one in marks.watched}
        self._watched_tools = set(marks.watched_tools)
        self._refusing = bool(self._quarantined or self._breakers)
        self._watching = bool(self._watched or self._watched_tools)

    def begin(self, name: str, call: ToolCall, arguments: msgspec.Struct) -> RunningCall:
        """A call of `name` with these decoded arguments starts. Raises `QuarantinedError`, `BreakerOpenError`."""
        tool = self._tools.get(name)
        if tool is None:
            tool = self._tools[name] = _Tool(name, self._key)
        try:
            plain = _encode(arguments)
        except Exception:  # noqa: BLE001 - whole numbers beyond 64 bits; what can't be told apart better is told by its text
            plain = call.arguments
        hashed = tool.hash.copy()
        hashed.update(plain)
        digest = hashed.digest()
        probe = self._refusing and self._may_start(name, digest)
        at = self.recorder.begin(tool.name, digest, call.call_id)
        return RunningCall(self, name, digest, at, probe=probe)

    def end(self, call: RunningCall, *, answered: bool) -> None:
        """The call has ended: with a result or an error (`answered`), because its caller left, or with a question.

        A question is no answer: a tool that ends its process after it asked would clear itself each time it asks.
        """
        if not call.abandoned:
            call.over = True
            self.recorder.end(call.at)
        if call.probe:
            self._probes.discard(call.tool)
        if self._watching and answered and (call.digest in self._watched or call.tool in self._watched_tools):
            self._watched.discard(call.digest)
            self._watched_tools.discard(call.tool)
            self._tell(Survived(tool=call.tool, digest=call.digest.hex()))

    def _may_start(self, tool: str, digest: bytes) -> bool:
        """True when the call tries a tool whose breaker is half open. Raises when it must not start."""
        poison = self._quarantined.get(digest)
        if poison is not None:
            raise QuarantinedError(
                f"{tool} with these arguments is quarantined: {poison.deaths} processes ended while they ran it, the "
                f"last at {poison.last_at} ({poison.cause}). When its cause is mended: "
                f"greenroom quarantine release {poison.id}",
                tool=tool,
                id=poison.id,
                deaths=poison.deaths,
                last_at=poison.last_at,
            )
        breaker, until = self._breakers.get(tool, (None, 0.0))
        if breaker is None:
            return False
        if breaker.half_open and tool not in self._probes:
            self._probes.add(tool)
            return True
        wait = _SOON_S if breaker.half_open else max(0.1, round(until - monotonic(), 1))
        how = "is being tried again, one call at a time" if breaker.half_open else "is refused for a while"
        raise BreakerOpenError(
            f"{tool} {how}: {breaker.deaths} processes ended while they ran it; try again in {wait:g} s",
            tool=tool,
            retry_after_s=wait,
            deaths=breaker.deaths,
        )
