# SPDX-License-Identifier: AGPL-3.0-or-later
"""Processes are killed while the official clients work: each sees a short wait or one honest error, and goes on.

All clients work at the same time, so that each death is met by all of them.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.process]

KINDS = [
    ("python", "modern"),
    ("python", "legacy"),
    ("fastmcp", "modern"),
    ("fastmcp", "legacy"),
    ("typescript", "sdk"),
    ("typescript", "legacy"),
    ("typescript", "auto"),
    ("typescript", "modern"),
]
VICTIMS = ["tools.general#0", "router", "gateway"]
SLOW_S = 5.0
"""How long the slow calls take; as in the clients' scripts."""
SHORT_WAIT_S = 5.0
"""What a death may add to a call, on a busy machine."""
GIVE_UP = ("python", "fastmcp")
"""Libraries that give their connection up when it breaks before the head of a response (python-sdk 2.3.0)."""
UNKNOWN = "may or may not have taken effect"


def kill_under(clients, tree, victim):
    """Have all clients call, kill one actor, and gather what each of them saw."""
    actor = tree.actors()[victim]
    for client in clients.values():
        client.tell(victim)
    for client in clients.values():
        assert client.answer() == {"calling": True}
    os.kill(actor["pid"], signal.SIGKILL)
    seen = {kind: client.answer() for kind, client in clients.items()}
    tree.wait_ready(victim, after=actor["incarnation"])
    return seen


@pytest.fixture(scope="module")
def deaths(make_client, greenroom):
    """What each client saw at each death, and what it had done before."""
    # All are made before the first starts: making one may mean installing it, and no client waits that long.
    peers = {kind: make_client(*kind) for kind in KINDS}
    with ExitStack() as stack:
        clients = {kind: stack.enter_context(peer.start_outliving()) for kind, peer in peers.items()}
        before = {kind: client.answer() for kind, client in clients.items()}
        return before, {victim: kill_under(clients, greenroom.tree, victim) for victim in VICTIMS}


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request):
    return request.param


@pytest.mark.parametrize("victim", VICTIMS)
def test_afterwards_everything_works_in_the_same_session(deaths, kind, victim):
    before, deaths = deaths
    seen = deaths[victim][kind]
    assert before[kind]["failures"] == {}
    assert seen["after"] == {}
    if victim == "gateway" and kind[0] in GIVE_UP and seen["broken"]:
        # It is the library that lets go of the session, not the server; there is nothing to go on with.
        assert "ReadError" in seen["broken"] or "RemoteProtocolError" in seen["broken"]
        return
    assert seen.get("broken") is None
    assert seen["handshakes"] == before[kind]["handshakes"], "it had to initialise again"


def test_a_call_that_may_be_repeated_outlives_its_pool(deaths, kind):
    call = deaths[1]["tools.general#0"][kind]["calls"]["sleep"]
    assert call["is_error"] is False
    assert SLOW_S < call["seconds"] < 2 * SLOW_S + SHORT_WAIT_S


def test_a_call_that_may_not_be_repeated_ends_with_its_pool_and_says_that_its_outcome_is_unknown(deaths, kind):
    call = deaths[1]["tools.general#0"][kind]["calls"]["write_slowly"]
    assert call["is_error"] is True
    assert UNKNOWN in call["text"]
    assert call["seconds"] < SLOW_S, "it is told at once"


def test_calls_that_run_do_not_notice_the_routers_death(deaths, kind):
    for call in deaths[1]["router"][kind]["calls"].values():
        assert call["is_error"] is False
        assert call["seconds"] < SLOW_S + SHORT_WAIT_S


@pytest.mark.parametrize("victim", ["tools.general#0", "router"])
def test_nothing_else_fails_when_a_process_behind_the_gateway_dies(deaths, kind, victim):
    rounds = deaths[1][victim][kind]["rounds"]
    assert rounds, "the client made no round while the process died"
    assert [failed for failed in rounds if failed] == []


def test_the_gateways_death_is_one_error_for_each_request_that_was_open(deaths, kind):
    seen = deaths[1]["gateway"][kind]
    for call in seen["calls"].values():
        assert call.get("error_name") or UNKNOWN in call.get("text", ""), (
            "a broken connection can't have given a result"
        )
    failed = [step for round_ in seen["rounds"] for step in round_.items()]
    assert seen.get("broken") or len(failed) <= 1, "the requests after it go to the next gateway"
