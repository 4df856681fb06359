# SPDX-License-Identifier: AGPL-3.0-or-later
"""The requests that are measured, all of 2026-07-28: sent once to check the answer, or as load by wrk.

`ECHO` is a plain call, `STREAM` one that reports progress and is answered as a stream, `LIST` a list of `TOOLS` tools.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

TEXT = "".join(chr(ord("a") + i % 26) for i in range(100))
"""The 100-byte argument."""
PROGRESS = 3
"""Notifications before the answer of `STREAM`."""
TOOLS = 400
"""Tools in the answer of `LIST`."""


class WrongAnswerError(Exception):
    """The server answered something else than was asked for; for the benchmark, which then stops."""


class Request(msgspec.Struct, frozen=True):
    """One request, and what makes its answer right."""

    body: str
    headers: dict[str, str]
    right: Callable[[str, bytes], bool]
    """Of the head in lower case and the body, without its chunks' framing."""

    def to(self, port: int) -> bytes:
        """As bytes."""
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n{self.body}".encode()


def _request(method: str, params: dict[str, Any], right: Callable[[str, bytes], bool]) -> Request:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    }
    params = params | {"_meta": meta | params.get("_meta", {})}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, separators=(",", ":"))
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
    }
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    return Request(body, headers, right)


def _texts(message: dict[str, Any]) -> list[str]:
    result = message.get("result", {})
    return [] if result.get("isError") else [part.get("text") for part in result.get("content", [])]


def _echoed(_head: str, body: bytes) -> bool:
    return _texts(json.loads(body)) == [TEXT]


def _streamed(head: str, body: bytes) -> bool:
    lines = [line for line in body.decode().splitlines() if line.startswith("data:")]
    *notices, last = [json.loads(line[5:]) for line in lines]
    told = [notice["params"]["progress"] for notice in notices if notice["method"] == "notifications/progress"]
    return "text/event-stream" in head and told == [1, 2, 3] and _texts(last) == [TEXT]


def _listed(_head: str, body: bytes) -> bool:
    tools = json.loads(body)["result"]["tools"]
    return len([tool for tool in tools if tool["name"].startswith("listed_") and tool["inputSchema"]]) == TOOLS


ECHO = _request("tools/call", {"name": "echo", "arguments": {"text": TEXT}}, _echoed)
STREAM = _request(
    "tools/call", {"name": "stepwise", "arguments": {"text": TEXT}, "_meta": {"progressToken": 1}}, _streamed
)
LIST = _request("tools/list", {}, _listed)
_LUA = Path(__file__).with_name("echo.lua")


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What wrk saw in one run; times in microseconds."""

    requests: int
    """Answers that came whole."""
    duration_us: int
    bytes: int
    """All that was received, heads included."""
    p50_us: int
    p90_us: int
    p99_us: int
    max_us: int
    bad_status: int
    """Answers with a status above 399."""
    connect_errors: int
    read_errors: int
    write_errors: int
    timeouts: int

    @property
    def errors(self) -> int:
        """All that went wrong."""
        return self.bad_status + self.connect_errors + self.read_errors + self.write_errors + self.timeouts


def ask(port: int, request: Request = ECHO, timeout_s: float = 5.0) -> int:
    """Make one real request and return its answer's size in bytes, head and framing included.

    Raises OSError when nobody answers, `WrongAnswerError` when it is not a 200 with the right answer.
    """
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(request.to(port))
        size, head, body = read_answer(connection)
    try:
        if head.split(" ", 2)[1] == "200" and request.right(head.lower(), body):
            return size
    except (ValueError, LookupError, AttributeError, TypeError):
        pass
    raise WrongAnswerError(f"{head[:300]}\n{body[:500].decode(errors='replace')}")


def read_answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """One answer: its size, its head, its body. Raises `WrongAnswerError` when its end can't be told."""
    received = b""
    while True:
        head, found, body = received.partition(b"\r\n\r\n")
        whole = _body(head.lower(), body) if found else None
        if whole is not None:
            return len(received), head.decode(), whole
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the server closed the connection inside its answer")
        received += piece


def _body(head: bytes, data: bytes) -> bytes | None:
    """The body when it is whole."""
    lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    if lengths:
        return data if len(data) >= int(lengths[0].split(b":")[1]) else None
    if b"transfer-encoding: chunked" not in head:
        raise WrongAnswerError(f"neither Content-Length nor chunks: {head[:500].decode(errors='replace')}")
    if not data.endswith(b"\r\n0\r\n\r\n"):
        return None
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        found, data = found + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return found


def find_wrk() -> str:
    """Path of the load generator; SystemExit with advice when it is missing."""
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit("The load generator wrk is missing. On Debian: apt-get update && apt-get install -y wrk")
    return path


def load(port: int, request: Request = ECHO, *, connections: int, seconds: int, on: Sequence[int]) -> Load:
    """Load `port` with one thread of wrk on the given cores. Raises RuntimeError when wrk itself fails."""
    command = ["taskset", "-c", ",".join(map(str, on)), find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "10s", "--latency", "-s", str(_LUA), f"http://127.0.0.1:{port}/mcp", "--", request.body]
    command += [f"{name}: {value}" for name, value in request.headers.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"wrk failed ({done.returncode}): {(done.stderr or done.stdout)[-500:]}")
    return msgspec.json.decode(lines[-1], type=Load)
