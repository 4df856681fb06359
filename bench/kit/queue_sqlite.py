# SPDX-License-Identifier: AGPL-3.0-or-later
"""A queue as one table of SQLite (WAL, synchronous FULL), used in the client's own process: cycles of enqueue, claim
and complete, each step a transaction of its own.

Usage: `python -m kit.queue_sqlite FILE IN_FLIGHT SECONDS`. Prints JSON. SQLite has one writer, so that the threads take
turns on one connection; that is the fastest way for many of them.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
import uuid
from pathlib import Path

from kit.queue_greenroom import PAYLOAD, RESULT, TYPE, WARM_S

SCHEMA = """
CREATE TABLE task (id TEXT PRIMARY KEY, type TEXT, state TEXT, payload TEXT, result TEXT, order_key REAL,
                   token INTEGER DEFAULT 0, worker TEXT, lease_until REAL) WITHOUT ROWID;
CREATE INDEX ready ON task (type, order_key) WHERE state = 'ready';
"""
CLAIM = """
UPDATE task SET state = 'leased', token = token + 1, worker = ?, lease_until = ?
WHERE id = (SELECT id FROM task WHERE state = 'ready' AND type = ? ORDER BY order_key LIMIT 1) RETURNING id, token
"""


class Table:
    """The queue."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)

    def cycle(self, worker: str) -> None:
        """One cycle."""
        now = time.time()
        with self._lock:
            insert = "INSERT INTO task (id, type, state, payload, order_key) VALUES (?, ?, 'ready', ?, ?)"
            self._db.execute(insert, (uuid.uuid4().hex, TYPE, PAYLOAD, now))
        with self._lock:
            found = self._db.execute(CLAIM, (worker, now + 300, TYPE)).fetchall()
        for task_id, token in found:
            with self._lock:
                done = "UPDATE task SET state = 'completed', result = ? WHERE id = ? AND token = ?"
                self._db.execute(done, (RESULT, task_id, token))


def main() -> None:
    """See the module's text."""
    table, in_flight, seconds = Table(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3])
    for span in (WARM_S, seconds):
        cycle_ms: list[float] = []
        end = time.perf_counter() + span

        def run(worker: str, end: float = end, cycle_ms: list[float] = cycle_ms) -> None:
            while (began := time.perf_counter()) < end:
                table.cycle(worker)
                cycle_ms.append((time.perf_counter() - began) * 1000)

        threads = [threading.Thread(target=run, args=(f"bench-{number}",)) for number in range(in_flight)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
    json.dump({"cycles_per_s": len(cycle_ms) / took, "cycle_ms": cycle_ms}, sys.stdout)


if __name__ == "__main__":
    main()
