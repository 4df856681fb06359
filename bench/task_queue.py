# SPDX-License-Identifier: AGPL-3.0-or-later
"""The durable task queue beside a table of SQLite (WAL, FULL) and one of PostgreSQL (`SKIP LOCKED`), in one run.

A cycle is enqueue, claim, complete; each step is on disk before the next begins, and so many cycles are in flight. Each
round visits all stores in turn. Then for Greenroom alone: what a million tasks leave on disk, the longest wait among
them, and how long the queue is away after kill -9 with many open tasks.

Usage: `./dev bench task_queue [--rounds N] [--seconds S] [--in-flight 1,16,64,256] [--only NAME,...] [--tasks N]
[--open N]`. Writes `bench/results/task_queue-TIME.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kit import postgres
from kit.processes import Program, adopt_orphans, cores

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
GREENROOM = ROOT / ".venv" / "bin" / "greenroom"
STORES = ("greenroom-duckdb", "greenroom-sqlite", "sqlite-table", "postgres-table")
SETTINGS = {
    "P2P__TASK_QUEUE__MAX_QUEUE_SIZE": "1000000",
    "SUPERVISOR__RESTARTS": "1000",
    "SERVER__SPARES": "0",
    "ROUTER__SPARES": "0",
    "RUNTIMES__GENERAL__SPARES": "0",
}
LIMIT_S = 900.0
Cycles = Callable[[int, float], dict[str, Any]]


def program(module: str, *arguments: object) -> dict[str, Any]:
    """Run one of the load programs; what it measured."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT / "bench",
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise SystemExit(f"bench: {module} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Greenroom:
    """A running tree with a task queue."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def load(self, *arguments: object) -> dict[str, Any]:
        """Let the load program work."""
        return program("kit.queue_greenroom", self.data_dir, *arguments)

    def cycles(self, in_flight: int, seconds: float) -> dict[str, Any]:
        """So many cycles at once, for so long."""
        return self.load("cycles", in_flight, seconds)

    def queue(self) -> dict[str, Any]:
        """The task queue's process, as `greenroom status` shows it."""
        command = [str(GREENROOM), "status", "--json", "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        actors = json.loads(done.stdout)["actors"] if done.returncode == 0 else []
        return next((actor for actor in actors if actor["name"] == "task_queue"), {"state": "none"})

    def files(self) -> dict[str, int]:
        """Bytes on disk of the log with all that belongs to it, and of the history of ended tasks with results."""
        sizes = {"log": 0, "history": 0}
        for path in self.data_dir.glob("task_queue*"):
            sizes["history" if ".history" in path.name else "log"] += path.stat().st_size
        return sizes


@contextlib.contextmanager
def greenroom(scratch: Path, store: str) -> Iterator[Greenroom]:
    """A tree of its own."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    settings = {f"GREENROOM_{key}": value for key, value in SETTINGS.items()}
    settings["GREENROOM_P2P__TASK_QUEUE__STORE"] = store
    os.environ.update(settings)
    tree = Greenroom(home / "data")
    command = [str(GREENROOM), "up", "--port", "0", "--data-dir", str(tree.data_dir)]
    with Program(command, on=cores(), log=home / "log", cwd=home) as running:
        end = time.monotonic() + 30
        while tree.queue()["state"] != "ready":
            if running.ended or time.monotonic() > end:
                raise SystemExit(f"bench: the task queue did not become ready:\n{running.tail()}")
            time.sleep(0.1)
        yield tree


@contextlib.contextmanager
def sqlite(scratch: Path) -> Iterator[Cycles]:
    """A new file for each visit."""

    def cycles(in_flight: int, seconds: float) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=scratch) as home:
            return program("kit.queue_sqlite", Path(home) / "queue.sqlite", in_flight, seconds)

    yield cycles


@contextlib.contextmanager
def opened(store: str, scratch: Path) -> Iterator[Cycles]:
    """One of `STORES`, ready for cycles."""
    if store == "sqlite-table":
        with sqlite(scratch) as cycles:
            yield cycles
    elif store == "postgres-table":
        with postgres.started(scratch) as server:
            yield server.cycles
    else:
        with greenroom(scratch, store.removeprefix("greenroom-")) as tree:
            yield tree.cycles


def compare(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Cycles per second of all stores, in turn."""
    rows: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for store in options.only:
            home = scratch / f"round-{number}-{store}"
            home.mkdir()
            with opened(store, home) as cycles:
                for in_flight in options.in_flight:
                    found = cycles(in_flight, options.seconds)
                    ms = found.pop("cycle_ms")
                    found.pop("op_ms", None)
                    p50, p99 = (statistics.quantiles(ms, n=100)[at] for at in (49, 98))
                    rows.append(
                        {"store": store, "round": number, "in_flight": in_flight, "p50": p50, "p99": p99} | found
                    )
                    rate = found["cycles_per_s"]
                    print(
                        f"{number:5}  {store:18} {in_flight:9} {rate:10.0f} {p50:9.1f} {p99:9.1f} {max(ms):9.1f}",
                        flush=True,
                    )
    return rows


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Medians over the rounds, and ratios to the first store."""
    lines = []
    stores = list(dict.fromkeys(row["store"] for row in rows))
    for in_flight in dict.fromkeys(row["in_flight"] for row in rows):
        rates = {
            store: statistics.median(
                r["cycles_per_s"] for r in rows if (r["store"], r["in_flight"]) == (store, in_flight)
            )
            for store in stores
        }
        ratios = [f"{store} {rate:.0f} ({rates[stores[0]] / rate:.2f}x)" for store, rate in rates.items()]
        lines.append(f"{in_flight} in flight, cycles/s: {', '.join(ratios)}")
    return lines


def growth(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Files and the longest waits while many tasks pass."""
    with greenroom(scratch, options.store) as tree:
        found = tree.load("pass", options.tasks)
        worst = found["group_ms"]
        sizes = tree.files()
        told = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items())
        print(
            f"{options.tasks} tasks passed at {found['tasks_per_s']:.0f}/s; {told}; longest waits for "
            f"a group of 250: {', '.join(f'{ms:.0f}' for ms in worst[-5:])} ms"
        )
        return {"tasks": options.tasks, "tasks_per_s": found["tasks_per_s"], "bytes": sizes, "longest_ms": worst}


def recovery(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """From kill -9 to ready again, with many open tasks."""
    with greenroom(scratch, options.store) as tree:
        tree.load("fill", options.open)
        times = []
        for _ in range(options.kills):
            before = tree.queue()
            os.kill(int(before["pid"]), signal.SIGKILL)
            began = time.perf_counter()
            while (now := tree.queue())["state"] != "ready" or now["pid"] == before["pid"]:
                if time.perf_counter() - began > 60:
                    raise SystemExit("bench: the task queue did not come back")
            times.append(time.perf_counter() - began)
        note = tree.queue().get("note", "")
        shown = ", ".join(f"{t:.2f}" for t in times)
        print(f"kill -9 with {options.open} open tasks, ready again after {shown} s ({note})")
        return {"open": options.open, "seconds": times, "note": note}


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--in-flight", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64, 256]
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(STORES), help=", ".join(STORES))
    parser.add_argument("--store", choices=("duckdb", "sqlite"), default="duckdb", help="of the two that follow")
    parser.add_argument("--tasks", type=int, default=1_000_000, help="that pass through; 0 = leave this part out")
    parser.add_argument("--open", type=int, default=100_000, help="tasks at the kill; 0 = leave this part out")
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped before the end; nothing was written"))
    adopt_orphans()
    report: dict[str, Any] = {"options": {key: str(value) for key, value in vars(options).items()}}
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        if options.rounds:
            print(
                f"{'round':5}  {'store':18} {'in flight':>9} {'cycles/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'max ms':>9}"
            )
            report["rows"] = compare(options, scratch)
            print("\n".join(summary(report["rows"])))
        if options.tasks:
            report["growth"] = growth(options, scratch)
        if options.open:
            report["recovery"] = recovery(options, scratch)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"task_queue-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
