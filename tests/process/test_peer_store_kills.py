# SPDX-License-Identifier: AGPL-3.0-or-later
"""The file of peers in a process that is killed at random moments: what was stored is there, and each batch wholly."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time

import peer_store_child
import pytest
from peer_books import peer
from peer_store_child import PEERS

from actors.p2p.peer_registry.peer_store import PeerStore

pytestmark = pytest.mark.process

KILLS = 8
PATIENCE_S = 60


def last_said(path, after_s):
    """Let a process write for so long after its first word, kill it, and return the last number that it said."""
    command = [sys.executable, "-P", peer_store_child.__file__, str(path)]
    search = os.pathsep.join(sys.path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": search})
    try:
        assert select.select([process.stdout], [], [], PATIENCE_S)[0], "it never stored anything"
        time.sleep(after_s)
    finally:
        process.kill()
        said = process.stdout.read()
        process.stdout.close()
        process.wait(PATIENCE_S)
    assert b"\n" in said, "it ended by itself"
    return int(said[: said.rindex(b"\n")].split()[-1])


def test_what_was_stored_survives_and_no_batch_is_torn(tmp_path):
    draw = random.Random()
    path = tmp_path / "peers.sqlite"
    before = 0
    for _ in range(KILLS):
        said = last_said(path, draw.uniform(0.0, 0.2))
        store = PeerStore(path)
        assert store.open() is None
        peers, offences = store.load()
        store.close()
        assert {one.record.peer_id for one in peers} == {peer(number) for number in range(PEERS)}
        [stored] = {one.record.successes for one in peers}
        assert before < said <= stored
        assert [(one.subject, one.reason) for one in offences] == [(peer(0), str(stored))]
        before = stored
