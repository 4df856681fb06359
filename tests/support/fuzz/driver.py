# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sends scripts over several connections at once, reads every answer, and keeps what broke a rule.

Between the scripts a right request on a fresh connection must be answered right, by both ways into the gateway.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from fuzz import rules
from fuzz.forms import HOST, SESSION, Step, head
from fuzz.messages import CURSOR, TASK, VERSIONS
from fuzz.reading import Answer, Reader, UnparsableError
from fuzz.scripts import Script

ANSWER_S = 20.0
"""Time for the answer to a sound request."""
QUIET_S = 0.05
"""What is not sound, or streams, is left when nothing came for so long."""
SMALLER_S = 30.0
"""Time to make what broke a rule smaller."""
RENEW = 200
"""Scripts between two renewals of the sessions: some of what is sent ends them."""
PROGRESS = 2000
"""Scripts between two words about how far it is."""
PROBE = 10
"""Scripts between two right requests."""
_PROBE_BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 5,
        "method": "tools/call",
        "params": {
            "name": "echo",
            "arguments": {"text": "still here"},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": VERSIONS[4],
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
).encode()
_PROBE_LINES = [
    ("Host", HOST),
    ("Content-Type", "application/json"),
    ("Accept", "application/json, text/event-stream"),
    ("MCP-Protocol-Version", VERSIONS[4]),
    ("Mcp-Method", "tools/call"),
    ("Mcp-Name", "echo"),
    ("Content-Length", str(len(_PROBE_BODY))),
]
PROBES = {
    "fast lane": head("POST /mcp HTTP/1.1", _PROBE_LINES) + _PROBE_BODY,
    "hypercorn": head("POST /mcp HTTP/1.1", [*_PROBE_LINES, ("X-Way", "a"), ("X-Way", "b")]) + _PROBE_BODY,
}


class Violation(msgspec.Struct, frozen=True):
    """A rule that was broken."""

    what: str
    script: Script | None = None
    """What was sent on the connection until then."""


class Driver:
    """One run against one address."""

    def __init__(self, url: str, secrets: list[bytes], say: Callable[[str], None] = lambda _: None) -> None:
        """`say` is told of each violation at once, and of the progress."""
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._url = url
        self._address = (address.hostname, address.port)
        self._secrets = secrets
        self._say = say
        self._live: dict[bytes, bytes] = {}
        self.sent = 0
        """Requests, the right ones in between not counted."""
        self.statuses: Counter[int] = Counter()
        self.unanswered = 0
        """Requests that were not sound and got no answer."""
        self.probes = 0
        self.violations: list[Violation] = []

    def renew(self) -> None:
        """Open a session of each legacy revision, get a cursor, and have a task made."""
        with httpx.Client(base_url=self._url, timeout=ANSWER_S) as http:
            for version in VERSIONS[:4]:
                params = {
                    "protocolVersion": version,
                    "capabilities": {},
                    "clientInfo": {"name": "fuzz", "version": "1"},
                }
                body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
                answer = http.post("/mcp", json=body, headers={"accept": "application/json"})
                token = answer.headers["mcp-session-id"]
                self._live[(SESSION % version).encode()] = token.encode()
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            answer = http.post("/mcp", json=body, headers={"accept": "application/json", "mcp-session-id": token})
            cursor = answer.json()["result"]["nextCursor"].encode()
            if len(cursor) != len(CURSOR):  # it stands in bodies whose length is written already
                raise ValueError(f"cursors have {len(cursor)} characters now: give messages.CURSOR as many")
            self._live[CURSOR.encode()] = cursor
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "fuzz_job", "task": {}}}
            answer = http.post("/mcp", json=body, headers={"accept": "application/json", "mcp-session-id": token})
            task = answer.json()["result"]["task"]["taskId"].encode()
            if len(task) != len(TASK):
                raise ValueError(f"ids of tasks have {len(task)} characters now: give messages.TASK as many")
            self._live[TASK.encode()] = task

    def filled(self, data: bytes) -> bytes:
        """With live sessions, cursors and tasks in their places."""
        for mark, value in self._live.items():
            data = data.replace(mark, value)
        return data

    async def run(self, wanted: Callable[[int], Script], requests: int, connections: int, stop_after: int = 5) -> None:
        """Scripts 0, 1, 2 ... until so many requests were sent, or so many rules broken."""
        number = -1

        async def worker() -> None:
            nonlocal number
            while self.sent < requests and len(self.violations) < stop_after:
                number += 1
                script = wanted(number)
                if number % RENEW == 0:
                    await trio.to_thread.run_sync(self.renew)
                if number % PROGRESS == PROGRESS - 1:
                    self._say(f"fuzz: {self.sent} requests")
                await self.play(script)
                if script.number % PROBE == 0:
                    await self.probe(script)

        await trio.to_thread.run_sync(self.renew)
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(worker)

    async def probe(self, after: Script | None) -> None:
        """A right request on a fresh connection, by both ways."""
        for way, data in PROBES.items():
            self.probes += 1
            answers: list[Answer] = []
            try:
                stream = await self._connect()
                async with stream:
                    await self._exchange(stream, Reader(), Step(data), answers.append)
                said = json.loads(answers[0].body)["result"]["content"][0]["text"]
            except (OSError, trio.BrokenResourceError, UnparsableError, LookupError, ValueError, _Silent) as error:
                said = repr(error)
            if said != "still here":
                self.violations.append(Violation(f"a right request by the {way} was answered: {said}", after))

    async def play(self, script: Script) -> list[str]:
        """One script on a connection of its own; what was wrong with its answers, also kept."""
        wrong: list[str] = []
        reader = Reader()
        at = 0
        try:
            stream = await self._connect()
            async with stream:
                for at, step in enumerate(script.steps):
                    last = at == len(script.steps) - 1
                    early = last and script.end == "reset_early"
                    goes_on = await self._step(stream, reader, step, wrong, early=early)
                    if not goes_on or wrong:
                        break
                await self._end(stream, reader, script, wrong)
        except UnparsableError as error:
            wrong.append(f"an answer could not be read: {error}")
        except _Silent as error:
            wrong.append(str(error))
        except (OSError, trio.BrokenResourceError):
            pass  # refused and reset: the probes tell whether anybody is there
        for what in wrong:
            self._say(f"fuzz: connection {script.number}: {what}")
            self.violations.append(Violation(what, Script(script.number, script.steps[: at + 1], script.end)))
        return wrong

    async def _connect(self) -> trio.SocketStream:
        with trio.fail_after(ANSWER_S):
            return await trio.open_tcp_stream(*self._address)

    async def _step(
        self, stream: trio.SocketStream, reader: Reader, step: Step, wrong: list[str], *, early: bool
    ) -> bool:
        """Send a step and judge what comes; whether the connection goes on."""
        self.sent += step.requests

        def heard(answer: Answer) -> None:
            self.statuses[answer.status] += 1
            wrong.extend(rules.judge(answer, step, self._secrets))

        if early:
            await self._send(stream, step)
            return False
        return await self._exchange(stream, reader, step, heard)

    async def _send(self, stream: trio.SocketStream, step: Step) -> None:
        data = self.filled(step.data)
        pieces = [data[start:end] for start, end in zip((0, *step.cuts), (*step.cuts, len(data)), strict=True)]
        for piece in pieces:
            if piece:
                await stream.send_all(piece)
            if step.cuts:
                await trio.sleep(0.001)

    async def _exchange(
        self, stream: trio.SocketStream, reader: Reader, step: Step, heard: Callable[[Answer], None]
    ) -> bool:
        reader.bodiless = step.bodiless
        try:
            with trio.fail_after(ANSWER_S):
                await self._send(stream, step)
        except trio.BrokenResourceError:
            pass  # refused before all was sent: the answer may be there to read
        except trio.TooSlowError:
            raise _Silent(f"the server took nothing for {ANSWER_S:g} s") from None
        left = step.requests
        while left:
            streaming = reader.open is not None and reader.open.headers.get("content-type") == "text/event-stream"
            with trio.move_on_after(ANSWER_S if step.sound and not streaming else QUIET_S) as patience:
                data = await _receive(stream)
            if patience.cancelled_caught:
                if reader.open is not None and streaming:
                    heard(reader.open)
                elif step.sound:
                    raise _Silent(f"no answer within {ANSWER_S:g} s")
                else:
                    self.unanswered += left
                return False
            if data == b"":
                reader.end()
            elif data is not None:
                reader.feed(data)
            for answer in reader.answers:
                left -= 1
                heard(answer)
                if answer.headers.get("connection", "").lower() == "close":
                    left = 0
            over = [answer for answer in reader.answers if answer.headers.get("connection", "").lower() == "close"]
            reader.answers.clear()
            if over:
                return False
            if not data:
                if left and step.sound:
                    how = "ended" if data == b"" else "was reset"
                    raise UnparsableError(f"the connection {how} before the answer to a sound request")
                return False
        if reader.buffer or reader.open is not None:
            raise UnparsableError(f"more than was asked for: {bytes(reader.buffer[:80])!r}")
        return step.sound

    async def _end(self, stream: trio.SocketStream, reader: Reader, script: Script, wrong: list[str]) -> None:
        if script.end.startswith("reset"):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif script.end == "half_close" and not wrong:
            await stream.send_eof()
            with trio.move_on_after(QUIET_S):
                while data := await _receive(stream):
                    reader.feed(data)


class _Silent(Exception):  # noqa: N818 - a condition
    """No answer to what must be answered."""


async def _receive(stream: trio.SocketStream) -> bytes | None:
    """The next bytes; b"" at the end, None when the connection was reset."""
    try:
        return bytes(await stream.receive_some(65536))
    except trio.BrokenResourceError:
        return None


async def smallest(driver: Driver, script: Script) -> Script:
    """What still breaks a rule when steps, then header lines, are left out: by playing it again and again."""
    end = trio.current_time() + SMALLER_S

    async def breaks(candidate: Script) -> bool:
        if trio.current_time() > end:
            return False
        await trio.to_thread.run_sync(driver.renew)
        return bool(await driver.play(candidate))

    if not await breaks(script):
        return script  # it takes more than this connection; the seed repeats it
    for alone in ([script.steps[-1]], script.steps[-2:]):
        candidate = Script(script.number, alone, script.end)
        if len(alone) < len(script.steps) and await breaks(candidate):
            script = candidate
            break
    if len(script.steps) == 1:
        step = script.steps[0]
        top, _, body = step.data.partition(b"\r\n\r\n")
        lines = top.split(b"\r\n")
        for line in lines[1:]:
            fewer = [one for one in lines if one is not line]
            shorter = msgspec.structs.replace(step, data=b"\r\n".join(fewer) + b"\r\n\r\n" + body, cuts=())
            candidate = Script(script.number, [shorter], script.end)
            if await breaks(candidate):
                lines, step, script = fewer, shorter, candidate
    return script


def write(script: Script, folder: Path, name: str) -> Path:
    """A script as a file that `./dev fuzz --replay` plays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(script), indent=1))
    return path


def read(path: Path) -> Script:
    """A script that `write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Script)
