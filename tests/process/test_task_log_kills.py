# SPDX-License-Identifier: AGPL-3.0-or-later
"""A log of the task queue in a process that is killed at random moments: what was stored is there, and nothing else.

GREENROOM_LOG_KILLS sets how often (20), GREENROOM_LOG_SEED what is drawn.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import subprocess
import sys
import time

import pytest
import task_log_child
from task_log_child import KINDS, read

from actors.errors import UnavailableError

pytestmark = pytest.mark.process

KILLS = int(os.environ.get("GREENROOM_LOG_KILLS", "20"))
SEED = os.environ.get("GREENROOM_LOG_SEED", "")
PATIENCE_S = 60
STEPS = (("rotate", "rotated"), ("checkpoint", "checkpointed"))


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


class Child:
    """One life, and what it said."""

    def __init__(self, what, kind, path):
        command = [sys.executable, "-P", task_log_child.__file__, what, kind, str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines = []
        self._rest = b""

    def read_until(self, word, by):
        """Whether it said this by then (by the monotonic clock)."""
        while (left := by - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    return False
                *lines, self._rest = (self._rest + data).split(b"\n")
                new = [line.decode().split() for line in lines]
                self.lines += new
                if any(line[0] == word for line in new):
                    return True
        return False

    def kill(self):
        """End it now; the rest of what it said; what it wrote to its error output."""
        self.process.kill()
        out, err = self.process.communicate(timeout=PATIENCE_S)
        self.lines += [line.decode().split() for line in (self._rest + out).split(b"\n")[:-1]]
        return err.decode()

    def last(self, word):
        return max((int(line[1]) for line in self.lines if line[0] == word), default=0)


def test_nothing_acknowledged_is_lost_and_nothing_is_made_up(kind, tmp_path):
    seed = SEED or str(random.randrange(10**9))
    print(f"GREENROOM_LOG_SEED={seed}")
    rng = random.Random(seed)
    path = tmp_path / "log.db"
    done = tried = facts = rotations = checkpoints = inside = 0
    for _ in range(KILLS):
        child = Child("churn", kind, path)
        if rng.random() < 0.1:
            # While it opens.
            child.read_until("never", time.monotonic() + rng.uniform(0.1, 0.4))
        else:
            assert child.read_until("open", time.monotonic() + PATIENCE_S), child.kill()
            moment = rng.choice(["never", "rotate", "checkpoint"])
            child.read_until(moment, time.monotonic() + rng.uniform(0.05, 0.6))
            time.sleep(rng.choice([0, rng.uniform(0, 0.02)]))
        trouble = child.kill()
        assert trouble == ""
        for line in child.lines:
            if line[0] == "open":
                assert line[2:] == [], "a kill tears nothing"
                assert int(line[1]) in (done, tried)
                done = tried = int(line[1])
        before = done
        done, tried = max(done, child.last("done")), max(tried, child.last("try"))
        facts += done - before
        words = [line[0] for line in child.lines]
        rotations += words.count("rotated")
        checkpoints += words.count("checkpointed")
        inside += words.count("rotate") > words.count("rotated") or words.count("checkpoint") > words.count(
            "checkpointed"
        )
    log = KINDS[kind](path)
    assert read(log.open().groups) in (done, tried)
    log.close()
    print(f"{kind}: {KILLS} kills, {inside} inside; {facts} facts, {rotations} rotations, {checkpoints} checkpoints")
    assert facts > 0


def test_a_second_process_is_told_who_has_the_log(kind, tmp_path):
    path = tmp_path / "log.db"
    child = Child("hold", kind, path)
    assert child.read_until("done", time.monotonic() + PATIENCE_S), child.kill()
    with pytest.raises(UnavailableError, match=rf"in use by pid {child.process.pid};"):
        KINDS[kind](path).open()
    assert child.process.poll() is None
    assert child.kill() == ""
    log = KINDS[kind](path)
    assert read(log.open().groups) == 1
    log.close()


def test_another_program_that_has_the_duckdb_file_is_named(tmp_path):
    path = tmp_path / "log.db"
    code = f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', 0, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open 0\n"
        with pytest.raises(UnavailableError, match=rf"in use by pid {other.pid};"):
            KINDS["duckdb"](path).open()
        other.kill()


def test_a_write_that_fails_is_not_acknowledged_and_ends_the_log(kind, tmp_path):
    path = tmp_path / "log.db"
    child = Child("full", kind, path)
    assert child.read_until("failed", time.monotonic() + PATIENCE_S), child.kill()
    child.kill()
    log = KINDS[kind](path)
    assert read(log.open().groups) in (child.last("done"), child.last("try"))
    log.append([task_log_child.fact(log.sizes()["groups"] + 1)])
    log.close()


STRACE = shutil.which("strace")


@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_a_group_and_the_name_of_its_file_are_synced_before_it_is_acknowledged(kind, tmp_path):
    path = tmp_path / "log.db"
    trace = tmp_path / "trace"
    command = [sys.executable, "-P", task_log_child.__file__, "few", kind, str(path)]
    calls = "trace=write,pwrite64,writev,fsync,fdatasync"
    ran = subprocess.run(
        [STRACE, "-f", "-y", "-s", "20", "-e", calls, "-o", str(trace), *command],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if b"ptrace" in ran.stderr.lower():
        pytest.skip("tracing is not allowed here")
    assert ran.returncode == 0, ran.stderr
    wal = f"{path}{task_log_child.WAL[kind]}>"
    opening, *steps = trace.read_text().split('"try ')
    assert len(steps) == 6
    for number, step in enumerate(steps, 1):
        written, synced, _ = moments(step[: step.index('"done ')], wal, tmp_path)
        assert 0 <= written < synced, f"group {number} was written, then synced"
    if kind == "duckdb":
        # SQLite keeps its WAL, and syncs the directory itself when it makes it.
        for part in (opening, steps[3]):
            written, _, named = moments(part, wal, tmp_path)
            assert 0 <= written < named, "the new WAL has a durable name"


def moments(trace, wal, directory):
    """The last write to the WAL, the last sync of it, the last sync of its directory; -1 = none."""
    calls = trace.splitlines()
    written = [at for at, call in enumerate(calls) if "write" in call and wal in call]
    synced = [at for at, call in enumerate(calls) if "sync(" in call and wal in call and call.endswith("= 0")]
    named = [at for at, call in enumerate(calls) if "fsync(" in call and f"<{directory}>" in call]
    return [max(some, default=-1) for some in (written, synced, named)]


def test_duckdb_is_not_loaded_before_a_log_is_opened():
    """The fork server loads modules of actors: what is forked later must not have DuckDB's threads."""
    code = (
        "import sys, actors.p2p.task_queue.duckdb_log, actors.p2p.task_queue.sqlite_log, actors.p2p.task_queue.history;"
        "print([name for name in sys.modules if 'duckdb' in name and 'actors' not in name])"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, timeout=PATIENCE_S, check=True)
    assert ran.stdout == b"[]\n"


def test_living_tasks_that_need_more_memory_than_was_given_are_carried(tmp_path):
    """Else the queue would end with each rotation, and again in its next life."""
    path = tmp_path / "log.db"
    for last in (1, 2):
        log = KINDS["duckdb"](path, memory_bytes=16 << 20)
        groups = list(log.open().groups)
        assert last == 1 or len(groups) == 51
        log.append([task_log_child.fact(last)])
        log.rotate([[task_log_child.TOTAL, last, "x" * 1_000_000]] for _ in range(50))
        log.checkpoint()
        log.close()
