# SPDX-License-Identifier: AGPL-3.0-or-later
"""The suites and a Node that runs them, from the npm registry: `.cache/conformance/`, made once and again when the pins
(`tests/conformance/suites/`) change.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PINS = Path(__file__).resolve().parent.parent / "suites"
CACHE = ROOT / ".cache"
NODE_WANTED = 22
"""Older ones lack `fs.globSync`."""
INSTALL_LIMIT_S = 300


class NotToBeHadError(Exception):
    """This machine has no Node, or can't get the packages; the message says why."""


class Suites:
    """Installed suites: `node`, and where each suite is."""

    def __init__(self, node: Path, home: Path) -> None:
        self.node = node
        self._home = home

    def command(self, name: str) -> list[str]:
        """The beginning of a command of this suite, such as `conformance-0.1.16`."""
        return [str(self.node), str(self._home / "node_modules" / name / "dist" / "index.js")]


def fetched() -> Suites:
    """The suites, installed first where needed. Raises `NotToBeHadError`."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotToBeHadError("npm is not on this machine")
    own = _node_of_this_machine()
    home = CACHE / "conformance"
    stamp = home / "made-for"
    pins = [PINS / "package.json", PINS / "package-lock.json"]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in pins) + str(own).encode()).hexdigest()
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "conformance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(f"conformance: installing the suites into {home.relative_to(ROOT)} (once)", file=sys.stderr)
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            for path in pins:
                shutil.copy(path, home)
            _install(npm, home, with_node=own is None)
            stamp.write_text(wanted)
    node = own or next(home.glob("node_modules/node-linux-*/bin/node"), None)
    if node is None:
        raise NotToBeHadError(
            f"the suites need Node {NODE_WANTED}; this machine has none, and there is no package of it for "
            f"{platform.system()} on {platform.machine()}"
        )
    return Suites(node, home)


def _node_of_this_machine() -> Path | None:
    """Node, where it is new enough."""
    node = shutil.which("node")
    if node is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
    major = re.match(r"v(\d+)\.", said)
    return Path(node) if major is not None and int(major[1]) >= NODE_WANTED else None


def _install(npm: str, home: Path, *, with_node: bool) -> None:
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error"]
    if not with_node:
        command.append("--omit=optional")
    try:
        done = subprocess.run(
            command, cwd=home, capture_output=True, text=True, check=False, timeout=INSTALL_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotToBeHadError(f"installing the suites took more than {INSTALL_LIMIT_S} s") from None
    if done.returncode != 0:
        raise NotToBeHadError(f"the suites can't be installed: {(done.stderr or done.stdout).strip()[-300:]}")
