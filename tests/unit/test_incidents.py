# SPDX-License-Identifier: AGPL-3.0-or-later
"""Incidents: one sentence for a death and its recovery, and the story of a start that failed."""

from __future__ import annotations

import pytest

from supervisor.incidents import Incidents, failure_screen, last_lines


@pytest.fixture
def running():
    incidents = Incidents()
    incidents.tree_is_up()
    return incidents


def exited(name: str, reason: str, decision: str) -> tuple[str, dict]:
    return "exited", {"offender": name, "reason": reason, "decision": decision}


def started(name: str) -> tuple[str, dict]:
    return "started", {"offender": name}


def test_a_death_is_told_once_it_is_back(running):
    assert running.observe(*exited("router", "signal 9", "restart"), 10.0) is None
    incident = running.observe(*started("router"), 10.007)
    assert incident.sentence == "router died (signal 9), back in 7 ms"
    assert (incident.actor, incident.back_ms) == ("router", 7.0)
    assert running.observe(*started("router"), 11.0) is None, "it is told once"


def test_two_deaths_are_told_apart(running):
    running.observe(*exited("router", "signal 9", "restart"), 1.0)
    running.observe(*exited("gateway", "exit code 1: ValueError: x", "restart"), 2.0)
    assert running.observe(*started("gateway"), 2.5).sentence == "gateway died (exit code 1), back in 500 ms"
    assert running.observe(*started("router"), 13.0).sentence == "router died (signal 9), back in 12.0 s"


def test_a_hang_is_called_one(running):
    running.observe("hung", {"offender": "router", "decision": "kill"}, 0.9)
    running.observe(*exited("router", "hung, signal 9: no beat for 5.1 s", "restart"), 1.0)
    assert running.observe(*started("router"), 1.2).sentence == "router hung, back in 200 ms"


def test_a_death_before_it_was_back_is_told_at_once_with_what_comes_next(running):
    running.observe(*exited("router", "signal 9", "restart"), 1.0)
    again = running.observe(*exited("router", "exit code 1: x", "restart in 0.35 s"), 1.2)
    assert again.sentence == "router died (exit code 1) again; restart in 0.35 s"
    assert running.observe(*started("router"), 3.0).sentence == "router died (signal 9), back in 2000 ms"


def test_what_was_asked_for_is_no_incident(running):
    assert running.observe(*exited("router", "stopped", "as asked"), 1.0) is None
    assert running.observe(*started("router"), 1.2) is None
    assert running.start_failure() is None


def test_a_failed_start_names_the_first_actor_its_last_lines_and_a_remedy():
    incidents = Incidents()
    incidents.wrote("router", b"something else\n")
    incidents.wrote("gateway", b'{"timestamp":"x","level":"INFO","event":"hello"}\nprinted\n')
    incidents.wrote("gateway", b'{"event":"actor failed","error":"ModuleNotFoundError: No module')
    incidents.wrote("gateway", b' named \'x\'","traceback":"Traceback ..."}\n')
    incidents.observe(*exited("gateway", "ended before it was ready, exit code 1: long {text}", "stop the tree"), 1.0)
    incidents.observe(*exited("router", "ended before it was ready, exit code 2", "stop the tree"), 1.1)
    failure = incidents.start_failure()
    assert (failure.actor, failure.reason) == ("gateway", "ended before it was ready, exit code 1")
    assert failure.last_lines == ["hello", "printed", "actor failed: ModuleNotFoundError: No module named 'x'"]
    assert failure_screen(failure).splitlines() == [
        "greenroom could not start: gateway ended before it was ready, exit code 1",
        "  it wrote last:",
        "    hello",
        "    printed",
        "    actor failed: ModuleNotFoundError: No module named 'x'",
        f"  what to do: {failure.remedy}",
    ]
    assert "./dev setup" in failure.remedy


@pytest.mark.parametrize(
    ("reason", "wrote", "remedy"),
    [
        ("ended before it was ready, signal 9", b"", "memory"),
        ("ended before it was ready, exit code 1", b"MemoryError\n", "address_space_bytes"),
        ("ended before it was ready, exit code 1", b"OSError: [Errno 24] Too many open files\n", "open_files"),
        ("not ready in time, signal 9: not ready within 20 s", b"", "supervisor.ready_timeout_s"),
        ("ended before it was ready, exit code 1", b"ValueError\n", "config show --origin"),
    ],
)
def test_the_remedy_fits_the_failure(reason, wrote, remedy):
    incidents = Incidents()
    incidents.wrote("router", wrote)
    incidents.observe(*exited("router", reason, "stop the tree"), 1.0)
    assert remedy in incidents.start_failure().remedy


def test_an_actor_that_wrote_nothing_has_its_reason_shown():
    incidents = Incidents()
    incidents.observe(*exited("router", "no process: no memory", "stop the tree"), 1.0)
    assert "it wrote last:\n    no memory" in failure_screen(incidents.start_failure())


def test_nothing_is_kept_of_a_running_tree(running):
    running.wrote("router", b"x\n")
    running.observe(*exited("router", "signal 9", "stop the tree"), 1.0)
    assert running.start_failure() is None


def test_what_is_kept_and_shown_has_bounds():
    incidents = Incidents()
    for _ in range(100):
        incidents.wrote("router", b"x" * 10_000 + b"\n")
    assert len(incidents._tails["router"]) <= 16 * 1024
    incidents.observe(*exited("router", "exit code 1", "stop the tree"), 1.0)
    lines = incidents.start_failure().last_lines
    assert 1 <= len(lines) <= 8
    assert all(len(line) <= 300 for line in lines)


def test_lines_of_any_kind_can_be_shown():
    assert last_lines(b'\xff\n\n[1]\n{"event": 1, "reason": null}\n') == ["\ufffd", "[1]", "1"]
