# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP over HTTP: Greenroom, the official Python SDK and FastMCP, side by side in one run.

Cases: `calls` (`tools/call echo`), `stream` (a call with progress, answered as an event stream), `list` (`tools/list`
with 400 tools) and `idle` (1,000 open streams for changes; `kit/idle.py`).

Each round visits every server in turn: start it, time its first answer, check one real answer, load it with wrk at
each number of connections, read CPU and memory of its whole process tree, end it. Medians over the rounds are reported,
for two arrangements: everything on the same two cores, and the server's tree on one core with wrk on the other.

Usage: `./dev bench gateway [--quick] [--only greenroom,mcp,fastmcp] [--cases calls,stream,list,idle] [--rounds N]
[--seconds N] [--connections 1,16] [--streams N]`.
Writes `bench/results/gateway-TIME.json` and `.txt`; how to read them is in `bench/README.md`. Exit code 1 when any
answer in the whole run was wrong.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import peers
from kit import echo, idle
from kit.processes import Program, adopt_orphans, cores
from kit.results import Row, Visit, medians, ratios, report

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
START_LIMIT_S = 60.0
SIZE_TOLERANCE = 0.02
"""The mean answer under load may differ by this share from the checked one (answers cut off at the end of a run)."""

CASES = {"calls": echo.ECHO, "stream": echo.STREAM, "list": echo.LIST}
CASE_CONNECTIONS = [16]
"""Of all cases but `calls`."""
GREENROOM_TOOLS = ROOT / "bench" / "servers" / "greenroom_tools"
PEER_OPTIONS = {"calls": [], "stream": ["--streams"], "list": ["--tools", str(echo.TOOLS)], "idle": ["--streaming"]}

Command = Callable[[int, str], list[str]]
"""Port and case -> how the server is started."""


class Arrangement(msgspec.Struct, frozen=True):
    """Which cores the server's tree and the load generator run on."""

    name: str
    server: list[int]
    generator: list[int]


def commands(wanted: Sequence[str], scratch: Path) -> dict[str, Command]:
    """How each server is started. Makes the peers' environment when one of them is wanted."""
    found: dict[str, Command] = {}
    if "greenroom" in wanted:
        program = ROOT / ".venv" / "bin" / "greenroom"
        if not program.exists():
            raise SystemExit("bench: .venv/bin/greenroom is missing; ./dev setup makes it")
        base = [str(program), "up", "--data-dir", str(scratch / "greenroom-data")]
        folders = {"stream": [GREENROOM_TOOLS], "list": [listed_tools(scratch)], "idle": [changed_tools(scratch, 0)]}

        def greenroom(port: int, case: str) -> list[str]:
            tools = [part for folder in folders.get(case, []) for part in ("--tools", str(folder))]
            return [*base, "--port", str(port), *tools]

        found["greenroom"] = greenroom
    if {"mcp", "fastmcp"} & set(wanted):
        python = str(peers.ensure())
        for name in ("mcp", "fastmcp"):
            script = str(peers.SERVERS / f"{name}_json.py")
            found[name] = lambda port, case, script=script: [python, script, str(port), *PEER_OPTIONS[case]]
    return {name: found[name] for name in wanted}


def listed_tools(scratch: Path) -> Path:
    """A folder with the tools of the case `list`: the same as in the peers' scripts."""
    folder = scratch / "listed"
    folder.mkdir(exist_ok=True)
    text = "from actors.toolkit import tool\n"
    for number in range(echo.TOOLS):
        text += (
            f"\n\n@tool()\nasync def listed_{number}(text: str, count: int = 1, loud: bool = False) -> str:\n"
            f'    """Return the text so many times; tool {number}."""\n    return text * count\n'
        )
    (folder / "listed.py").write_text(text)
    return folder


def changed_tools(scratch: Path, number: int) -> Path:
    """A folder with one tool, of another name each time."""
    folder = scratch / "changed"
    folder.mkdir(exist_ok=True)
    text = f'from actors.toolkit import tool\n\n\n@tool()\nasync def changed_{number}() -> str:\n    """A tool."""\n'
    (folder / "changed.py").write_text(f'{text}    return ""\n')
    return folder


def arrangements() -> list[Arrangement]:
    """The two arrangements, or only the first where there is one core."""
    first, *others = cores()
    if not others:
        print("bench: only one core: the arrangement with a core for each side is left out", file=sys.stderr)
        return [Arrangement("shared", [first], [first])]
    both = [first, others[0]]
    return [Arrangement("shared", both, both), Arrangement("split", [first], [others[0]])]


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_answer(name: str, program: Program, port: int, request: echo.Request = echo.ECHO) -> tuple[float, int]:
    """Seconds from the start to the first right answer, and that answer's size. SystemExit when none comes in time."""
    last: Exception | None = None
    while time.monotonic() < program.started + START_LIMIT_S and not program.ended:
        try:
            size = echo.ask(port, request)
        except (OSError, echo.WrongAnswerError) as error:
            last = error
            time.sleep(0.01)
        else:
            return time.monotonic() - program.started, size
    raise SystemExit(
        f"bench: {name} gave no right answer; the last was: {last}\nIts output ends with:\n{program.tail()}"
    )


class Bench:
    """One whole run: what was asked for, and what was measured so far."""

    def __init__(self, options: argparse.Namespace, servers: dict[str, Command], scratch: Path) -> None:
        self.options = options
        self.servers = servers
        self.scratch = scratch
        self.rows: list[Row] = []
        self.visits: list[Visit] = []
        self.idle: list[idle.Idle] = []
        self._changes = 0

    def run(self) -> None:
        """All rounds of all arrangements."""
        plan = arrangements()
        for name in self.servers:  # a first start that does not count: it writes caches and makes data directories
            with self._start(name, plan[0], "calls") as (program, port):
                wait_for_answer(name, program, port)
        for arrangement in plan:
            for case in self.options.cases:
                for number in range(1, self.options.rounds + 1):
                    for name in self.servers:
                        if case == "idle":
                            self._visit_idle(arrangement, number, name)
                        else:
                            self._visit(arrangement, number, name, case)

    def _start(self, name: str, arrangement: Arrangement, case: str) -> Started:
        port = free_port()
        program = Program(
            self.servers[name](port, case), on=arrangement.server, log=self.scratch / f"{name}.log", cwd=self.scratch
        )
        return Started(program, port)

    def _visit(self, arrangement: Arrangement, number: int, name: str, case: str) -> None:
        request = CASES[case]
        with self._start(name, arrangement, case) as (program, port):
            first_answer_s, size = wait_for_answer(name, program, port, request)
            echo.load(port, request, connections=16, seconds=1, on=arrangement.generator)  # warm up
            for connections in self.options.connections if case == "calls" else CASE_CONNECTIONS:
                size = echo.ask(port, request)
                row = self._load(arrangement, number, name, case, program, port, connections, size)
                self.rows.append(row)
                _say(
                    f"{arrangement.name:>6} {case:>6} round {number} {name:>9} c={connections:<3} "
                    f"{row.calls_per_s:>8.0f} calls/s"
                )
            visit = Visit(
                case=case,
                arrangement=arrangement.name,
                round=number,
                server=name,
                first_answer_s=round(first_answer_s, 3),
                pss_mib=round(program.pss_mib(), 1),
                processes=len(program.tree()),
            )
            self.visits.append(visit)

    def _visit_idle(self, arrangement: Arrangement, number: int, name: str) -> None:
        data_dir = str(self.scratch / "greenroom-data")

        def change() -> list[str]:
            self._changes += 1
            changed_tools(self.scratch, self._changes)
            return [str(ROOT / ".venv" / "bin" / "greenroom"), "reload", "--data-dir", data_dir]

        with self._start(name, arrangement, "idle") as (program, port):
            # With sessions the peers answer as streams, so the answer is not checked by its size here.
            wait_for_answer(name, program, port, idle.ANY_ECHO)
            seen = idle.visit(
                program,
                port,
                arrangement=arrangement.name,
                number=number,
                server=name,
                streams=self.options.streams,
                seconds=self.options.seconds,
                on=arrangement.generator,
                change=change if name == "greenroom" else None,
            )
            self.idle.append(seen)
            _say(f"{arrangement.name:>6}   idle round {number} {name:>9} {seen.kib_per_stream:>6.1f} KiB each")

    def _load(
        self,
        arrangement: Arrangement,
        number: int,
        name: str,
        case: str,
        program: Program,
        port: int,
        connections: int,
        size: int,
    ) -> Row:
        before = program.cpu_s()
        seen = echo.load(
            port, CASES[case], connections=connections, seconds=self.options.seconds, on=arrangement.generator
        )
        cpu_s = program.cpu_s() - before
        calls = max(1, seen.requests)
        return Row(
            case=case,
            bytes=size,
            arrangement=arrangement.name,
            round=number,
            server=name,
            connections=connections,
            calls_per_s=round(seen.requests / seen.duration_us * 1e6, 1),
            p50_ms=seen.p50_us / 1e3,
            p99_ms=seen.p99_us / 1e3,
            cpu_us_per_call=round(cpu_s / calls * 1e6, 1),
            errors=seen.errors,
            size_wrong=abs(seen.bytes / calls - size) > SIZE_TOLERANCE * size,
        )


class Started:
    """A started server and its port, ended with the block."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port

    def __enter__(self) -> tuple[Program, int]:
        return self.program, self.port

    def __exit__(self, *_: object) -> None:
        self.program.end()


def environment(servers: dict[str, Command]) -> dict[str, Any]:
    """What the run ran on."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    found: dict[str, Any] = {"python": platform.python_version(), "kernel": platform.release(), "cpu": model}
    found["cores"] = len(cores())
    version = subprocess.run([echo.find_wrk(), "-v"], capture_output=True, text=True, check=False, timeout=10)
    found["wrk"] = (version.stdout + version.stderr).splitlines()[0]
    revision = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    found["revision"] = subprocess.run(revision, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    if {"mcp", "fastmcp"} & set(servers):
        found["peers"] = peers.versions(peers.ensure(), "mcp", "fastmcp", "uvicorn", "uvloop", "httptools")
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev bench gateway", description="Greenroom and its peers under load.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of load, for each number of connections")
    parser.add_argument("--connections", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64])
    parser.add_argument("--cases", type=lambda text: text.split(","), default=[*CASES, "idle"])
    parser.add_argument("--streams", type=int, default=1000, help="open streams of the case idle")
    parser.add_argument("--only", type=lambda text: text.split(","), default=["greenroom", "mcp", "fastmcp"])
    parser.add_argument("--quick", action="store_true", help="one round of one second: does it work at all?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 1
    if unknown := set(options.cases) - {*CASES, "idle"}:
        parser.error(f"--cases knows calls, stream, list and idle, not {', '.join(sorted(unknown))}")
    if unknown := set(options.only) - {"greenroom", "mcp", "fastmcp"}:
        parser.error(f"--only knows greenroom, mcp and fastmcp, not {', '.join(sorted(unknown))}")
    if min(options.rounds, options.seconds, options.streams, *options.connections) < 1:
        parser.error("--rounds, --seconds, --streams and --connections must be at least 1")
    return options


def main() -> int:
    """Run, print, write."""
    options = parse()
    echo.find_wrk()
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # leaving by SystemExit ends the servers and removes the scratch folder
        signal.signal(number, lambda *_: sys.exit("bench: stopped before the end; nothing was written"))
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-", ignore_cleanup_errors=True) as scratch:
        bench = Bench(options, commands(options.only, Path(scratch)), Path(scratch))
        about = environment(bench.servers)
        bench.run()
    text = "\n".join([*report(bench.rows, bench.visits, options.rounds), *idle.report(bench.idle)])
    print(text)
    RESULTS.mkdir(exist_ok=True)
    base = RESULTS / f"gateway-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
    asked = {name: getattr(options, name) for name in ("rounds", "seconds", "connections", "cases", "streams")}
    table = medians(bench.rows)
    whole = {"environment": about, "options": asked, "medians": table, "ratios": ratios(table)}
    whole |= {"rows": msgspec.to_builtins(bench.rows), "visits": msgspec.to_builtins(bench.visits)}
    whole |= {"idle": idle.medians(bench.idle), "idle_visits": msgspec.to_builtins(bench.idle)}
    base.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    base.with_suffix(".txt").write_text(json.dumps(about) + "\n" + text + "\n")
    print(f"\nwritten: {os.path.relpath(base)}.json and .txt")
    return int(any(entry["errors"] or entry["size_wrong"] for entry in table))


if __name__ == "__main__":
    sys.exit(main())
