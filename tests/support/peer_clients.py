# SPDX-License-Identifier: AGPL-3.0-or-later
"""Official clients as processes: those that are talked to line by line, and MCP Inspector's CLI."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

CLI_LIMIT_S = 60


class PeerClient:
    """One official client, in one era, against the running Greenroom."""

    def __init__(self, command: list[str], url: str, flavour: str) -> None:
        self._command = [*command, url, flavour]

    def start_visit(self) -> Conversation:
        """A client that sees everything, and then makes long calls; see `tests/peers/clients/steps.py`."""
        return Conversation([*self._command, "visit"])

    def start_outliving(self) -> Conversation:
        """A client that works on while processes of the server are killed."""
        return Conversation([*self._command, "outlive"])

    def start_tasks(self) -> Conversation:
        """A client that has calls run as tasks, and says once what it saw."""
        return Conversation([*self._command, "tasks"])


class Conversation:
    """A client process that is told something line by line, and answers in JSON. A context manager that ends it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)

    def tell(self, line: str) -> None:
        """Say something to the client."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next thing that it says. Bounded, because the scripts leave after a time whatever happens."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            pytest.fail(f"the client ended: {self._process.stderr.read()[-3000:]}")
        return cast("dict[str, Any]", json.loads(line))

    def kill(self) -> None:
        """End the client at once, without a word to the server."""
        self._process.kill()
        self._process.wait(10)


class InspectorCli:
    """MCP Inspector's CLI in one era: a process for each command, with a home folder of its own."""

    def __init__(self, command: list[str], url: str, era: str, home: Path) -> None:
        self._command = [*command, url, "--protocol-era", era, "--format", "json", "--method"]
        self._environment = os.environ | {"HOME": str(home)}

    def start(self, method: str, *options: str) -> subprocess.Popen[str]:
        """Start one command."""
        return subprocess.Popen(
            [*self._command, method, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def run(self, method: str, *options: str) -> dict[str, Any]:
        """The result of one command, or its `error` object."""
        return self.ended(self.start(method, *options))

    @staticmethod
    def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for a command; what it printed: its `result`, or its `error` if it failed."""
        try:
            out, err = process.communicate(timeout=CLI_LIMIT_S)
        finally:
            process.kill()
        lines = (out or err).strip().splitlines()
        assert lines, f"the CLI said nothing and ended with {process.returncode}"
        said = json.loads(lines[-1])
        return cast("dict[str, Any]", said.get("result", said))
