# SPDX-License-Identifier: AGPL-3.0-or-later
"""Kill -9 of the root: every process that it started is gone within a second, whatever it was doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from spawning import SUPPORT, gone

from supervisor.orphan import EXIT_ORPHANED, LIFELINE, Lifeline

pytestmark = pytest.mark.process

WITHIN_S = 1.0
KEY = "k" * 64
GRANDCHILD = "import subprocess\ngrandchild = subprocess.Popen({command!r})\nsay(f'grandchild {{grandchild.pid}}')\n"

BUSY = {
    "idle": "await trio.sleep_forever()",
    "a loop": "while True: pass",
    "a sleep that blocks the loop": "import time; time.sleep(600)",
    "a C call that keeps the lock": "import re; re.match('(a+)+b', 'a' * 100)",
    "a C call in a thread": "import re; await trio.to_thread.run_sync(re.match, '(a+)+b', 'a' * 100)",
    "all signals blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "stopped": "os.kill(os.getpid(), 19)",
    "its way out": "try: await trio.sleep_forever()\nfinally:\n    while True: pass",
}


@contextmanager
def root(*codes: str):
    """A root of its own process with one child for each code. Gives it, and a way to read what it and they say."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "small_root", *codes],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": SUPPORT},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_numbers(process: subprocess.Popen, name: str, count: int) -> list[int]:
    """The numbers that follow `name` in what it says, until there are so many."""
    found = []
    while len(found) < count:
        line = process.stdout.readline()
        assert line, "the root ended"
        if line.startswith(name):
            found.append(int(line.removeprefix(name)))
    return found


def assert_gone(*pids: int) -> None:
    """They are gone in time; if not, they are ended here."""
    deadline = time.monotonic() + WITHIN_S
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.005)
    left = [pid for pid in pids if not gone(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)
def test_a_child_ends_with_its_root(busy):
    with root("say(f'up {os.getpid()}')\n" + busy) as process:
        children = read_numbers(process, "up ", 1)
        time.sleep(0.05)
        process.kill()
        process.wait(10)
        assert_gone(*children)


def test_all_children_end_with_their_root():
    codes = ["say(f'up {os.getpid()}')\n" + busy for busy in BUSY.values()]
    with root(*codes) as process:
        children = read_numbers(process, "up ", len(codes))
        process.kill()
        process.wait(10)
        assert_gone(*children)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_a_child_in_boot_ends_with_its_root(stopped):
    with root("await trio.sleep_forever()") as process:
        (child,) = read_numbers(process, "spawned ", 1)
        if stopped:
            os.kill(child, signal.SIGSTOP)
        process.kill()
        process.wait(10)
        assert_gone(child)


@pytest.mark.parametrize(
    "command",
    [["sleep", "600"], ["sh", "-c", "trap '' TERM HUP INT; while true; do sleep 600; done"]],
    ids=["plain", "deaf with a child of its own"],
)
def test_what_a_child_started_ends_with_the_root(command):
    code = GRANDCHILD.format(command=command) + "await trio.sleep_forever()"
    with root(code) as process:
        (child,) = read_numbers(process, "spawned ", 1)
        (grandchild,) = read_numbers(process, "grandchild ", 1)
        process.kill()
        process.wait(10)
        assert_gone(child, grandchild)


def test_a_root_that_died_before_its_child_was_tied_is_noticed_by_the_child():
    lifeline = Lifeline(KEY)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "supervisor.child"],
        env=os.environ | {LIFELINE: str(lifeline.fd)},
        pass_fds=[lifeline.fd],
        start_new_session=True,
    )
    lifeline.close()
    assert child.wait(10) == EXIT_ORPHANED


def test_a_child_ties_itself_in_case_its_root_dies_before_it_could():
    lifeline = Lifeline(KEY)
    code = "from supervisor.orphan import tie_to_root\nprint(tie_to_root(), flush=True)\nwhile True: pass"
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {LIFELINE: str(lifeline.fd)},
        stdout=subprocess.PIPE,
        pass_fds=[lifeline.fd],
        start_new_session=True,
    )
    with child:
        try:
            assert child.stdout.readline().decode() == KEY + "\n"
            lifeline.close()
            assert child.wait(WITHIN_S) == -signal.SIGKILL
        finally:
            child.kill()


def test_a_child_without_a_root_is_refused():
    child = subprocess.run([sys.executable, "-P", "-m", "supervisor.child"], capture_output=True, timeout=10)
    assert child.returncode == 1
    assert LIFELINE.encode() in child.stderr


# --- the lifeline alone ----------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper():
    """A process with a lifeline of its own, leader of its group."""
    lifeline = Lifeline(KEY)
    process = subprocess.Popen(["sleep", "600"], pass_fds=[lifeline.fd], start_new_session=True)
    lifeline.tie(process.pid)
    yield process, lifeline
    process.kill()
    process.wait(10)
    lifeline.close()


def test_cutting_one_lifeline_ends_one_group(sleeper):
    process, lifeline = sleeper
    other_line = Lifeline(KEY)
    other = subprocess.Popen(["sleep", "600"], pass_fds=[other_line.fd], start_new_session=True)
    other_line.tie(other.pid)
    lifeline.cut()
    lifeline.cut()
    assert process.wait(WITHIN_S) == -signal.SIGKILL
    assert other.poll() is None
    other_line.close()
    assert other.wait(WITHIN_S) == -signal.SIGKILL


def test_a_group_is_ended_after_its_leader_was_reaped():
    lifeline = Lifeline(KEY)
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!"], stdout=subprocess.PIPE, pass_fds=[lifeline.fd], start_new_session=True
    )
    lifeline.tie(leader.pid)
    member = int(leader.stdout.readline())
    leader.stdout.close()
    assert leader.wait(10) == 0
    assert not gone(member)
    lifeline.close()
    assert_gone(member)


def test_a_child_that_reads_its_lifeline_is_not_hurt(sleeper):
    process, lifeline = sleeper
    assert os.read(lifeline.fd, 100) == KEY.encode()
    time.sleep(0.05)
    assert process.poll() is None
