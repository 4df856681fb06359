# SPDX-License-Identifier: AGPL-3.0-or-later
"""A log of the task queue in a process that is killed at random moments: what was stored is there, and nothing else.

GREENROOM_LOG_KILLS sets how often (20), GREENROOM_LOG_SEED what is drawn.
"""

from __future__ import annotations

import os
import random
import select
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
