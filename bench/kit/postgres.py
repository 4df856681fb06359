# SPDX-License-Identifier: AGPL-3.0-or-later
"""A PostgreSQL server of the benchmark's own (Debian package `postgresql`), on a socket, and a queue as one of its
tables: `FOR UPDATE SKIP LOCKED`, loaded by its own pgbench, so that no Python stands between.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kit.queue_greenroom import PAYLOAD, RESULT

SCHEMA = """
CREATE TABLE task (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, type text, state text, payload text, result text,
                   order_key double precision, token bigint DEFAULT 0, worker text, lease_until timestamptz)
                  WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
CREATE INDEX ready ON task (type, order_key, id) WHERE state = 'ready';
"""
CYCLE = f"""
INSERT INTO task (type, state, payload, order_key)
    VALUES ('bench', 'ready', '{PAYLOAD}', extract(epoch from clock_timestamp()));
WITH next AS (SELECT id FROM task WHERE state = 'ready' AND type = 'bench' ORDER BY order_key, id
              FOR UPDATE SKIP LOCKED LIMIT 1),
     taken AS (UPDATE task SET state = 'leased', token = task.token + 1, worker = 'bench',
               lease_until = clock_timestamp() + interval '300 s' FROM next WHERE task.id = next.id
               RETURNING task.id, task.token)
    SELECT coalesce(max(id), 0) AS id, coalesce(max(token), 0) AS token FROM taken \\gset
UPDATE task SET state = 'completed', result = '{RESULT}' WHERE id = :id AND token = :token;
"""
_LIMIT_S = 60


class MissingError(Exception):
    """There is no PostgreSQL on this machine."""


def programs() -> Path:
    """The folder with initdb, pg_ctl and pgbench. Raises `MissingError`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise MissingError("PostgreSQL is not installed: apt-get install -y postgresql")
    return found[-1].parent


class Postgres:
    """A running server."""

    def __init__(self, home: Path, user: str) -> None:
        self.home = home
        self._user = user
        self._bin = programs()

    def run(self, program: str, *arguments: str, limit_s: float = _LIMIT_S) -> str:
        """Run one of its programs as its user; what it printed. SystemExit with its words when it fails."""
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user if os.geteuid() == 0 else None,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )
        if done.returncode:
            raise SystemExit(f"bench: {program} failed: {(done.stderr or done.stdout)[-2000:]}")
        return done.stdout

    def sql(self, text: str) -> str:
        """Run SQL; what it answered."""
        return self.run(
            "psql",
            "-h",
            str(self.home),
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            text,
        )

    def cycles(self, in_flight: int, seconds: float) -> dict[str, object]:
        """So many cycles at once, for so long."""
        for log in self.home.glob("times.*"):
            log.unlink()
        load = [
            *("-h", str(self.home), "-U", "postgres", "-d", "postgres", "-n", "-M", "prepared", "-f", "cycle.sql"),
            *("-c", str(in_flight), "-j", str(min(2, in_flight)), "-T", str(max(1, round(seconds)))),
            *("-l", "--log-prefix=times"),
        ]
        self.run("pgbench", *load, limit_s=seconds + _LIMIT_S)
        lines = [line.split() for log in self.home.glob("times.*") for line in log.open()]
        cycle_ms = [float(fields[2]) / 1000 for fields in lines]
        return {"cycles_per_s": len(cycle_ms) / max(1, round(seconds)), "cycle_ms": cycle_ms}


@contextlib.contextmanager
def started(scratch: Path) -> Iterator[Postgres]:
    """A new server that lives in `scratch`. It refuses to run as root, so that it gets the package's own user then."""
    home = scratch / "postgres"
    home.mkdir()
    user = "postgres"
    if os.geteuid() == 0:
        os.chmod(scratch, 0o755)  # noqa: PTH101
        os.chown(home, pwd.getpwnam(user).pw_uid, -1)
    server = Postgres(home, user)
    data = str(home / "data")
    server.run("initdb", "-D", data, "-A", "trust", "-U", user)
    settings = f"-c listen_addresses='' -c unix_socket_directories='{home}' -c max_connections=300"
    server.run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", settings, "start")
    try:
        server.sql(SCHEMA)
        (home / "cycle.sql").write_text(CYCLE)
        yield server
    finally:
        server.run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
