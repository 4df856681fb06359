# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the tests with official clients need: the clients' environments, a running Greenroom, and clients to start.

The environments are made in `.cache/peers/` on first use and again when their pins change. Where that is not possible
(no Node, no package registry) the tests are skipped with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).resolve().parent / "clients"
CACHE = ROOT / ".cache" / "peers"
GREENROOM = ROOT / ".venv" / "bin" / "greenroom"
NODE_WANTED = 20
INSTALL_LIMIT_S = 300
START_LIMIT_S = 40.0


def _run(command: list[str], cwd: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=limit_s, stdin=subprocess.DEVNULL
    )


def _environment(name: str, pins: list[Path], salt: str, make: Callable[[Path], list[list[str]]]) -> Path:
    """Make `.cache/peers/NAME` by running commands in it, once for these pins; skip the tests when one fails."""
    home = CACHE / name
    stamp = home / "made-for"
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in pins) + salt.encode()).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test workers may come here at once
        if stamp.exists() and stamp.read_text() == wanted:
            return home
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        for path in pins:
            shutil.copy(path, home)
        for command in make(home):
            try:
                done = _run(command, home, INSTALL_LIMIT_S)
            except subprocess.TimeoutExpired:
                pytest.skip(f"installing the {name} client took more than {INSTALL_LIMIT_S} s")
            if done.returncode != 0:
                pytest.skip(f"the {name} client could not be installed: {(done.stderr or done.stdout).strip()[-300:]}")
        stamp.write_text(wanted)
    return home


@pytest.fixture(scope="session")
def python_client() -> list[str]:
    """The command of the Python client; skips where it can't be installed."""

    def make(home: Path) -> list[list[str]]:
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        return [[sys.executable, "-m", "venv", str(home)], [*pip, "-r", "requirements.txt"]]

    home = _environment("python", [CLIENTS / "requirements.txt"], sys.version, make)
    return [str(home / "bin" / "python"), str(CLIENTS / "python_client.py")]


@pytest.fixture(scope="session")
def typescript_client() -> list[str]:
    """The command of the TypeScript clients; skips where there is no Node or they can't be installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine")
    version = _run([node, "--version"], ROOT, 20).stdout.strip()
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < NODE_WANTED:
        pytest.skip(f"the TypeScript clients need Node {NODE_WANTED}, this machine has {version or 'a broken one'}")
    pins = [CLIENTS / "package.json", CLIENTS / "package-lock.json", CLIENTS / "typescript_client.mjs"]
    # The script is copied beside node_modules, because Node looks for packages from the script's own folder upwards.
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    home = _environment("typescript", pins, version, lambda _: [install])
    return [node, str(home / "typescript_client.mjs")]


class Greenroom:
    """A running Greenroom with a data directory of its own."""

    def __init__(self, folder: Path) -> None:
        self._data = str(folder / "data")
        self._log = folder / "greenroom.log"
        command = [str(GREENROOM), "up", "--port", "0", "--data-dir", self._data]
        with self._log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )

    def status(self) -> dict[str, Any] | None:
        """`greenroom status --json`, or None while there is nothing to ask."""
        done = _run([str(GREENROOM), "status", "--json", "--data-dir", self._data], ROOT, 20)
        return json.loads(done.stdout) if done.returncode in (0, 4) and done.stdout.strip() else None

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], limit_s: float, what: str) -> dict[str, Any]:
        """Ask for the status until it is as wanted; fails the test after `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        while True:
            status = self.status()
            if status is not None and holds(status):
                return status
            if time.monotonic() > deadline or self._process.poll() is not None:
                pytest.fail(f"no {what} within {limit_s} s; status: {status}\nlog: {self._log.read_text()[-3000:]}")
            time.sleep(0.05)  # the status is asked for from outside: there is no event to wait for

    def start(self) -> str:
        """Wait until the tool pool is ready; the URL of the MCP endpoint."""
        ready = self.wait_until(
            lambda status: bool(status["url"]) and _pool(status).get("state") == "ready", START_LIMIT_S, "ready pool"
        )
        return str(ready["url"]).rstrip("/").removesuffix("/mcp") + "/mcp"

    def wait_for_open_calls(self, wanted: Callable[[int], bool], limit_s: float, what: str) -> None:
        """Wait until the number of calls that the tool pool is running is as wanted."""
        self.wait_until(lambda status: wanted(_pool(status)["open_calls"]), limit_s, what)

    def end(self) -> None:
        """Stop it, with force when it does not go."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


def _pool(status: dict[str, Any]) -> dict[str, Any]:
    return next((actor for actor in status["actors"] if actor["name"] == "tools.general#0"), {})


class PeerClient:
    """One official client, in one era, against the running Greenroom."""

    def __init__(self, command: list[str], url: str, flavour: str) -> None:
        self._command = [*command, url, flavour]

    def tour(self) -> dict[str, Any]:
        """Everything short, in one go: see `python_client.py`."""
        done = _run([*self._command, "tour"], ROOT, 90)
        assert done.returncode == 0, f"the client failed ({done.returncode}):\n{done.stderr[-3000:]}"
        return cast("dict[str, Any]", json.loads(done.stdout))

    def start_long_call(self) -> LongCall:
        """Start a client whose `sleep` of 30 seconds runs until it is told to cancel it."""
        return LongCall([*self._command, "cancel"])


class LongCall:
    """A client process with one long call. A context manager that ends the process."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> LongCall:
        assert self._answer() == {"started": True}
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)

    def cancel(self) -> dict[str, Any]:
        """Have the client cancel its call; it stays connected."""
        assert self._process.stdin is not None
        self._process.stdin.write("cancel\n")
        self._process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        """End the client at once, without a word to the server."""
        self._process.kill()
        self._process.wait(10)

    def _answer(self) -> dict[str, Any]:
        # Bounded, because the client scripts leave after a minute whatever happens.
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            pytest.fail(f"the client ended: {self._process.stderr.read()[-3000:]}")
        return cast("dict[str, Any]", json.loads(line))


@pytest.fixture(scope="module")
def greenroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Greenroom, str]]:
    """A Greenroom for the module, and the URL of its MCP endpoint."""
    if not GREENROOM.exists():
        pytest.fail(".venv/bin/greenroom is missing; ./dev setup makes it")
    running = Greenroom(tmp_path_factory.mktemp("greenroom"))
    try:
        yield running, running.start()
    finally:
        running.end()


@pytest.fixture(scope="module")
def make_client(request: pytest.FixtureRequest, greenroom: tuple[Greenroom, str]) -> Callable[[str, str], PeerClient]:
    """Make a client by language and flavour."""

    def make(language: str, flavour: str) -> PeerClient:
        return PeerClient(request.getfixturevalue(f"{language}_client"), greenroom[1], flavour)

    return make
