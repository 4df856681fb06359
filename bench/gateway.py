# SPDX-License-Identifier: AGPL-3.0-or-later
"""`tools/call echo` over HTTP: Greenroom, the official Python SDK and FastMCP, side by side in one run.

Each round visits every server in turn: start it, time its first answer, check one real answer, load it with wrk at
each number of connections, read CPU and memory of its whole process tree, end it. Medians over the rounds are reported,
for two arrangements: everything on the same two cores, and the server's tree on one core with wrk on the other.

Usage: `./dev bench gateway [--quick] [--only greenroom,mcp,fastmcp] [--rounds N] [--seconds N] [--connections 1,16]`.
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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import peers
from kit import echo
from kit.processes import Program, adopt_orphans, cores

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
START_LIMIT_S = 60.0
SIZE_TOLERANCE = 0.02
"""The mean answer under load may differ by this share from the checked one (answers cut off at the end of a run)."""

Command = Callable[[int], list[str]]


class Arrangement(msgspec.Struct, frozen=True):
    """Which cores the server's tree and the load generator run on."""

    name: str
    server: list[int]
    generator: list[int]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One load run."""

    arrangement: str
    round: int
    server: str
    connections: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_call: float
    """CPU of the server's whole tree, user and system."""
    errors: int
    """Bad statuses, broken connections and time-outs that wrk counted."""
    size_wrong: bool
    """The mean answer was not of the size of the checked one."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One start of one server."""

    arrangement: str
    round: int
    server: str
    first_answer_s: float
    """From the start of the program to its first right answer."""
    pss_mib: float
    """Memory of the whole tree after all load runs."""
    processes: int


def commands(wanted: Sequence[str], scratch: Path) -> dict[str, Command]:
    """How each server is started on a port. Makes the peers' environment when one of them is wanted."""
    found: dict[str, Command] = {}
    if "greenroom" in wanted:
        program = ROOT / ".venv" / "bin" / "greenroom"
        if not program.exists():
            raise SystemExit("bench: .venv/bin/greenroom is missing; ./dev setup makes it")
        data = str(scratch / "greenroom-data")
        found["greenroom"] = lambda port: [str(program), "up", "--port", str(port), "--data-dir", data]
    if {"mcp", "fastmcp"} & set(wanted):
        python = str(peers.ensure())
        mcp, fastmcp = (str(peers.SERVERS / f"{name}_json.py") for name in ("mcp", "fastmcp"))
        found["mcp"] = lambda port: [python, mcp, str(port)]
        found["fastmcp"] = lambda port: [python, fastmcp, str(port)]
    return {name: found[name] for name in wanted}


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


def wait_for_answer(name: str, program: Program, port: int) -> tuple[float, int]:
    """Seconds from the start to the first right answer, and that answer's size. SystemExit when none comes in time."""
    last: Exception | None = None
    while time.monotonic() < program.started + START_LIMIT_S and not program.ended:
        try:
            size = echo.ask(port)
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

    def run(self) -> None:
        """All rounds of all arrangements."""
        plan = arrangements()
        for name in self.servers:  # a first start that does not count: it writes caches and makes data directories
            with self._start(name, plan[0]) as (program, port):
                wait_for_answer(name, program, port)
        for arrangement in plan:
            for number in range(1, self.options.rounds + 1):
                for name in self.servers:
                    self._visit(arrangement, number, name)

    def _start(self, name: str, arrangement: Arrangement) -> Started:
        port = free_port()
        program = Program(
            self.servers[name](port), on=arrangement.server, log=self.scratch / f"{name}.log", cwd=self.scratch
        )
        return Started(program, port)

    def _visit(self, arrangement: Arrangement, number: int, name: str) -> None:
        with self._start(name, arrangement) as (program, port):
            first_answer_s, size = wait_for_answer(name, program, port)
            echo.load(port, connections=16, seconds=1, on=arrangement.generator)  # warm up
            for connections in self.options.connections:
                size = echo.ask(port)
                row = self._load(arrangement, number, name, program, port, connections, size)
                self.rows.append(row)
                _say(
                    f"{arrangement.name:>6} round {number} {name:>9} c={connections:<3} {row.calls_per_s:>8.0f} calls/s"
                )
            visit = Visit(
                arrangement=arrangement.name,
                round=number,
                server=name,
                first_answer_s=round(first_answer_s, 3),
                pss_mib=round(program.pss_mib(), 1),
                processes=len(program.tree()),
            )
            self.visits.append(visit)

    def _load(
        self, arrangement: Arrangement, number: int, name: str, program: Program, port: int, connections: int, size: int
    ) -> Row:
        before = program.cpu_s()
        seen = echo.load(port, connections=connections, seconds=self.options.seconds, on=arrangement.generator)
        cpu_s = program.cpu_s() - before
        calls = max(1, seen.requests)
        return Row(
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


def medians(bench: Bench) -> list[dict[str, Any]]:
    """One entry for each arrangement, number of connections and server."""
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys((row.arrangement, row.connections, row.server) for row in bench.rows):
        rows = [row for row in bench.rows if (row.arrangement, row.connections, row.server) == key]
        entry: dict[str, Any] = {"arrangement": key[0], "connections": key[1], "server": key[2]}
        for field in ("calls_per_s", "p50_ms", "p99_ms", "cpu_us_per_call"):
            entry[field] = statistics.median(getattr(row, field) for row in rows)
        entry["slowest"], entry["fastest"] = min(r.calls_per_s for r in rows), max(r.calls_per_s for r in rows)
        entry["errors"] = sum(row.errors for row in rows)
        entry["size_wrong"] = sum(row.size_wrong for row in rows)
        found.append(entry)
    return found


def ratios(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Greenroom against each peer: above 1 is better for Greenroom in every column."""
    at = {(entry["arrangement"], entry["connections"], entry["server"]): entry for entry in table}
    found = []
    for (arrangement, connections, server), peer in at.items():
        ours = at.get((arrangement, connections, "greenroom"))
        if ours is None or server == "greenroom":
            continue
        entry = {"arrangement": arrangement, "connections": connections, "against": server}
        entry["calls"] = round(ours["calls_per_s"] / max(peer["calls_per_s"], 1e-9), 2)
        for field in ("p50_ms", "p99_ms", "cpu_us_per_call"):
            entry[field.split("_")[0]] = round(peer[field] / max(ours[field], 1e-9), 2)
        found.append(entry)
    return found


def report(bench: Bench) -> Iterator[str]:
    """The run as text, line by line."""
    names = {"shared": "server and wrk share two cores", "split": "server's tree on one core, wrk on the other"}
    table = medians(bench)
    for arrangement in dict.fromkeys(entry["arrangement"] for entry in table):
        yield f"\n{arrangement}: {names[arrangement]} (medians of {bench.options.rounds} rounds)"
        yield (
            f"{'server':>10} {'conns':>5} {'calls/s':>9} {'range':>15} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/call':>11} "
            f"{'bad':>5}"
        )
        for e in (entry for entry in table if entry["arrangement"] == arrangement):
            spread = f"{e['slowest']:.0f}-{e['fastest']:.0f}"
            bad = f"{e['errors']}{'!' if e['size_wrong'] else ''}"
            yield (
                f"{e['server']:>10} {e['connections']:>5} {e['calls_per_s']:>9.0f} {spread:>15} {e['p50_ms']:>8.2f} "
                f"{e['p99_ms']:>8.2f} {e['cpu_us_per_call']:>11.0f} {bad:>5}"
            )
        yield f"{'server':>10} {'first answer s':>15} {'PSS MiB':>8} {'processes':>9}"
        for name in bench.servers:
            visits = [v for v in bench.visits if (v.arrangement, v.server) == (arrangement, name)]
            answer, pss, count = (
                statistics.median(getattr(v, f) for v in visits) for f in ("first_answer_s", "pss_mib", "processes")
            )
            yield f"{name:>10} {answer:>15.2f} {pss:>8.0f} {count:>9.0f}"
    compared = ratios(table)
    if compared:
        yield "\nGreenroom against the peers (above 1: Greenroom is better)"
        yield f"{'':>10} {'peer':>8} {'conns':>5} {'calls/s':>8} {'p50':>6} {'p99':>6} {'CPU':>6}"
        for r in compared:
            yield (
                f"{r['arrangement']:>10} {r['against']:>8} {r['connections']:>5} {r['calls']:>7.2f}x {r['p50']:>5.2f}x "
                f"{r['p99']:>5.2f}x {r['cpu']:>5.2f}x"
            )
    if any(entry["errors"] or entry["size_wrong"] for entry in table):
        yield "\nSome answers were wrong (column bad; !: not of the size of the checked one): such rows do not count."


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
    parser.add_argument("--only", type=lambda text: text.split(","), default=["greenroom", "mcp", "fastmcp"])
    parser.add_argument("--quick", action="store_true", help="one round of one second: does it work at all?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 1
    if unknown := set(options.only) - {"greenroom", "mcp", "fastmcp"}:
        parser.error(f"--only knows greenroom, mcp and fastmcp, not {', '.join(sorted(unknown))}")
    if min(options.rounds, options.seconds, *options.connections) < 1:
        parser.error("--rounds, --seconds and --connections must be at least 1")
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
    text = "\n".join(report(bench))
    print(text)
    RESULTS.mkdir(exist_ok=True)
    base = RESULTS / f"gateway-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
    asked = {name: getattr(options, name) for name in ("rounds", "seconds", "connections")}
    table = medians(bench)
    whole = {"environment": about, "options": asked, "medians": table, "ratios": ratios(table)}
    whole |= {"rows": msgspec.to_builtins(bench.rows), "visits": msgspec.to_builtins(bench.visits)}
    base.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    base.with_suffix(".txt").write_text(json.dumps(about) + "\n" + text + "\n")
    print(f"\nwritten: {os.path.relpath(base)}.json and .txt")
    return int(any(entry["errors"] or entry["size_wrong"] for entry in table))


if __name__ == "__main__":
    sys.exit(main())
