# SPDX-License-Identifier: AGPL-3.0-or-later
"""A client on the pipes of a real `greenroom stdio`: raw lines, and answers by their ids."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from contextlib import contextmanager

from running import GREENROOM, META

STARTS_WITHIN_S = 60
ANSWERS_WITHIN_S = 30
ENDS_WITHIN_S = 20


class StdioClient:
    """One bridge. Everything that it writes must be one JSON-RPC message per line."""

    def __init__(self, process: subprocess.Popen, log) -> None:
        self.process = process
        self.messages: list[dict] = []
        """All that came, in order."""
        self.broken: list[bytes] = []
        """Lines that are no JSON-RPC message."""
        self._log = log
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            try:
                message = json.loads(line)
                assert message["jsonrpc"] == "2.0"
                assert line.endswith(b"\n")
            except (ValueError, KeyError, TypeError, AssertionError):
                self.broken.append(line)
                continue
            with self._changed:
                self.messages.append(message)
                self._changed.notify_all()

    def send(self, message: dict | bytes) -> None:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def wait_for(self, wanted, what: str, limit_s: float = ANSWERS_WITHIN_S) -> dict:
        """The first message for which `wanted` holds."""
        end = time.monotonic() + limit_s
        with self._changed:
            while True:
                for message in self.messages:
                    if wanted(message):
                        return message
                left = end - time.monotonic()
                assert left > 0, f"not within {limit_s} s: {what}; log: {self.log()[-2000:]}"
                self._changed.wait(left)

    def answers(self, id_) -> list[dict]:
        return [one for one in self.messages if one.get("id") == id_ and "method" not in one]

    def answer(self, id_, limit_s: float = ANSWERS_WITHIN_S) -> dict:
        return self.wait_for(lambda one: one.get("id") == id_ and "method" not in one, f"answer to {id_}", limit_s)

    def notified(self, method: str, limit_s: float = ANSWERS_WITHIN_S) -> dict:
        return self.wait_for(lambda one: one.get("method") == method, method, limit_s)

    def begin(self, method: str, modern: bool, id_=None, meta: dict | None = None, **params):
        """Send a request; its id."""
        id_ = id_ if id_ is not None else next(self._numbers)
        meta = (META if modern else {}) | (meta or {})
        if meta:
            params["_meta"] = meta
        self.send({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        return id_

    def request(self, method: str, modern: bool, **params) -> dict:
        return self.answer(self.begin(method, modern, **params))

    def call(self, name: str, modern: bool, **arguments) -> dict:
        return self.request("tools/call", modern, name=name, arguments=arguments)

    def text(self, name: str, modern: bool, **arguments) -> str:
        answer = self.call(name, modern, **arguments)
        assert "result" in answer, answer
        return answer["result"]["content"][0]["text"]

    def initialize(self, version: str = "2025-11-25") -> dict:
        info = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        self.send({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": info})
        answer = self.answer("init", STARTS_WITHIN_S)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer["result"]

    def end(self, limit_s: float = ENDS_WITHIN_S) -> int:
        """Close its input and wait for its end; the exit code."""
        self.process.stdin.close()
        return self.wait(limit_s)

    def wait(self, limit_s: float = ENDS_WITHIN_S) -> int:
        code = self.process.wait(limit_s)
        self._reader.join(5)
        return code

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


@contextmanager
def stdio(folder, *arguments, env: dict[str, str] | None = None):
    """A bridge that is ended whatever happens; whatever happens, its output must have been clean."""
    with (folder / f"stdio-{time.monotonic_ns()}.log").open("w+b") as log:
        process = subprocess.Popen(
            [GREENROOM, "stdio", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | (env or {}),
        )
        client = StdioClient(process, log)
        try:
            yield client
            assert client.broken == []
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(ENDS_WITHIN_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            client._reader.join(5)
            if not process.stdin.closed:
                process.stdin.close()
            process.stdout.close()
