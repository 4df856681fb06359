# SPDX-License-Identifier: AGPL-3.0-or-later
"""The environments of what Greenroom is compared with, under `.cache/`, never Greenroom's own.

`./dev bench peers` makes that of the servers; the benchmarks that need one call `ensure`. It is made once and again
only when its list of pinned packages or the Python changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVERS = Path(__file__).resolve().parent / "servers"
_CACHE = ROOT / ".cache"
SERVER_PINS = SERVERS / "requirements.txt"
WORKFLOW_PINS = SERVERS / "requirements-workflow.txt"
_HOMES = {SERVER_PINS: _CACHE / "bench-peers", WORKFLOW_PINS: _CACHE / "bench-workflow-peers"}
_INSTALL_LIMIT_S = 600


def ensure(pins: Path = SERVER_PINS) -> Path:
    """The environment's Python, made first where needed. SystemExit with pip's words when that fails."""
    home = _HOMES[pins]
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    stamp, python = home / "pins", home / "bin" / "python"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(
                f"bench: installing the peers into {home.relative_to(ROOT)} (once, about ten seconds)", file=sys.stderr
            )
            shutil.rmtree(home, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(home))
            _run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", str(pins))
            _run(str(python), "-m", "compileall", "-q", str(home / "lib"), ok=(0, 1))
            stamp.write_text(wanted)
    return python


def versions(python: Path, *names: str) -> dict[str, str]:
    """Installed versions of packages in the environment of `python`."""
    code = "import sys, importlib.metadata as m; print(*(m.version(n) for n in sys.argv[1:]))"
    done = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True, timeout=60)
    return dict(zip(names, done.stdout.split(), strict=True))


def _run(*command: str, ok: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_LIMIT_S)
    if done.returncode not in ok:
        raise SystemExit(
            f"bench: {' '.join(command)} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-2000:]}"
        )


if __name__ == "__main__":
    made = ensure()
    print(made)
    for name, version in versions(made, "mcp", "fastmcp", "uvicorn", "uvloop", "httptools").items():
        print(f"{name} {version}")
