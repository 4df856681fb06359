# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process that writes a log of the task queue, says on its output what it does, and is killed.

python task_log_child.py churn KIND PATH     facts, rotations and checkpoints without end
python task_log_child.py torn KIND PATH      some groups, one more that nobody was told of, then SIGKILL by itself
python task_log_child.py rotation KIND PATH  the same with a rotation of some megabytes
python task_log_child.py interrupted KIND PATH  SIGKILL while DuckDB has a second WAL, beside a checkpoint
python task_log_child.py few KIND PATH       a few groups and a checkpoint between them
python task_log_child.py full KIND PATH      groups until no file may grow any more
python task_log_child.py hold KIND PATH      one group, then nothing
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import threading
from pathlib import Path

from actors.errors import UnavailableError
from actors.p2p.task_queue.duckdb_log import DuckDBLog
from actors.p2p.task_queue.sqlite_log import SQLiteLog

KINDS = {"duckdb": DuckDBLog, "sqlite": SQLiteLog}
WAL = {"duckdb": ".wal", "sqlite": "-wal"}
FACT, TOTAL = 1, 2
ATTEMPTS = 6
GROUPS = 20
"""That `torn` was told to be stored."""


def fact(number):
    """The event with this number: of a length and a content that follow from it."""
    text = hashlib.sha256(str(number).encode()).hexdigest()
    return [FACT, number, text * (number % 5 + 1)]


def read(groups):
    """The number of the last fact. Raises AssertionError where one is missing, changed, or was never written."""
    last = None
    for _, events in groups:
        for event in events:
            if event[0] == TOTAL:
                assert last is None or event[1] == last, f"{event[1]} were carried, {last} were there"
                last = event[1]
            else:
                assert event == fact(event[1]), event
                assert event[1] == (last or 0) + 1, f"after {last} comes {event[1]}"
                last = event[1]
    return last or 0


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def churn(kind, path):
    """Says `open N REPAIRS`, then `try N` before and `done N` after each group, `rotate`, `rotated`, `checkpoint`,
    `checkpointed`."""
    log = KINDS[kind](path, segment_bytes=64 << 10, checkpoint_bytes=32 << 10)
    opened = log.open()
    last = read(opened.groups)
    say("open", last, *opened.repairs)
    rng = random.Random()
    wanted = threading.Semaphore(0)

    def checkpoints():
        while True:
            wanted.acquire()
            say("checkpoint")
            log.checkpoint()
            say("checkpointed")
            busy.clear()

    busy = threading.Event()
    threading.Thread(target=checkpoints, daemon=True).start()
    while True:
        n = rng.choice([1, 1, 3, 10, 40])
        say("try", last + n)
        log.append([fact(number) for number in range(last + 1, last + n + 1)])
        last += n
        say("done", last)
        if log.rotation_due():
            say("rotate")
            log.rotate([[[TOTAL, last]]])
            say("rotated")
        if log.checkpoint_due() and not busy.is_set():
            busy.set()
            wanted.release()


def prepared(kind, path):
    log = KINDS[kind](path)
    list(log.open().groups)
    for number in range(1, GROUPS // 2 + 1):
        log.append([fact(number)])
    log.checkpoint()
    for number in range(GROUPS // 2 + 1, GROUPS + 1):
        log.append([fact(number)])
    return log


def keep(path, wal, name):
    """Copies of what a crash now would leave."""
    shutil.copyfile(f"{path}.seq", f"{path}.seq.{name}")
    shutil.copyfile(wal, f"{wal}.{name}")


def torn(kind, path):
    log = prepared(kind, path)
    keep(path, f"{path}{WAL[kind]}", "before")
    log.append([fact(GROUPS + 1)])
    os.kill(os.getpid(), signal.SIGKILL)


def rotation(kind, path):
    log = prepared(kind, path)
    switch = log._switch

    def noted(*args):
        keep(path, f"{path}{WAL[kind]}", "before")
        switch(*args)

    log._switch = noted
    log.rotate([[[TOTAL, GROUPS]], *([[TOTAL, GROUPS, str(number) + "y" * 500_000]] for number in range(8))])
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted(kind, path):
    """Its exit code is 3 when the moment was not met. Says how many facts are there with the last group, which nobody
    was told of, and without it."""
    log = KINDS[kind](path)
    list(log.open().groups)
    last = 0

    def append(n):
        nonlocal last
        log.append([fact(number) for number in range(last + 1, last + n + 1)])
        last += n

    second = Path(f"{path}.wal.checkpoint")
    for _ in range(ATTEMPTS):
        for _ in range(20):
            append(1000)
        shutil.copyfile(path, f"{path}.early")
        checkpoint = threading.Thread(target=log.checkpoint)
        checkpoint.start()
        while checkpoint.is_alive():
            shutil.copyfile(f"{path}.seq", f"{path}.seq.before")
            append(1)
            if second.exists() and second.stat().st_size > 100:
                say("facts", last - 1, last)
                os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.join()
    sys.exit(3)


def few(kind, path):
    log = KINDS[kind](path)
    list(log.open().groups)
    for number in range(1, 7):
        say("try", number)
        log.append([fact(number)])
        say("done", number)
        if number == 3:
            log.checkpoint()


def full(kind, path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = KINDS[kind](path)
    list(log.open().groups)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for number in range(1, 10_000):
        say("try", number)
        try:
            log.append([fact(number)])
        except Exception:
            try:
                log.append([fact(number)])
            except UnavailableError:
                say("failed", number)
            os._exit(0)
        say("done", number)


def hold(kind, path):
    log = KINDS[kind](path)
    say("open", read(log.open().groups))
    log.append([fact(1)])
    say("done", 1)
    signal.pause()


COMMANDS = {
    "churn": churn,
    "torn": torn,
    "rotation": rotation,
    "interrupted": interrupted,
    "few": few,
    "full": full,
    "hold": hold,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
