# SPDX-License-Identifier: AGPL-3.0-or-later
"""The environment of the servers that Greenroom is compared with: `.cache/bench-peers/`, never Greenroom's own.

`./dev bench peers` makes it; the benchmarks that need it call `ensure`. It is made once and again only when the list of
pinned packages (`servers/requirements.txt`) or the Python changes.
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
_HOME = _CACHE / "bench-peers"
_PINS = SERVERS / "requirements.txt"
_INSTALL_LIMIT_S = 600


def ensure() -> Path:
    """The environment's Python, made first where needed. SystemExit with pip's words when that fails."""
    wanted = hashlib.sha256(_PINS.read_bytes() + sys.version.encode()).hexdigest()
    stamp, python = _HOME / "pins", _HOME / "bin" / "python"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "bench-peers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(
                f"bench: installing the peers into {_HOME.relative_to(ROOT)} (once, about ten seconds)", file=sys.stderr
            )
            shutil.rmtree(_HOME, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(_HOME))
            _run(
                str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", str(_PINS)
            )
            _run(str(python), "-m", "compileall", "-q", str(_HOME / "lib"), ok=(0, 1))
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
