# SPDX-License-Identifier: AGPL-3.0-or-later
"""Session ids: only those that were given out are taken, for as long as they last."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import trio

from actors.settings import SessionsSettings
from gateway.mcp.calls import Outbox
from gateway.mcp.eras import C
from gateway.mcp.sessions import CLOCK_SLACK_S, Sessions

SECRET = b"s" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def remembering(**limits: Any) -> Sessions:
    return Sessions(SECRET, Clock(), SessionsSettings(**limits))


def open_one(sessions: Sessions, **fields: object) -> str:
    return sessions.open(C, **({"client": {"name": "a"}, "capabilities": {}, "principal": ""} | fields))  # type: ignore[arg-type]


def test_an_id_carries_what_was_negotiated_to_another_process() -> None:
    capabilities = {"roots": {}, "sampling": {"tools": {}}, "elicitation": {"url": {}}, "tasks": False, "x": {}}
    token = open_one(remembering(), capabilities=capabilities, principal="ada")
    session = remembering().find(token, "ada")
    assert session is not None
    assert session.revision == C
    assert session.declared("roots")
    assert not session.declared("roots", "listChanged")
    assert session.declared("sampling", "tools")
    assert session.declared("elicitation", "url")
    assert not session.declared("elicitation", "form")
    assert not session.declared("tasks")


def test_ids_are_printable_and_never_the_same() -> None:
    sessions = remembering()
    tokens = {open_one(sessions) for _ in range(100)}
    assert len(tokens) == 100
    assert all(0x21 <= ord(letter) <= 0x7E for token in tokens for letter in token)


def test_every_changed_letter_is_noticed() -> None:
    sessions = remembering()
    token = open_one(sessions)
    for index, letter in enumerate(token):
        other = "A" if letter != "A" else "B"
        assert sessions.find(token[:index] + other + token[index + 1 :], "") is None
    assert sessions.find(token, "") is not None


@pytest.mark.parametrize(
    "change", [lambda t: t + "A", lambda t: t + "=", lambda t: t[:-1], lambda t: "", lambda t: "ü" * 9]
)
def test_junk_around_an_id_is_noticed(change: object) -> None:
    sessions = remembering()
    assert sessions.find(change(open_one(sessions)), "") is None  # type: ignore[operator]


def test_other_spellings_of_the_same_bytes_are_refused() -> None:
    sessions = remembering()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for client in ("a", "ab", "abc"):
        token = open_one(sessions, principal=client)
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        same = [
            token[:-1] + letter
            for letter in alphabet
            if base64.urlsafe_b64decode(token[:-1] + letter + "=" * (-len(token) % 4)) == data
        ]
        assert [spelling for spelling in same if sessions.find(spelling, client) is not None] == [token]


def test_another_secret_makes_other_ids() -> None:
    assert Sessions(b"t" * 32, Clock(), SessionsSettings()).find(open_one(remembering()), "") is None


def test_an_id_grows_stale_also_while_it_is_in_use() -> None:
    clock = Clock()
    sessions = Sessions(SECRET, clock, SessionsSettings())
    token = open_one(sessions)
    clock.now += SessionsSettings().max_age_s - 1
    assert sessions.find(token, "") is not None
    clock.now += 2
    assert sessions.find(token, "") is None


def test_the_age_of_ids_can_be_set() -> None:
    clock = Clock()
    sessions = Sessions(SECRET, clock, SessionsSettings(max_age_s=60))
    token = open_one(sessions)
    clock.now += 61
    assert sessions.find(token, "") is None


def test_an_id_from_the_future_is_refused() -> None:
    clock = Clock()
    token = open_one(Sessions(SECRET, clock, SessionsSettings()))
    clock.now -= CLOCK_SLACK_S + 1
    assert Sessions(SECRET, clock, SessionsSettings()).find(token, "") is None


def test_an_ended_id_stays_ended_while_it_is_remembered() -> None:
    sessions = remembering(max_ended=2)
    tokens = [open_one(sessions) for _ in range(3)]
    for token in tokens:
        session = sessions.find(token, "")
        assert session is not None
        sessions.end(token, session)
        assert sessions.find(token, "") is None
    assert sessions.revoked == 2
    assert sessions.find(tokens[0], "") is not None


async def test_ending_cancels_calls_and_closes_streams() -> None:
    sessions = remembering()
    token = open_one(sessions)
    session = sessions.find(token, "")
    assert session is not None
    scope, stream = trio.CancelScope(), Outbox()
    session.calls[1] = scope
    session.streams.append(stream)
    sessions.end(token, session)
    assert scope.cancel_called
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


def test_idle_sessions_are_forgotten_first_and_busy_ones_never() -> None:
    sessions = remembering(max_remembered=2)
    busy, idle, other = (open_one(sessions) for _ in range(3))
    kept = sessions.find(busy, "")
    assert kept is not None
    kept.calls[1] = trio.CancelScope()
    first = sessions.find(idle, "")
    sessions.find(other, "")
    assert len(sessions) == 2
    assert sessions.find(busy, "") is kept
    assert sessions.find(idle, "") is not first
