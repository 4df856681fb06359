# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tree under fire: how it is started, and what is seen of it from outside."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from running import Greenroom, started, wait_until

from fuzz.rules import Actor, Snapshot

TOOLS = Path(__file__).resolve().parent.parent / "fuzz_tools"
MARK = "a-value-of-the-environment"
SETTINGS = {
    "GREENROOM_MCP__PAGE_SIZE": "5",
    "GREENROOM_SERVER__IDLE_TIMEOUT_S": "5",
    "GREENROOM_SERVER__READ_TIMEOUT_S": "2",
    "GREENROOM_SESSIONS__MAX_REMEMBERED": "100",
    "GREENROOM_SESSIONS__MAX_ENDED": "100",
    "GREENROOM_STREAMS__KEEP_S": "5",
    "GREENROOM_P2P__TASK_QUEUE__CHECKPOINT_BYTES": "2000000",
    "GREENROOM_TOOLS__ENABLED_CATEGORIES": "diagnostic_tools,text_tools,file_tools,dataset_tools,fuzz_tools",
    "GREENROOM_SERVER__LOG_LEVEL": "WARNING",
    "GREENROOM_SERVER__LOG_FORMAT": "json",
    "SOME_SECRET": MARK,
}
"""Short pages, so that there are cursors; no tool that reaches the network. What is remembered on purpose, up to a
bound, is full soon: what grows after that is a leak."""


@contextmanager
def tree(home: Path) -> Iterator[Greenroom]:
    """A tree of the run's own, with all its spares ready."""
    with started(home / "data", "--tools", str(TOOLS), env=SETTINGS) as greenroom:
        rests = {"ready", "spare", "off"}
        wait_until(lambda: {actor["state"] for actor in greenroom.actors().values()} <= rests, 30, "all spares")
        yield greenroom


def secrets(greenroom: Greenroom) -> list[bytes]:
    """What no answer may hold: keys in all their forms, places of this machine, the environment.

    The folder that tools may use is named in their errors, so that models use it: it is no secret.
    """
    run = json.loads((greenroom.data_dir / "run.json").read_bytes())
    found = [MARK.encode(), b"digest.key", b"session.key", os.fspath(Path(__file__).parents[3]).encode()]
    found += [value.encode() for name, value in run.items() if "dir" in name and isinstance(value, str)]
    for key in greenroom.data_dir.glob("*.key"):
        raw = key.read_bytes()
        found += [raw, raw.hex().encode(), base64.b64encode(raw), base64.urlsafe_b64encode(raw)]
    return found


def look(greenroom: Greenroom) -> Snapshot:
    """The tree now."""
    actors = {}
    for name, actor in greenroom.actors().items():
        pid = actor["pid"]
        try:
            rss, files = (_rss_kib(pid), _files(pid)) if pid else (0, 0)
        except FileNotFoundError:  # it died since: `rules.same_lives` sees that nobody, or somebody else, is there
            pid, rss, files = None, 0, 0
        actors[name] = Actor(pid, actor["incarnation"], actor["state"], actor["restarts"], rss, files)
    incidents = greenroom.data_dir / "incidents.jsonl"
    count = len(incidents.read_bytes().splitlines()) if incidents.exists() else 0
    metrics = httpx.get(f"{greenroom.url}/metrics", timeout=20).text
    connections, calls = (_metric(metrics, name) for name in ("mcp_http_connections_open", "mcp_calls_in_flight"))
    return Snapshot(actors, count, connections, calls, _faults(greenroom))


def _faults(greenroom: Greenroom) -> list[str]:
    """Lines of the log that a bad request must not cause: errors, and anything with a stack."""
    found = []
    with (greenroom.data_dir.parent / f"{greenroom.data_dir.name}.log").open(errors="replace") as log:
        for line in log:
            try:
                event = json.loads(line)
            except ValueError:
                found.append(line)
                continue
            if event.get("level") in {"ERROR", "CRITICAL"} and not _expected(event):
                found.append(line)
    return found


def _expected(event: dict) -> bool:
    """A call that failed as it should."""
    if event.get("event") == "tool execution":
        return event.get("error") != "INTERNAL"
    return event.get("event") == "tool failed" and "it failed, as it should" in event.get("traceback", "")


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    return 0


def _files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _metric(text: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
