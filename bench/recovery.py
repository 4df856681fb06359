# SPDX-License-Identifier: AGPL-3.0-or-later
"""kill -9, and how long until a client has a right answer again: Greenroom three ways, and two usual set-ups beside it.

A client keeps one connection, kills a process, and from that moment asks until an answer is right, connecting anew when
its connection breaks. For Greenroom the victim is a tool process (which runs the call) or the gateway (which has the
connection); for the others the process that has the connection. Between two kills the system gets the time to be
whole again.

Usage: `./dev bench recovery [--kills N] [--only NAME,...]`. Writes `bench/results/recovery-TIME.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import peers
from kit import echo
from kit.processes import Program, adopt_orphans, cores

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
GREENROOM = ROOT / ".venv" / "bin" / "greenroom"
LIMIT_S = 30.0
NO_SPARES = {"SERVER__SPARES": "0", "ROUTER__SPARES": "0", "RUNTIMES__GENERAL__SPARES": "0"}
PATIENT = {"SUPERVISOR__RESTARTS": "100000", "SUPERVISOR__WITHIN_S": "1", "SUPERVISOR__BACKOFF_RESET_S": "0.001"}
"""The kills come faster than any real crash: no attempt may be too many, and each restart is a first one."""


class Case(msgspec.Struct, frozen=True):
    """One system and one kind of victim."""

    name: str
    command: Callable[[int, Path], list[str]]
    victim: str
    """An actor's name; '' = the process that has the client's connection."""
    environment: dict[str, str] = {}
    pause_s: float = 0.3
    """After it answers again, before the next kill."""


def greenroom(name: str, victim: str, **environment: str) -> Case:
    """Greenroom in one of its ways."""

    def command(port: int, home: Path) -> list[str]:
        return [str(GREENROOM), "up", "--port", str(port), "--data-dir", str(home / "data")]

    wanted = {f"GREENROOM_{key}": value for key, value in (PATIENT | environment).items()}
    return Case(name, command, victim, wanted)


def cases() -> list[Case]:
    """All that is measured."""
    found = []
    for victim, short in (("tools.general#0", "tool process"), ("gateway", "gateway")):
        found += [
            greenroom(f"greenroom, spare, {short}", victim),
            greenroom(f"greenroom, fork server, {short}", victim, **NO_SPARES),
            greenroom(f"greenroom, cold, {short}", victim, **NO_SPARES, SUPERVISOR__FORK_SERVER="false"),
        ]
    python = str(peers.ensure())
    uvicorn = str(peers.SERVERS / "uvicorn_workers.py")
    fastmcp = str(peers.SERVERS / "fastmcp_json.py")
    loop = f'while :; do "{python}" "{fastmcp}" "$0"; done'
    found.append(Case("mcp SDK, uvicorn with 2 workers", lambda port, _: [python, uvicorn, str(port)], "", {}, 2.5))
    found.append(Case("FastMCP, restarted by a shell loop", lambda port, _: ["sh", "-c", loop, str(port)], "", {}, 0.5))
    return found


class Client:
    """One connection, and a call on it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._request = echo.ECHO.to(port)
        self.connection: socket.socket | None = None

    def ask(self) -> bool:
        """One call; whether its answer was right. A broken connection is forgotten."""
        try:
            if self.connection is None:
                self.connection = socket.create_connection(("127.0.0.1", self.port), LIMIT_S)
                self.connection.settimeout(LIMIT_S)
            self.connection.sendall(self._request)
            _, _, body = echo.read_answer(self.connection)
            result = json.loads(body).get("result") or {}
            return [part.get("text") for part in result.get("content", [])] == [echo.TEXT]
        except (OSError, echo.WrongAnswerError, ValueError):
            if self.connection is not None:
                self.connection.close()
                self.connection = None
            return False

    def until_right(self) -> float:
        """Seconds until an answer was right."""
        began = time.perf_counter()
        while not self.ask():
            if time.perf_counter() - began > LIMIT_S:
                raise SystemExit(f"bench: no right answer within {LIMIT_S:g} s")
            time.sleep(0.0005)
        return time.perf_counter() - began

    def owner(self) -> int:
        """The process at the other end of the connection."""
        assert self.connection is not None
        ends = [f"{self.port:04X}", f"{self.connection.getsockname()[1]:04X}"]
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {f"socket:[{row[9]}]" for row in rows if [end.rpartition(":")[2] for end in row[1:3]] == ends}
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and _links(process) & inodes:
                return int(process.name)
        raise SystemExit("bench: nobody has the other end of the connection")


def _links(process: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # it ended meanwhile
        for fd in (process / "fd").iterdir():
            found.add(str(fd.readlink()))
    return found


def actors(home: Path) -> dict[str, dict[str, object]]:
    """Greenroom's actors by name."""
    command = [str(GREENROOM), "status", "--json", "--data-dir", str(home / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return {actor["name"]: actor for actor in json.loads(done.stdout)["actors"]}


def whole(home: Path) -> dict[str, dict[str, object]]:
    """Wait until every actor and spare of Greenroom is up; who they are."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        found = actors(home)
        if all(actor["state"] in ("ready", "spare", "off") for actor in found.values()):
            return found
    raise SystemExit("bench: the tree did not become whole again")


def run(case: Case, kills: int, scratch: Path) -> Iterator[float]:
    """Milliseconds from each kill to the first right answer after it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    home = Path(tempfile.mkdtemp(dir=scratch))
    os.environ.update(case.environment)
    try:
        with Program(case.command(port, home), on=cores(), log=home / "log", cwd=home):
            client = Client(port)
            client.until_right()
            time.sleep(3.0)  # what is loaded late is loaded
            for _ in range(kills):
                client.until_right()
                victim = int(str(whole(home)[case.victim]["pid"])) if case.victim else client.owner()
                client.until_right()
                os.kill(victim, signal.SIGKILL)
                yield client.until_right() * 1000
                time.sleep(case.pause_s)
    finally:
        for key in case.environment:
            del os.environ[key]


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", default="", help="cases whose names hold one of these, comma separated")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped before the end; nothing was written"))
    adopt_orphans()
    wanted = [part for part in options.only.split(",") if part]
    rows = []
    print(f"{'kill -9 to the first right answer, ms':40} {'p50':>8} {'p99':>8} {'max':>8}")
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-", ignore_cleanup_errors=True) as scratch:
        for case in cases():
            if wanted and not any(part in case.name for part in wanted):
                continue
            found = list(run(case, options.kills, Path(scratch)))
            p99 = statistics.quantiles(found, n=100, method="inclusive")[98]
            rows.append({"case": case.name, "p50": statistics.median(found), "p99": p99, "ms": found})
            print(f"{case.name:40} {statistics.median(found):8.1f} {p99:8.1f} {max(found):8.1f}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"recovery-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({"kills": options.kills, "rows": rows}, indent=1) + "\n")
    print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
