# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a gateway tells the others of its node."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from actors.errors import ActorDiedError
from actors.messages import DirectoryEntry
from actors.tool_messages import SessionNote
from gateway.siblings import Siblings

NOTE = SessionNote(session=b"s", ended=True)
NAMES = {1: "gateway#0", 2: "gateway#1", 3: "gateway#2", 4: "router"}


class Peers:
    """The directory, and channels whose ends do what `reaction` says."""

    def __init__(self, reaction):
        self.entries = {
            name: DirectoryEntry(name=name, group="root", state="ready", incarnation=number, socket=f"/{number}")
            for number, name in NAMES.items()
        }
        self.told = []
        self.reaction = reaction

    async def connect(self, entry):
        async def call(method, note, *, timeout_s):
            await self.reaction(entry)
            self.told.append((entry.name, method, note))

        return SimpleNamespace(call=call)


def siblings(reaction):
    peers = Peers(reaction)
    log = SimpleNamespace(info=lambda *_, **__: None)
    return peers, Siblings(SimpleNamespace(peers=peers, boot=SimpleNamespace(incarnation=1), log=log))


async def test_all_other_gateways_know_when_a_note_is_spread(autojump_clock):
    async def slow(_entry):
        await trio.sleep(0.5)

    peers, ours = siblings(slow)
    await ours.spread(NOTE)
    assert sorted(peers.told, key=str) == [("gateway#1", "note", NOTE), ("gateway#2", "note", NOTE)]


async def test_one_that_hangs_and_one_that_is_dead_hold_nobody_up(autojump_clock):
    async def bad(entry):
        if entry.name == "gateway#1":
            await trio.sleep_forever()
        raise ActorDiedError(entry.name, entry.incarnation, sent=False)

    _, ours = siblings(bad)
    started = trio.current_time()
    await ours.spread(NOTE)
    assert trio.current_time() - started == pytest.approx(1.0)


async def test_a_client_that_leaves_has_told_all_nevertheless(autojump_clock):
    async def slow(_entry):
        await trio.sleep(0.5)

    peers, ours = siblings(slow)
    with trio.move_on_after(0.1):
        await ours.spread(NOTE)
    assert len(peers.told) == 2
