# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the bytes of a write-ahead log prove: what has anything of a later transaction behind it was acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.p2p.task_queue.duckdb_log import DuckDBLog
from actors.p2p.task_queue.evidence import in_duckdb_wal, in_sqlite_wal
from actors.p2p.task_queue.sqlite_log import SQLiteLog


@pytest.fixture(params=[(DuckDBLog, ".wal", in_duckdb_wal), (SQLiteLog, "-wal", in_sqlite_wal)])
def made(request, tmp_path):
    """A log with ten groups that are in its main file too, the file of its WAL, and who reads that."""
    kind, suffix, proof = request.param
    log = kind(tmp_path / "log.db")
    list(log.open().groups)
    fill(log, 10)
    log.checkpoint()
    yield log, Path(f"{log.path}{suffix}"), proof
    log.close()


def fill(log, n):
    for number in range(n):
        log.append([[1, "x" * 700 * number]])


def test_all_but_the_last_group_were_acknowledged(made):
    log, wal, proof = made
    fill(log, 5)
    assert proof(wal.read_bytes()) == 14


def test_groups_of_one_transaction_prove_nothing_of_each_other(made):
    log, wal, proof = made
    fill(log, 5)
    log.rotate([[[1, "y" * 5000]]] * 4)
    assert proof(wal.read_bytes()) == 15
    fill(log, 1)
    assert proof(wal.read_bytes()) == 19


def test_the_beginning_of_the_next_write_proves_the_last_whole_one(made):
    log, wal, proof = made
    fill(log, 3)
    before = wal.read_bytes()
    log.append([[1, "z" * 200]])
    after = wal.read_bytes()
    differs = next(at for at, byte in enumerate(after) if before[at : at + 1] != bytes([byte]))
    assert proof(after[: differs + 10]) == 12
    assert proof(after) == 13


def test_damage_hides_only_what_it_covers(made):
    log, wal, proof = made
    fill(log, 6)
    good = wal.read_bytes()
    for at in (40, len(good) // 3):
        damaged = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert proof(damaged) == 15


def test_texts_of_tasks_prove_nothing(made):
    log, wal, proof = made
    text = "£cseq\x1b\x01\x01\x01\x01\x01\x01\x01\x01dprev\ud7ffX%\0\x01q\x12 "
    log.append([[1, text]])
    log.append([[1, text]])
    assert proof(wal.read_bytes()) == 11


def test_no_wal_proves_nothing():
    for proof in (in_duckdb_wal, in_sqlite_wal):
        assert proof(b"") == 0
        assert proof(b"something else" * 1000) == 0
        assert proof(bytes(5000)) == 0
