# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workflows beside DBOS embedded on SQLite, in one run: steps per second, and how soon a submission is answered.

A `chain` is 1,000 steps of which each needs the one before, `wide` 1,000 that need nothing. Greenroom runs each step
as a call of a tool in another process, through the durable queue; DBOS runs it as a function in its own process
(`chain`, and `gather` for wide), or takes it from its own durable queue (`queue`). The loop is the same tool called by
Greenroom's way without a workflow, one call after the other. Each round visits all in turn.

Usage: `./dev bench workflow [--rounds N] [--steps N] [--submissions N] [--only NAME,...]`. Writes
`bench/results/workflow-TIME.json`.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import peers
from kit.processes import Program, adopt_orphans, cores

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
GREENROOM = ROOT / ".venv" / "bin" / "greenroom"
DBOS = peers.SERVERS / "dbos_workflow.py"
SETTINGS = {
    "P2P__WORKFLOW_SCHEDULER__TOOLS": "true",
    "SERVER__SPARES": "0",
    "ROUTER__SPARES": "0",
    "RUNTIMES__GENERAL__SPARES": "0",
}
OURS = {"greenroom-duckdb": "duckdb", "greenroom-sqlite": "sqlite"}
PEER = "dbos-sqlite"
SHAPES = {"chain": ("chain",), "wide": ("gather", "queue")}
"""What is measured, and in which forms the peer can do it."""
LIMIT_S = 900.0
WARM_STEPS = 50


def told(command: list[str]) -> dict[str, Any]:
    """What a program printed as JSON."""
    done = subprocess.run(command, cwd=ROOT / "bench", capture_output=True, text=True, check=False, timeout=LIMIT_S)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command[:3])} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Greenroom:
    """A running tree."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def load(self, *arguments: object) -> dict[str, Any]:
        """Let the load program work."""
        return told([sys.executable, "-m", "kit.workflow_greenroom", str(self.data_dir), *map(str, arguments)])

    def status(self) -> dict[str, Any]:
        """As `greenroom status` has it."""
        command = [str(GREENROOM), "status", "--json", "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        found: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        return {"actors": []} | found

    def by_http(self, count: int) -> list[float]:
        """Milliseconds of submissions through `POST /tools/execute`."""
        args = {"workflow_name": "bench", "tasks": [{"task": "echo", "text": "a"}, {"task": "echo", "text": "b"}]}
        ms = []
        with httpx.Client(base_url=self.status()["url"], timeout=30.0) as http:
            for _ in range(count):
                began = time.perf_counter()
                answer = http.post("/tools/execute", json={"tool": "submit_workflow", "args": args})
                ms.append((time.perf_counter() - began) * 1000)
                if answer.status_code != 200 or "workflow_id" not in answer.json():
                    raise SystemExit(f"bench: {answer.status_code} {answer.text[:500]}")
        return ms


@contextlib.contextmanager
def greenroom(scratch: Path, store: str) -> Iterator[Greenroom]:
    """A tree of its own."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    os.environ.update({f"GREENROOM_{key}": value for key, value in SETTINGS.items()})
    os.environ["GREENROOM_P2P__TASK_QUEUE__STORE"] = store
    tree = Greenroom(home / "data")
    command = [str(GREENROOM), "up", "--port", "0", "--data-dir", str(tree.data_dir)]
    with Program(command, on=cores(), log=home / "log", cwd=home) as running:
        end = time.monotonic() + 30
        wanted = {"task_queue", "workflow_scheduler", "task_worker", "gateway", "router"}
        while not wanted <= {actor["name"] for actor in tree.status()["actors"] if actor["state"] == "ready"}:
            if running.ended or time.monotonic() > end:
                raise SystemExit(f"bench: the tree did not become ready:\n{running.tail()}")
            time.sleep(0.1)
        yield tree


def visit(name: str, number: int, options: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """All that is measured of one of them in one round."""
    if name == PEER:
        python = str(peers.ensure(peers.WORKFLOW_PINS))
        for shape, forms in SHAPES.items():
            for form in forms:
                file = scratch / f"{number}-{form}.sqlite"
                (took,) = told([python, str(DBOS), str(file), form, str(options.steps), "1"])["seconds"]
                yield {"shape": shape, "form": form, "seconds": took}
        return
    with greenroom(scratch, OURS[name]) as tree:
        tree.load("wide", WARM_STEPS, 1)
        for shape in (*SHAPES, "loop"):
            (took,) = tree.load(shape, options.steps, 1)["seconds"]
            yield {"shape": shape, "form": shape, "seconds": took}
        yield {"shape": "submit", "form": "scheduler", "ms": tree.load("submit", options.submissions)["ms"]}
        yield {"shape": "submit", "form": "POST /tools/execute", "ms": tree.by_http(options.submissions)}


def measure(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """All rounds."""
    rows: list[dict[str, Any]] = []
    print(f"{'round':5}  {'what':18} {'shape':7} {'form':20} {'steps/s':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for number in range(options.rounds):
        for name in options.only:
            for row in visit(name, number, options, scratch):
                row |= {"what": name, "round": number}
                if "seconds" in row:
                    row["per_s"] = options.steps / row["seconds"]
                    shown = f"{row['per_s']:9.0f}"
                else:
                    row["p50"], row["p99"] = (statistics.quantiles(row["ms"], n=100)[at] for at in (49, 98))
                    shown = f"{'':9} {row['p50']:8.1f} {row['p99']:8.1f}"
                rows.append(row)
                print(f"{number:5}  {name:18} {row['shape']:7} {row['form']:20} {shown}", flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Medians over the rounds; the peer's best form is what ours is compared with."""

    def median(key: str, **of: str) -> dict[str, float]:
        found = [row for row in rows if all(row[name] == value for name, value in of.items())]
        return {
            form: statistics.median(row[key] for row in found if row["form"] == form)
            for form in dict.fromkeys(row["form"] for row in found)
        }

    ours = [name for name in dict.fromkeys(row["what"] for row in rows) if name != PEER]
    for shape in SHAPES:
        peer = median("per_s", what=PEER, shape=shape)
        for name in ours:
            (rate,) = median("per_s", what=name, shape=shape).values()
            ratios = ", ".join(f"{rate / other:.1f}x {PEER} {form} ({other:.0f})" for form, other in peer.items())
            yield f"{shape:6} {name:18} {rate:7.0f} steps/s  {ratios}"
    for name in ours:
        chain = next(iter(median("seconds", what=name, shape="chain").values()))
        loop = next(iter(median("seconds", what=name, shape="loop").values()))
        steps = round(next(row["per_s"] * row["seconds"] for row in rows if row["what"] == name))
        yield (
            f"{name}: a step of a chain takes {chain / steps * 1000:.2f} ms, a call in a loop "
            f"{loop / steps * 1000:.2f} ms: {(chain - loop) / steps * 1000:.2f} ms are the workflow's"
        )
        for form, p50 in median("p50", what=name, shape="submit").items():
            p99 = median("p99", what=name, shape="submit")[form]
            yield f"{name}: a submission by {form} is answered after {p50:.1f} ms (p99 {p99:.1f})"


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--submissions", type=int, default=200)
    names = [*OURS, PEER]
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help=", ".join(names))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped before the end; nothing was written"))
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-", ignore_cleanup_errors=True) as scratch:
        rows = measure(options, Path(scratch))
    print("\n".join(summary(rows)))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"workflow-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    versions = peers.versions(peers.ensure(peers.WORKFLOW_PINS), "dbos", "SQLAlchemy")
    report = {"options": {key: str(value) for key, value in vars(options).items()}, "peers": versions, "rows": rows}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
