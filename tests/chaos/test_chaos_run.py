# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom chaos run`: a minute of every fault, and the promises hold; and who may run it where.

`GREENROOM_CHAOS_MINUTES` sets how long (1 in the suite), `GREENROOM_TEST_SEED` repeats a run.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import subprocess

import pytest
from running import GREENROOM, started, wait_until

pytestmark = pytest.mark.chaos

MINUTES = float(os.environ.get("GREENROOM_CHAOS_MINUTES", "1"))
SEED = int(os.environ.get("GREENROOM_TEST_SEED", str(random.randrange(2**32))))
ENDS_WITHIN_S = 180
"""Besides the minutes: the system's start, the last calls, the last look, the end."""


def chaos(*arguments, minutes=MINUTES):
    """A chaos run; what it printed, and its report."""
    return subprocess.run(
        [GREENROOM, "chaos", "run", "--seed", str(SEED), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=minutes * 60 + ENDS_WITHIN_S,
    )


def test_every_promise_holds_under_every_fault():
    # It takes longer than a test usually may: no stacks of this process, please.
    faulthandler.cancel_dump_traceback_later()
    print(f"seed {SEED}, {MINUTES:g} min")
    done = chaos("--own", "--minutes", MINUTES)
    print(done.stdout, done.stderr[-3000:])
    assert done.returncode == 0
    assert "rules:  all 15 hold" in done.stdout
    assert f"greenroom chaos run --own --seed {SEED} --minutes {MINUTES:g}" in done.stdout


def test_a_tree_with_the_usual_restart_intensity_survives_a_run(tmp_path):
    """Few faults come then: so many deaths that a group gives up are no test of anything."""
    print(f"seed {SEED}")
    with started(tmp_path / "data", env={"GREENROOM_CHAOS__ENABLED": "true"}) as tree:
        done = chaos("--data-dir", tree.data_dir, "--minutes", 0.5, "--faults", "kill,os_exit,file_size", "--json")
        print(done.stdout, done.stderr[-3000:])
        report = json.loads(done.stdout)
        assert done.returncode == 0
        assert report["ok"] is True
        assert report["violations_total"] == 0
        assert report["seed"] == SEED
        assert report["faults_injected"] >= 5
        assert {row["fault"] for row in report["faults"]} == {"kill", "os_exit", "file_size"}
        assert report["calls"]["ok"] > 100
        assert report["effects"] > 100
        assert wait_until(lambda: tree.run("status", check=False).returncode == 0, 10, "the tree to be ready")
        assert "failed" not in {actor["state"] for actor in tree.actors().values()}


def test_a_tree_that_does_not_allow_it_is_left_alone(tmp_path):
    with started(tmp_path / "data") as tree:
        before = tree.pids()
        done = chaos("--data-dir", tree.data_dir, "--minutes", 0.1, "--json")
        assert done.returncode == 1
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "CHAOS_OFF"
        assert "chaos.enabled: true" in error["message"]
        assert "--own" in error["message"]
        assert before <= tree.pids()
        assert not [name for name in tree.run("tools", "list").stdout.split() if name.startswith("chaos_")]


def test_nothing_that_runs_is_exit_code_3(tmp_path):
    assert chaos("--data-dir", tmp_path / "none").returncode == 3


def test_the_death_of_the_root_is_refused_where_nobody_would_start_it_again(tmp_path):
    done = chaos("--data-dir", tmp_path / "none", "--faults", "root_death")
    assert done.returncode == 1
    assert "OWN_TREE_ONLY" in done.stderr


def test_the_faults_are_listed_with_what_is_expected():
    listed = subprocess.run([GREENROOM, "chaos", "faults"], capture_output=True, text=True, timeout=20, check=True)
    assert "SIGKILL to a random process" in listed.stdout
    assert "-> its place is taken at once" in listed.stdout
    as_json = subprocess.run(
        [GREENROOM, "chaos", "faults", "--json"], capture_output=True, text=True, timeout=20, check=True
    )
    assert {"name", "does", "expected"} <= set(json.loads(as_json.stdout)["faults"][0])
