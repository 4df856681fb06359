# SPDX-License-Identifier: AGPL-3.0-or-later
"""The request that is measured, `tools/call echo` of 2026-07-28: sent once to check the answer, or as load by wrk."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

TEXT = "".join(chr(ord("a") + i % 26) for i in range(100))
"""The 100-byte argument."""
BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "echo",
            "arguments": {"text": TEXT},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            },
        },
    },
    separators=(",", ":"),
)
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "echo",
}
_LUA = Path(__file__).with_name("echo.lua")


class WrongAnswerError(Exception):
    """The server answered something else than the echoed text; for the benchmark, which then stops."""


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


def ask(port: int, timeout_s: float = 5.0) -> int:
    """Make one real call and return its answer's size in bytes, head included.

    Raises OSError when nobody answers, `WrongAnswerError` when it is not a 200 with a result that is the text.
    """
    head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(f"{head}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode())
        answer = _read_answer(connection)
    answer_head, _, body = answer.partition(b"\r\n\r\n")
    if answer_head.split(b" ", 2)[1] != b"200":
        raise WrongAnswerError(answer[:500].decode(errors="replace"))
    result: Any = json.loads(body).get("result")
    texts = [part.get("text") for part in result["content"]] if isinstance(result, dict) else []
    if result is None or result.get("isError") or texts != [TEXT]:
        raise WrongAnswerError(body[:500].decode(errors="replace"))
    return len(answer)


def _read_answer(connection: socket.socket) -> bytes:
    received = b""
    while True:
        head, found, body = received.partition(b"\r\n\r\n")
        if found:
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not lengths:
                raise WrongAnswerError(f"no Content-Length: {head[:500].decode(errors='replace')}")
            if len(body) >= int(lengths[0].split(b":")[1]):
                return received
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the server closed the connection inside its answer")
        received += piece


def find_wrk() -> str:
    """Path of the load generator; SystemExit with advice when it is missing."""
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit("The load generator wrk is missing. On Debian: apt-get update && apt-get install -y wrk")
    return path


def load(port: int, *, connections: int, seconds: int, on: Sequence[int]) -> Load:
    """Load `port` with one thread of wrk on the given cores. Raises RuntimeError when wrk itself fails."""
    command = ["taskset", "-c", ",".join(map(str, on)), find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "10s", "--latency", "-s", str(_LUA), f"http://127.0.0.1:{port}/mcp", "--", BODY]
    command += [f"{name}: {value}" for name, value in HEADERS.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"wrk failed ({done.returncode}): {(done.stderr or done.stdout)[-500:]}")
    return msgspec.json.decode(lines[-1], type=Load)
