# SPDX-License-Identifier: AGPL-3.0-or-later
"""Many open streams on which nothing happens: what they cost, how soon all are told of a change, and what calls get.

Greenroom's are `subscriptions/listen` of 2026-07-28, the peers' are GET streams of 2025-11-25, each with a session of
its own. The client of the streams is the benchmark's own process; the load comes from wrk as ever.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from kit import echo
from kit.processes import Program

CONNECTIONS = 16
TELL_LIMIT_S = 60.0
LISTEN = echo._request(  # noqa: SLF001
    "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, lambda _head, _body: True
)
ANY_ECHO = msgspec.structs.replace(echo.ECHO, right=lambda _head, body: echo.TEXT.encode() in body)
"""A peer with sessions answers as a stream, which is right here."""
_CHANGED = b"notifications/tools/list_changed"


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """One visit. None = the server offers no way to do it."""

    arrangement: str
    round: int
    server: str
    streams: int
    open_ms: float
    """For one stream, session included."""
    kib_per_stream: float
    """PSS of the whole tree."""
    idle_cpu_percent: float
    """Of one core, with all streams open and nothing else."""
    calls_alone: float
    calls_with: float
    """Calls per second without and with the streams."""
    p99_alone_ms: float
    p99_with_ms: float
    errors: int
    told_first_s: float | None
    """From the order to take the new tools until the first stream hears of it."""
    told_all_s: float | None


class Streams:
    """Open streams of one server."""

    def __init__(self, port: int, *, legacy: bool) -> None:
        self._port = port
        self._legacy = legacy
        self._open: list[socket.socket] = []

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()

    def open(self, count: int) -> None:
        """Open so many more. Raises `WrongAnswerError` when one is refused."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count + 200), hard), hard))
        for _ in range(count):
            request = self._get() if self._legacy else LISTEN.to(self._port)
            connection = socket.create_connection(("127.0.0.1", self._port), 20)
            self._open.append(connection)
            connection.sendall(request)
            wanted = b"\r\n\r\n" if self._legacy else b"subscriptions/acknowledged"
            head = _until(connection, wanted)
            if b" 200 " not in head[:16]:
                raise echo.WrongAnswerError(head[:300].decode(errors="replace"))

    def wait_for_news(self) -> tuple[float, float]:
        """When the first and the last stream heard that the list changed (`time.monotonic`)."""
        waiting = selectors.DefaultSelector()
        heard: dict[int, bytes] = {}
        for connection in self._open:
            waiting.register(connection, selectors.EVENT_READ)
        first = 0.0
        end = time.monotonic() + TELL_LIMIT_S
        while waiting.get_map():
            for key, _ in waiting.select(timeout=1.0):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                data = connection.recv(65536)
                heard[key.fd] = heard.get(key.fd, b"")[-len(_CHANGED) :] + data
                if not data:
                    raise echo.WrongAnswerError("a stream ended while it waited for news")
                if _CHANGED in heard[key.fd]:
                    first = first or time.monotonic()
                    waiting.unregister(connection)
            if time.monotonic() > end:
                raise echo.WrongAnswerError(f"{len(waiting.get_map())} streams heard nothing of a change")
        return first, time.monotonic()

    def _get(self) -> bytes:
        """A GET of a new session."""
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        head = self._post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, "")
        lines = [line for line in head.split("\r\n") if line.lower().startswith("mcp-session-id:")]
        if not lines:
            raise echo.WrongAnswerError(f"no session: {head[:300]}")
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, f"{lines[0]}\r\n")
        return (
            f"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAccept: text/event-stream\r\n"
            f"MCP-Protocol-Version: 2025-11-25\r\n{lines[0]}\r\n\r\n"
        ).encode()

    def _post(self, message: dict[str, Any], more: str) -> str:
        body = json.dumps(message)
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json, text/event-stream\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self._port), 20) as connection:
            connection.settimeout(20)
            connection.sendall((head + body).encode())
            return echo.read_answer(connection)[1]


def _until(connection: socket.socket, mark: bytes) -> bytes:
    connection.settimeout(20)
    data = b""
    while mark not in data:
        piece = connection.recv(65536)
        if not piece:
            raise echo.WrongAnswerError(f"a stream ended at once: {data[:300].decode(errors='replace')}")
        data += piece
    return data


def visit(
    program: Program,
    port: int,
    *,
    arrangement: str,
    number: int,
    server: str,
    streams: int,
    seconds: int,
    on: Sequence[int],
    change: Callable[[], list[str]] | None,
) -> Idle:
    """Measure one running server. `change` makes another tool ready and gives the command that has it taken."""
    alone = echo.load(port, connections=CONNECTIONS, seconds=seconds, on=on)
    before = program.pss_mib()
    began = time.monotonic()
    with Streams(port, legacy=server != "greenroom") as opened:
        opened.open(streams)
        open_ms = (time.monotonic() - began) / streams * 1e3
        time.sleep(1.0)
        grown = program.pss_mib() - before
        cpu, since = program.cpu_s(), time.monotonic()
        time.sleep(max(3, seconds))
        idle = (program.cpu_s() - cpu) / (time.monotonic() - since) * 100
        loaded = echo.load(port, connections=CONNECTIONS, seconds=seconds, on=on)
        first = last = None
        if change is not None:
            command = change()
            asked = time.monotonic()
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as order:
                heard = opened.wait_for_news()
                first, last = (round(at - asked, 3) for at in heard)
                if order.wait(TELL_LIMIT_S):
                    raise RuntimeError(f"{' '.join(command)} failed ({order.returncode})")
    return Idle(
        arrangement=arrangement,
        round=number,
        server=server,
        streams=streams,
        open_ms=round(open_ms, 2),
        kib_per_stream=round(grown * 1024 / streams, 1),
        idle_cpu_percent=round(idle, 2),
        calls_alone=round(alone.requests / alone.duration_us * 1e6, 1),
        calls_with=round(loaded.requests / loaded.duration_us * 1e6, 1),
        p99_alone_ms=alone.p99_us / 1e3,
        p99_with_ms=loaded.p99_us / 1e3,
        errors=alone.errors + loaded.errors,
        told_first_s=first,
        told_all_s=last,
    )


_MEASURED = (
    "open_ms",
    "kib_per_stream",
    "idle_cpu_percent",
    "calls_alone",
    "calls_with",
    "p99_alone_ms",
    "p99_with_ms",
    "told_first_s",
    "told_all_s",
)


def medians(visits: Sequence[Idle]) -> list[dict[str, Any]]:
    """One entry for each arrangement and server."""
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys((one.arrangement, one.server) for one in visits):
        same = [one for one in visits if (one.arrangement, one.server) == key]
        entry: dict[str, Any] = {"arrangement": key[0], "server": key[1], "streams": same[0].streams}
        for field in _MEASURED:
            values = [getattr(one, field) for one in same if getattr(one, field) is not None]
            entry[field] = statistics.median(values) if values else None
        entry["errors"] = sum(one.errors for one in same)
        found.append(entry)
    return found


def report(visits: Sequence[Idle]) -> Iterator[str]:
    """The visits as text, and Greenroom against each peer."""
    table = medians(visits)
    if not table:
        return
    yield f"\n{table[0]['streams']} open streams, calls at {CONNECTIONS} connections (told: after the order to reload)"
    yield (
        f"{'':>10} {'server':>10} {'open ms':>8} {'KiB each':>9} {'idle CPU %':>10} {'calls/s':>8} {'with':>8} "
        f"{'p99 ms':>7} {'with':>7} {'told first s':>12} {'all s':>6} {'bad':>4}"
    )
    for e in table:
        first, last = ("-" if e[name] is None else f"{e[name]:.2f}" for name in ("told_first_s", "told_all_s"))
        yield (
            f"{e['arrangement']:>10} {e['server']:>10} {e['open_ms']:>8.2f} {e['kib_per_stream']:>9.1f} "
            f"{e['idle_cpu_percent']:>10.2f} {e['calls_alone']:>8.0f} {e['calls_with']:>8.0f} "
            f"{e['p99_alone_ms']:>7.1f} {e['p99_with_ms']:>7.1f} {first:>12} {last:>6} {e['errors']:>4}"
        )
    ours = {e["arrangement"]: e for e in table if e["server"] == "greenroom"}
    for e in table:
        if e["server"] != "greenroom" and (own := ours.get(e["arrangement"])):
            memory = e["kib_per_stream"] / max(own["kib_per_stream"], 0.1)
            calls = own["calls_with"] / max(e["calls_with"], 1e-9)
            yield (
                f"{e['arrangement']:>10} against {e['server']}: {memory:.2f}x less memory for a stream, "
                f"{calls:.2f}x the calls with them open"
            )
