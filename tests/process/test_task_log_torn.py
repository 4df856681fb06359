# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files that a killed process left, damaged at the end as a power cut would do: the log opens with all that was
acknowledged, or says what is wrong and leaves the evidence where it is.

GREENROOM_LOG_TORN=all cuts at every byte of the last group.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import task_log_child
from task_log_child import GROUPS, KINDS, WAL, fact, read

from actors.errors import UnavailableError

pytestmark = pytest.mark.process

ALL = os.environ.get("GREENROOM_LOG_TORN") == "all"
SEED = 7
PATIENCE_S = 60


class Left(NamedTuple):
    """What a killed process left."""

    kind: str
    directory: Path
    wal: bytes
    start: int
    """Of the last write in the WAL, which nobody was told of."""
    end: int


def left_by(what, kind, directory):
    path = directory / "log.db"
    ran = subprocess.run(
        [sys.executable, "-P", task_log_child.__file__, what, kind, str(path)], timeout=PATIENCE_S, check=False
    )
    assert ran.returncode == -signal.SIGKILL
    wal = Path(f"{path}{WAL[kind]}").read_bytes()
    kept = Path(f"{path}{WAL[kind]}.before")
    before = kept.read_bytes()
    kept.unlink()
    differs = [at for at in range(len(wal)) if at >= len(before) or wal[at] != before[at]]
    end = differs[-1] + 1
    if kind == "sqlite":
        # Its last bytes may be the ones that were there before: up to the end of the frame.
        frame = 24 + int.from_bytes(wal[8:12], "big")
        end += (32 - end) % frame
    return Left(kind, directory, wal, differs[0], end)


@pytest.fixture(scope="module", params=list(KINDS))
def left(request, tmp_path_factory):
    return left_by("torn", request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def files(left, tmp_path):
    """A copy to be damaged. The last group was not announced."""
    return copy_of(left, tmp_path, announced=False)


def copy_of(left, directory, announced):
    path = directory / "log.db"
    shutil.copyfile(left.directory / "log.db", path)
    shutil.copyfile(left.directory / ("log.db.seq" if announced else "log.db.seq.before"), f"{path}.seq")
    return path


def put(left, path, wal):
    Path(f"{path}{WAL[left.kind]}").write_bytes(wal)


def opened(left, path):
    """The number of the last fact, and what was mended."""
    log = KINDS[left.kind](path)
    try:
        found = log.open()
        return read(found.groups), found.repairs
    finally:
        log.close()


def last_or_refused(left, path):
    try:
        return opened(left, path)[0]
    except UnavailableError as error:
        if str(path) not in error.message:
            raise
        return None


def goes_on(left, path, last):
    """All that is there is still there with more behind it, after a clean end and after a kill."""
    for _ in range(2):
        log = KINDS[left.kind](path)
        assert read(log.open().groups) == last
        log.append([fact(last + 1)])
        log.append([fact(last + 2)])
        last += 2
        log.close()
    assert opened(left, path) == (last, [])


def places(left):
    """Where the last write may have been torn: at the edges of what an engine writes, and at some others."""
    if ALL:
        return range(left.start, left.end)
    edges = {left.start + n for n in (0, 1, 7, 8, 9, 15, 16, 17, 24, 25)}
    edges |= {left.end - n for n in (1, 8, 9, 16, 17, 25)}
    rng = random.Random(SEED)
    edges |= {rng.randrange(left.start, left.end) for _ in range(6)}
    return sorted(at for at in edges if left.start <= at < left.end)


def cut(left, at, rng):
    return left.wal[:at]


def zeros(left, at, rng):
    return left.wal[:at] + bytes(left.end - at) + left.wal[left.end :]


def garbage(left, at, rng):
    return left.wal[:at] + rng.randbytes(left.end - at) + left.wal[left.end :]


def flip(left, at, rng):
    return left.wal[:at] + bytes([left.wal[at] ^ 1 << rng.randrange(8)]) + left.wal[at + 1 :]


@pytest.mark.parametrize("damage", [cut, zeros, garbage, flip])
def test_a_torn_last_write_that_nobody_was_told_of(left, tmp_path, damage):
    rng = random.Random(SEED)
    repaired = 0
    for at in places(left):
        directory = tmp_path / str(at)
        directory.mkdir()
        path = copy_of(left, directory, announced=False)
        put(left, path, damage(left, at, rng))
        last, repairs = opened(left, path)
        assert last in (GROUPS, GROUPS + 1), f"byte {at} of {left.start} to {left.end}"
        repaired += bool(repairs)
        if at in (left.start, left.end - 1):
            goes_on(left, path, last)
        shutil.rmtree(directory)
    print(f"{left.kind} {damage.__name__}: {len(places(left))} places, {repaired} repairs")


@pytest.mark.parametrize("tail", [bytes(4096), b"\xff" * 4096, random.Random(SEED).randbytes(200), b"\x01"])
def test_what_is_behind_the_last_write_harms_nothing(left, files, tail):
    put(left, files, left.wal[: left.end] + tail)
    last, _ = opened(left, files)
    assert last == GROUPS + 1
    goes_on(left, files, last)


@pytest.mark.parametrize("damage", [cut, zeros, garbage, flip])
def test_a_torn_last_write_that_was_acknowledged_is_never_dropped(left, tmp_path, damage):
    path = copy_of(left, tmp_path, announced=True)
    damaged = damage(left, left.start + (left.end - left.start) // 2, random.Random(SEED))
    put(left, path, damaged)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=f"ends with group {GROUPS}, but group {GROUPS + 1} was stored"):
            opened(left, path)
    assert damaged in [file.read_bytes() for file in tmp_path.iterdir()], "the evidence is kept"


@pytest.mark.parametrize("damage", [cut, zeros, garbage, flip])
def test_damage_in_the_middle_is_refused(left, tmp_path, damage):
    rng = random.Random(SEED)
    for number, at in enumerate([0, 5, 30, 60, left.start // 3, left.start // 2, left.start - 30]):
        directory = tmp_path / str(number)
        directory.mkdir()
        path = copy_of(left, directory, announced=False)
        damaged = damage(left._replace(end=left.start) if damage is garbage else left, at, rng)
        put(left, path, damaged)
        last = last_or_refused(left, path)
        if last is None:
            assert not damaged or damaged in [file.read_bytes() for file in directory.iterdir()], "the evidence is kept"
        else:
            assert last in (GROUPS, GROUPS + 1), f"byte {at} was no data: nothing may be missing"


def test_a_torn_rotation_is_mended_though_it_is_large(left, tmp_path, tmp_path_factory):
    """More is torn than a usual group has: it was announced before it was written."""
    made = left_by("rotation", left.kind, tmp_path_factory.mktemp("rotation"))
    assert made.end - made.start > 4_000_000
    shutil.copyfile(made.directory / "log.db.seq.before", made.directory / "log.db.seq")
    rng = random.Random(SEED)
    for number, at in enumerate([made.start, made.start + 20, made.start + 1_000_003, made.end - 100, made.end - 1]):
        for damage in (cut, zeros, garbage, flip):
            directory = tmp_path / f"{number}{damage.__name__}"
            directory.mkdir()
            path = copy_of(made, directory, announced=True)
            put(made, path, damage(made, at, rng))
            last, _ = opened(made, path)
            assert last == GROUPS, f"{damage.__name__} at {at}"
            if at == made.start + 20:
                goes_on(made, path, last)
            shutil.rmtree(directory)


def test_a_damaged_file_of_the_last_number_is_told(left, tmp_path):
    path = copy_of(left, tmp_path, announced=True)
    put(left, path, left.wal)
    Path(f"{path}.seq").write_bytes(b"\0" * 20)
    last, repairs = opened(left, path)
    assert last == GROUPS + 1
    assert "damaged" in repairs[0]


def test_a_damaged_main_file_is_refused(left, tmp_path):
    path = copy_of(left, tmp_path, announced=True)
    put(left, path, left.wal)
    assert opened(left, path) == (GROUPS + 1, [])
    text = fact(3)[2].encode()
    path.write_bytes(path.read_bytes().replace(text, b"!" + text[1:]))
    with pytest.raises(UnavailableError, match=r"log\.db can't be used"):
        opened(left, path)
