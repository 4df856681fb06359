# SPDX-License-Identifier: AGPL-3.0-or-later
"""Logs of one actor process: one JSON line per event on stderr, which is a pipe to the root.

Fields (the seed's, then ours): timestamp (UTC, ms), level, event, actor, incarnation, pid, runtime, tool,
duration_ms, status. The pipe never blocks the actor: when it is full lines are dropped and counted, and before the next
line that gets through one says how many were. A line is never torn: what of it had no room goes out first next time.
Values that look like secrets, by their key or by their form, are masked. A line is at most 32 KiB long.

Executions of tools are the hot path: their lines are gathered and written together, at most 50 ms later.
"""

from __future__ import annotations

import os
import re
import stat
import time
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
import trio

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
_SECRET_WORDS = (
    "token",
    "secret",
    "password",
    "passwd",
    "authorization",
    "cookie",
    "api_key",
    "apikey",
    "private_key",
    "credential",
)
_SECRET_TEXT = re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]+|(?<=\bbasic )[\w.~+/=-]{8,}|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")
_MASK = "***"
_MAX_TRACEBACK = 8192
_MAX_LINE = 32 * 1024
_MAX_SHORTENED = 8192
_MAX_NAME = 200
_FLUSH_EVERY_S = 0.05
_FLUSH_BYTES = 32 * 1024
_encode = msgspec.json.Encoder(enc_hook=str).encode


class _Sink:
    """Where lines go: a file descriptor that must not block."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.identity: dict[str, object] = {}
        self.info_enabled = True
        self.dropped = 0
        self._told = 0
        self._torn = b""
        """The rest of a line whose beginning is in the pipe."""
        self.waiting: list[bytes] = []
        self.waiting_bytes = 0

    def write(self, lines: bytes) -> None:
        """Write whole lines, or as many of them as there is room for."""
        if self._torn:
            self._torn = self._torn[self._send(self._torn) :]
        if not self._torn and self.dropped > self._told:
            count = self.dropped - self._told
            note = {"timestamp": timestamp(), "level": "WARNING", "event": "log lines dropped"} | self.identity
            if self._put(_encode(note | {"count": count}) + b"\n") == 0:
                self._told += count
        self.dropped += lines.count(b"\n") if self._torn else self._put(lines)

    def _put(self, lines: bytes) -> int:
        """Send lines; how many were lost. One that was begun is not lost: its rest is kept."""
        done = self._send(lines)
        if 0 < done < len(lines) and lines[done - 1 : done] != b"\n":
            end = lines.index(b"\n", done) + 1
            self._torn = lines[done:end]
            done = end
        return lines[done:].count(b"\n")

    def _send(self, data: bytes) -> int:
        done = 0
        while done < len(data):
            try:
                done += os.write(self.fd, data[done:])
            except BlockingIOError:
                return done
            except OSError:
                # The root is gone: nobody reads any more, and this process ends soon.
                return len(data)
        return done


_sink = _Sink(2)


def timestamp() -> str:
    """Now, as all lines give it: `2026-02-17T19:25:31.123Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def setup(actor: str, incarnation: int, level: str, *, fd: int = 2) -> None:
    """Configure logging for this process. A pipe is made non-blocking; a terminal, which others share, is left
    alone."""
    _sink.fd = fd
    _sink.identity = {"actor": actor, "incarnation": incarnation, "pid": os.getpid()}
    _sink.info_enabled = _LEVELS[level] <= _LEVELS["INFO"]
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.set_blocking(fd, False)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _finish],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Writer,
        cache_logger_on_first_use=True,
    )


def get_logger() -> Any:  # noqa: ANN401
    """The process's logger: `log.info("event", key=value)`; `exc_info=error` adds `error` and `traceback`."""
    return structlog.get_logger()


class _Writer:
    """What structlog calls with a finished line."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: bytes) -> None:
        _flush()
        _sink.write(line)

    debug = info = warning = error = critical = exception = fatal = warn = log = msg


def _finish(_: object, method: str, event: MutableMapping[str, Any]) -> bytes:
    error = event.pop("exc_info", None)
    line: dict[str, Any] = {"timestamp": timestamp(), "level": method.upper(), "event": event.pop("event", "")}
    line |= _sink.identity
    line |= masked(event)
    if isinstance(error, BaseException):
        line["error"] = type(error).__name__
        line["traceback"] = _masked_text("".join(traceback.format_exception(error))[-_MAX_TRACEBACK:])
    encoded = _encode(line)
    return (encoded if len(encoded) <= _MAX_LINE else _shortened(line, encoded)) + b"\n"


def _shortened(line: dict[str, Any], encoded: bytes) -> bytes:
    """The line's head, and the beginning of all of it as text."""
    head = {key: line[key] for key in ("timestamp", "level", "event", *_sink.identity)}
    head["event"] = str(head["event"])[:200]
    return _encode(head | {"cut_from_bytes": len(encoded), "text": encoded[:_MAX_SHORTENED].decode(errors="replace")})


def masked(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """The same fields with secrets hidden, at any depth: values whose key is named like one, and parts of texts that
    look like one (`Bearer ...`, `https://user:password@...`)."""
    return {
        str(key): _MASK if any(word in str(key).lower() for word in _SECRET_WORDS) else _masked_value(value)
        for key, value in fields.items()
    }


def _masked_value(value: object) -> object:
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, Mapping):
        return masked(value)
    if isinstance(value, (list, tuple)):
        return [_masked_value(item) for item in value]
    return value


def _masked_text(text: str) -> str:
    return _SECRET_TEXT.sub(_MASK, text)


# --- executions ----------------------------------------------------------------------------------------------------


class _Execution(msgspec.Struct, omit_defaults=True):
    """One line of the hot path, in the order of its fields."""

    timestamp: str
    level: str
    event: str
    actor: object
    incarnation: object
    pid: object
    runtime: str
    tool: str
    duration_ms: float
    status: str
    call_id: str = ""
    error: str = ""


_last_ms = 0
_last_text = ""


def _cheap_timestamp() -> str:
    """`timestamp`, made anew at most once in a millisecond."""
    global _last_ms, _last_text
    now = time.time_ns() // 1_000_000
    if now != _last_ms:
        _last_ms, _last_text = now, timestamp()
    return _last_text


def log_execution(
    tool: str, runtime: str, duration_ms: float, status: str, *, call_id: str = "", error: str = ""
) -> None:
    """Note one execution of a tool: level INFO, ERROR when it failed."""
    if not _sink.info_enabled and status == "success":
        return
    identity = _sink.identity
    line = _encode(
        _Execution(
            _cheap_timestamp(),
            "INFO" if status == "success" else "ERROR",
            "tool execution",
            identity.get("actor"),
            identity.get("incarnation"),
            identity.get("pid"),
            runtime,
            tool[:_MAX_NAME],
            duration_ms,
            status,
            call_id,
            error,
        )
    )
    _sink.waiting.append(line)
    _sink.waiting_bytes += len(line) + 1
    if _sink.waiting_bytes >= _FLUSH_BYTES:
        _flush()


def _flush() -> None:
    if _sink.waiting:
        lines, _sink.waiting, _sink.waiting_bytes = _sink.waiting, [], 0
        lines.append(b"")
        _sink.write(b"\n".join(lines))


async def flush_loop() -> None:
    """Write what was gathered, until cancelled; then write the rest."""
    try:
        while True:
            await trio.sleep(_FLUSH_EVERY_S)
            _flush()
    finally:
        _flush()


def dropped_lines() -> int:
    """Lines of this process that were lost because the pipe was full."""
    return _sink.dropped
