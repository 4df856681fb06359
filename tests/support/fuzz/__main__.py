# SPDX-License-Identifier: AGPL-3.0-or-later
"""`./dev fuzz`: bad requests against a tree of its own.

Usage: `./dev fuzz [--requests N] [--seed S] [--connections N] [--replay FILE] [--json]`. Exit code 1 when a rule broke:
each violation is printed with a file that `--replay` plays on a fresh tree.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import msgspec
import trio

from fuzz import rules, tree
from fuzz.driver import Driver, Violation, read, smallest, write
from fuzz.rules import Snapshot
from fuzz.scripts import script

EARLY = 0.2
"""The share of a run after which memory is read first."""
LOOK_EVERY = 25_000
"""Requests after which memory is read and told, so that its course shows whether it levels off."""
SETTLE_S = 12.0
"""Time for connections and calls to end: longer than every time-out of the tree's settings."""
FOUND = Path(".cache") / "fuzz"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    seed: int
    requests: int
    seconds: float
    answers: dict[str, int]
    unanswered: int
    right_requests: int
    private_kib: dict[str, list[int]]
    """Actor -> its own memory before the run, at 20 % of it, and after it."""
    violations: list[str]


async def fuzz(greenroom, *, seed: int, requests: int, connections: int, say=lambda _: None) -> Report:
    """A whole run against a running tree."""
    driver = Driver(greenroom.url, tree.secrets(greenroom), say)
    look = partial(trio.to_thread.run_sync, tree.look, greenroom)
    before = early = await look()
    began = time.monotonic()
    early_at = int(requests * EARLY)
    for stop in sorted({*range(LOOK_EVERY, requests, LOOK_EVERY), early_at, requests}):
        done = driver.sent
        await driver.run(lambda number, done=done: script(seed, done + number), stop, connections)
        now = await look()
        early = now if stop == early_at else early
        sizes = (f"{name} {actor.rss_kib / 1024:.1f}" for name, actor in now.actors.items() if actor.pid)
        say(f"fuzz: {driver.sent} requests; MiB of their own: {', '.join(sizes)}")
    seconds = time.monotonic() - began
    await driver.probe(None)
    late = await settled(look, before)
    broken = [*rules.same_lives(before, late), *rules.no_growth(early, late), *rules.nothing_left(before, late)]
    told = [await tell(driver, violation, seed) for violation in driver.violations[:5]] + broken
    return Report(
        seed=seed,
        requests=driver.sent,
        seconds=round(seconds, 1),
        answers={str(status): count for status, count in sorted(driver.statuses.items())},
        unanswered=driver.unanswered,
        right_requests=driver.probes,
        private_kib={
            name: [snapshot.actors[name].rss_kib for snapshot in (before, early, late) if name in snapshot.actors]
            for name, actor in before.actors.items()
            if actor.pid
        },
        violations=told,
    )


async def settled(look, before: Snapshot) -> Snapshot:
    """The tree when all connections have ended, or had time to."""
    end = trio.current_time() + SETTLE_S
    while True:
        now = await look()
        if not list(rules.nothing_left(before, now)) or trio.current_time() > end:
            return now
        await trio.sleep(0.5)


async def tell(driver: Driver, violation: Violation, seed: int) -> str:
    """A violation in words, with the way to see it again."""
    if violation.script is None:
        return violation.what
    found = await smallest(driver, violation.script)
    path = write(found, FOUND, f"{seed}-{violation.script.number}")
    return f"{violation.what}\n    ./dev fuzz --replay {path}\n    last sent: {found.steps[-1].data[-600:]!r}"


async def replay(greenroom, path: Path) -> list[str]:
    """Play one file and look at the tree."""
    driver = Driver(greenroom.url, tree.secrets(greenroom))
    before = await trio.to_thread.run_sync(tree.look, greenroom)
    await trio.to_thread.run_sync(driver.renew)
    await driver.play(read(path))
    await driver.probe(None)
    after = await trio.to_thread.run_sync(tree.look, greenroom)
    return [violation.what for violation in driver.violations] + list(rules.same_lives(before, after))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Bad requests against a tree of its own.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None, help="repeats what was sent; default: a new one, printed")
    parser.add_argument("--connections", type=int, default=24, help="at once")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play what broke a rule again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.requests < 1 or not 1 <= options.connections <= 512:
        parser.error("--requests must be at least 1, --connections 1 to 512")
    seed = random.randrange(2**32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="greenroom-fuzz-") as home, tree.tree(Path(home)) as greenroom:
        if options.replay:
            wrong = trio.run(replay, greenroom, options.replay)
            print("\n".join(wrong) or "no rule was broken")
            return 1 if wrong else 0
        print(f"fuzz: seed {seed}", file=sys.stderr, flush=True)
        run = partial(fuzz, seed=seed, requests=options.requests, connections=options.connections)
        report = trio.run(partial(run, greenroom, say=lambda text: print(text, file=sys.stderr, flush=True)))
    if options.json:
        print(json.dumps(msgspec.to_builtins(report)))
    else:
        print(f"{report.requests} requests in {report.seconds:g} s, seed {report.seed}")
        print("answers:  " + ", ".join(f"{count} x {status}" for status, count in report.answers.items()))
        print(f"          {report.unanswered} unsound ones had none; {report.right_requests} right ones in between")
        for name, sizes in report.private_kib.items():
            print(f"memory:   {name:22} {' -> '.join(f'{size / 1024:.1f}' for size in sizes)} MiB")
        print("rules:    " + (f"{len(report.violations)} broken" if report.violations else "all hold"))
        for text in report.violations:
            print(f"  - {text}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
