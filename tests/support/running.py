# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Greenroom for process tests: started by its own command, watched from outside, always ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import wire_schema

GREENROOM = Path(sys.executable).with_name("greenroom")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
MODERN = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
}


NO_SPARES = {
    "GREENROOM_SERVER__SPARES": "0",
    "GREENROOM_ROUTER__SPARES": "0",
    "GREENROOM_RUNTIMES__GENERAL__SPARES": "0",
}


class Greenroom:
    """One running tree."""

    def __init__(self, process: subprocess.Popen, data_dir: Path, screen: dict) -> None:
        self.process = process
        self.data_dir = data_dir
        self.url = screen["url"]
        self.root_pid = screen["root_pid"]

    def run(
        self, *arguments: str, check: bool = True, timeout_s: float = STOP_TIMEOUT_S
    ) -> subprocess.CompletedProcess:
        """A greenroom command against this tree."""
        return subprocess.run(
            [GREENROOM, *arguments, "--data-dir", self.data_dir],
            check=check,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def status(self) -> dict:
        return json.loads(self.run("status", "--json", check=False).stdout)

    def actors(self) -> dict[str, dict]:
        return {actor["name"]: actor for actor in self.status()["actors"]}

    def pid(self, name: str) -> int:
        return self.actors()[name]["pid"]

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Signal one actor of this tree; its incarnation is returned."""
        actor = self.actors()[name]
        os.kill(actor["pid"], number)
        return actor["incarnation"]

    def wait_ready(self, name: str, after: int, timeout_s: float = 30) -> dict:
        """Until another incarnation of this actor is ready."""
        return wait_until(
            lambda: (actor := self.actors()[name])["state"] == "ready" and actor["incarnation"] != after and actor,
            timeout_s,
            f"{name} ready in another life than {after}",
        )

    def pids(self) -> set[int]:
        return {actor["pid"] for actor in self.actors().values() if actor["pid"]}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


def wait_until(condition, timeout_s: float, what: str):
    """Poll something outside of this process that offers no event; fails with what was waited for."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            if value := condition():
                return value
        except (OSError, KeyError, ValueError, httpx.HTTPError) as error:
            value = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what}; last: {value!r}")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@contextmanager
def started(data_dir: Path, *arguments: str, env: dict[str, str] | None = None, inside: tuple[str, ...] = ()):
    """A tree that is up, and its end whatever happens. `inside` is the command that runs it elsewhere."""
    log = (data_dir.parent / f"{data_dir.name}.log").open("w")
    process = subprocess.Popen(
        [*inside, GREENROOM, "up", "--port", "0", "--data-dir", data_dir, "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ | (env or {}),
    )
    pids: set[int] = set()
    try:
        line = process.stdout.readline()
        if not line:
            process.wait(START_TIMEOUT_S)
            raise AssertionError(f"greenroom up ended with {process.returncode}: {Path(log.name).read_text()[-4000:]}")
        screen = json.loads(line)
        if "error" in screen:
            raise AssertionError(f"greenroom up failed: {screen['error']}\n{Path(log.name).read_text()[-4000:]}")
        pids = {actor["pid"] for actor in screen["actors"] if actor["pid"]}
        yield Greenroom(process, data_dir, screen)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        log.close()
    wait_until(lambda: not [pid for pid in pids if alive(pid)], 5, "the first processes of the tree to be gone")


class McpClient:
    """Raw modern MCP over HTTP: one request, one answer; reconnects by itself. Every message that comes has to fit the
    official schema."""

    def __init__(self, url: str, timeout_s: float = 30) -> None:
        transport = httpx.HTTPTransport(retries=0)
        self.http = httpx.Client(base_url=url, timeout=timeout_s, transport=transport)
        self.next_id = 0

    def request(self, method: str, **params) -> httpx.Response:
        self.next_id += 1
        body = {"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params | {"_meta": META}}
        headers = MODERN | {"mcp-method": method}
        if "name" in params:
            headers["mcp-name"] = params["name"]
        answer = self.http.post("/mcp", json=body, headers=headers)
        for message in _messages(answer) if wire_schema.AVAILABLE else ():
            wire_schema.check_message(wire_schema.MODERN, message, method)
        return answer

    def call(self, name: str, /, **arguments) -> dict:
        """The result of a tool call; protocol errors fail the test."""
        answer = _messages(self.request("tools/call", name=name, arguments=arguments))[-1]
        assert "result" in answer, answer
        return answer["result"]

    def text(self, name: str, **arguments) -> str:
        return self.call(name, **arguments)["content"][0]["text"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()


def _messages(answer: httpx.Response) -> list[dict]:
    """The JSON-RPC messages of an answer, whether it is a stream or not."""
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    return [answer.json()] if answer.headers.get("content-type") == "application/json" else []
