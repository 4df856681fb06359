# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steady load on a tree, over the gateway's HTTP, as real clients make it; every call and its end go into the history.

Each client has one connection and one call at a time. Every call is unique: its token is in its arguments. A
retry_safe call whose connection died is repeated until it succeeds, as a client would.
"""

from __future__ import annotations

import math
import random
from typing import Any

import httpx
import msgspec
import trio

from supervisor.chaos.history import EffectLine, Ended, Evidence, Invoked

_REVISION = "2026-07-28"
_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": _REVISION,
    "mcp-method": "tools/call",
}
_META = {
    "io.modelcontextprotocol/protocolVersion": _REVISION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "greenroom chaos", "version": "1"},
}
_CONNECT_S = 10.0
_AFTER_LIMIT_S = 5.0
"""How much longer than a call's limit its client waits, so that a late end is seen as what it is."""
_AGAIN_S = 0.02
_REFUSED_PAUSE_S = 0.05
_REPEATS_S = 60.0
_SLEEPS_S = (0.1, 0.8)
_PAUSES_S = {"echo": (0.01, 0.03), "sleep": (0.01, 0.05), "chaos_effect": (0.02, 0.05)}
CLIENTS = ("echo", "echo", "sleep", "chaos_effect", "chaos_effect")


def request_body(number: int, tool: str, arguments: dict[str, object]) -> bytes:
    """A modern `tools/call`."""
    params = {"name": tool, "arguments": arguments, "_meta": _META}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})


def request_headers(tool: str) -> dict[str, str]:
    """The headers that belong to it."""
    return _HEADERS | {"mcp-name": tool}


class Reply(msgspec.Struct, frozen=True):
    """What came back, read."""

    id: int
    code: str
    """Empty when it succeeded."""
    text: str
    structured: Any = None


def read_reply(body: bytes, content_type: str) -> Reply:
    """A JSON-RPC answer, plain or as the last event of a stream. Raises `msgspec.DecodeError`."""
    if content_type.startswith("text/event-stream"):
        data = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
        body = data[-1] if data else b""
    message = msgspec.json.decode(body)
    number = message.get("id")
    number = number if isinstance(number, int) else -1
    error = message.get("error")
    if error is not None:
        return Reply(number, f"JSONRPC_{error.get('code')}", str(error.get("message")))
    result = message["result"]
    content = result.get("content") or [{}]
    code = (result.get("_meta") or {}).get("greenroom/code", "TOOL_FAILED") if result.get("isError") else ""
    return Reply(number, code, str(content[0].get("text", "")), result.get("structuredContent"))


class Load:
    """The clients of one run, and the counters that they share."""

    def __init__(self, url: str, evidence: Evidence, *, seed: int, patience_s: float, tool_timeout_s: float) -> None:
        """`patience_s`: the longest that a recovery may keep a call."""
        self.url = url
        self.evidence = evidence
        self.stopping = trio.Event()
        self.counts: dict[str, int] = {}
        """Calls by how they ended: `ok`, `lost`, or their code."""
        self._seed = seed
        self._patience_s = patience_s
        self._tool_timeout_s = tool_timeout_s
        self._numbers = 0
        self._operations = 0

    def limit_s(self, work_s: float, deadline_s: float | None = None) -> float:
        """By when a call must have ended: its deadline, or what the work and the longest recovery take."""
        return min(deadline_s or self._tool_timeout_s, work_s + self._patience_s)

    def operation(self) -> int:
        """A new number for something that a client wants."""
        self._operations += 1
        return self._operations

    def number(self) -> int:
        """A new call's number."""
        self._numbers += 1
        return self._numbers

    async def run(self) -> None:
        """All clients, until `stopping` is set and their last calls have ended."""
        async with trio.open_nursery() as nursery:
            for number, tool in enumerate(CLIENTS):
                nursery.start_soon(self._work, tool, random.Random(f"{self._seed} {number}"))  # noqa: S311

    async def _work(self, tool: str, chance: random.Random) -> None:
        async with Client(self) as client:
            while not self.stopping.is_set():
                token = f"{tool[:4]}-{self.number()}"
                seconds = chance.uniform(*_SLEEPS_S)
                if tool == "chaos_effect":
                    code = await client.effect(token)
                elif tool == "sleep":
                    code = await client.repeatable("sleep", {"seconds": seconds}, f"{seconds}", work_s=seconds)
                else:
                    code = await client.repeatable("echo", {"text": token}, token)
                with trio.move_on_after(_REFUSED_PAUSE_S if code else chance.uniform(*_PAUSES_S[tool])):
                    await self.stopping.wait()


class Client:
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        self._http = httpx.AsyncClient(base_url=load.url, limits=limits, trust_env=False)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):  # bounded: closes a socket
            await self._http.aclose()

    async def repeatable(self, tool: str, arguments: dict[str, object], token: str, work_s: float = 0.0) -> str:
        """A retry_safe call, repeated while connections die. Returns its code, '' when it succeeded."""
        operation = self._load.operation()
        with trio.move_on_after(_REPEATS_S):
            while True:
                end, _ = await self.call(tool, arguments, token, operation=operation, retry_safe=True, work_s=work_s)
                if end.outcome != "lost":
                    return end.code
                await trio.sleep(_AGAIN_S)
        return "LOST"

    async def effect(self, token: str) -> str:
        """A call with an effect: never repeated."""
        end, _ = await self.call("chaos_effect", {"token": token}, token, effect=True)
        return end.code

    async def call(
        self,
        tool: str,
        arguments: dict[str, object],
        token: str,
        *,
        operation: int | None = None,
        retry_safe: bool = False,
        effect: bool = False,
        fault: bool = False,
        work_s: float = 0.0,
    ) -> tuple[Ended, Reply | None]:
        """One call; its end, and what came back."""
        load = self._load
        number = load.number()
        call = Invoked(
            number=number,
            operation=operation if operation is not None else load.operation(),
            tool=tool,
            token=token,
            retry_safe=retry_safe,
            effect=effect,
            at=trio.current_time(),
            limit_s=load.limit_s(work_s),
            fault=fault,
        )
        load.evidence.invoked.append(call)
        reply = None
        try:
            answer = await self._http.post(
                "/mcp",
                content=request_body(number, tool, arguments),
                headers=request_headers(tool),
                timeout=httpx.Timeout(call.limit_s + _AFTER_LIMIT_S, connect=_CONNECT_S),
            )
            reply = read_reply(answer.content, answer.headers.get("content-type", ""))
            end = _end(call, reply)
        except httpx.TransportError as error:
            end = Ended(number, trio.current_time(), "lost", type(error).__name__)
        except (msgspec.DecodeError, KeyError, AttributeError, TypeError) as error:
            end = Ended(number, trio.current_time(), "failed", f"UNREADABLE_{type(error).__name__}", answered_id=number)
        load.evidence.ended.append(end)
        told = end.code or end.outcome if end.outcome != "lost" else "lost"
        if not fault:
            load.counts[told] = load.counts.get(told, 0) + 1
        return end, reply


def _end(call: Invoked, reply: Reply) -> Ended:
    now = trio.current_time()
    if reply.code:
        return Ended(call.number, now, "failed", reply.code, answered_id=reply.id)
    answer, pid = reply.text, 0
    if isinstance(reply.structured, dict):
        pid = int(reply.structured.get("pid", 0))
        answer = str(reply.structured.get("token", reply.structured.get("result", answer)))
        if call.tool == "sleep":
            answer = _slept(call, reply.structured)
    # The token's own string where they are equal: a long run keeps many.
    return Ended(call.number, now, "ok", "", call.token if answer == call.token else answer, reply.id, pid)


def _slept(call: Invoked, result: dict[str, object]) -> str:
    """`sleep` answers how long it slept: the token is how long it should."""
    seconds = result.get("seconds")
    wanted = float(call.token)
    slept = seconds if isinstance(seconds, float) else math.nan
    return call.token if wanted - 0.01 <= slept <= wanted + call.limit_s else f"slept {slept}"


def read_effects(text: str) -> list[EffectLine]:
    """The lines of the effects' file; one that is not whole counts as none."""
    found = []
    for line in text.splitlines():
        token, _, pid = line.partition(" ")
        if pid.isdigit():
            found.append(EffectLine(token, int(pid)))
    return found
