# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the load runs of `bench/gateway.py` saw, their medians and ratios, and all that as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One load run."""

    case: str
    arrangement: str
    round: int
    server: str
    connections: int
    bytes: int
    """Of one answer, head included."""
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

    case: str
    arrangement: str
    round: int
    server: str
    first_answer_s: float
    """From the start of the program to its first right answer."""
    pss_mib: float
    """Memory of the whole tree after all load runs."""
    processes: int


def medians(all_rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry for each arrangement, number of connections and server."""
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys((row.arrangement, row.connections, row.server, row.case) for row in all_rows):
        rows = [row for row in all_rows if (row.arrangement, row.connections, row.server, row.case) == key]
        entry: dict[str, Any] = {"arrangement": key[0], "connections": key[1], "server": key[2], "case": key[3]}
        entry["bytes"] = rows[0].bytes
        for field in ("calls_per_s", "p50_ms", "p99_ms", "cpu_us_per_call"):
            entry[field] = statistics.median(getattr(row, field) for row in rows)
        entry["slowest"], entry["fastest"] = min(r.calls_per_s for r in rows), max(r.calls_per_s for r in rows)
        entry["errors"] = sum(row.errors for row in rows)
        entry["size_wrong"] = sum(row.size_wrong for row in rows)
        found.append(entry)
    return found


def ratios(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Greenroom against each peer: above 1 is better for Greenroom in every column."""
    at = {(entry["case"], entry["arrangement"], entry["connections"], entry["server"]): entry for entry in table}
    found = []
    for (case, arrangement, connections, server), peer in at.items():
        ours = at.get((case, arrangement, connections, "greenroom"))
        if ours is None or server == "greenroom":
            continue
        entry = {"case": case, "arrangement": arrangement, "connections": connections, "against": server}
        entry["calls"] = round(ours["calls_per_s"] / max(peer["calls_per_s"], 1e-9), 2)
        for field in ("p50_ms", "p99_ms", "cpu_us_per_call"):
            entry[field.split("_")[0]] = round(peer[field] / max(ours[field], 1e-9), 2)
        found.append(entry)
    return found


def report(rows: Sequence[Row], visits: Sequence[Visit], rounds: int) -> Iterator[str]:
    """The run as text, line by line."""
    names = {"shared": "server and wrk share two cores", "split": "server's tree on one core, wrk on the other"}
    table = medians(rows)
    for case, arrangement in dict.fromkeys((entry["case"], entry["arrangement"]) for entry in table):
        yield f"\n{case}, {arrangement}: {names[arrangement]} (medians of {rounds} rounds)"
        yield (
            f"{'server':>10} {'conns':>5} {'calls/s':>9} {'range':>15} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/call':>11} "
            f"{'bytes':>7} {'bad':>5}"
        )
        for e in (entry for entry in table if (entry["case"], entry["arrangement"]) == (case, arrangement)):
            spread = f"{e['slowest']:.0f}-{e['fastest']:.0f}"
            bad = f"{e['errors']}{'!' if e['size_wrong'] else ''}"
            yield (
                f"{e['server']:>10} {e['connections']:>5} {e['calls_per_s']:>9.0f} {spread:>15} {e['p50_ms']:>8.2f} "
                f"{e['p99_ms']:>8.2f} {e['cpu_us_per_call']:>11.0f} {e['bytes']:>7} {bad:>5}"
            )
        yield f"{'server':>10} {'first answer s':>15} {'PSS MiB':>8} {'processes':>9}"
        for name in dict.fromkeys(v.server for v in visits):
            seen = [v for v in visits if (v.case, v.arrangement, v.server) == (case, arrangement, name)]
            answer, pss, count = (
                statistics.median(getattr(v, f) for v in seen) for f in ("first_answer_s", "pss_mib", "processes")
            )
            yield f"{name:>10} {answer:>15.2f} {pss:>8.0f} {count:>9.0f}"
    compared = ratios(table)
    if compared:
        yield "\nGreenroom against the peers (above 1: Greenroom is better)"
        yield f"{'':>7} {'':>10} {'peer':>8} {'conns':>5} {'calls/s':>8} {'p50':>6} {'p99':>6} {'CPU':>6}"
        for r in compared:
            yield (
                f"{r['case']:>7} {r['arrangement']:>10} {r['against']:>8} {r['connections']:>5} {r['calls']:>7.2f}x "
                f"{r['p50']:>5.2f}x {r['p99']:>5.2f}x {r['cpu']:>5.2f}x"
            )
    if any(entry["errors"] or entry["size_wrong"] for entry in table):
        yield "\nSome answers were wrong (column bad; !: not of the size of the checked one): such rows do not count."
