# SPDX-License-Identifier: AGPL-3.0-or-later
"""What people see of the tree: the first screen, the tree, the status line."""

from __future__ import annotations

import pytest

from actors.messages import ActorStatus, State, TreeStatus
from actors.tool_messages import ToolDescriptor
from supervisor.screen import duration, first_screen, is_degraded, status_line, tree_text

GROUPS = {"root": "one_for_one", "tools": "one_for_one", "durable": "rest_for_one", "p2p": "one_for_one"}


def actor(name: str, group: str, pid: int | None, state: State = State.READY, **more) -> ActorStatus:
    defaults = {"incarnation": 1, "restarts": 0, "uptime_s": 1.0, "rss_bytes": 1}
    return ActorStatus(name=name, group=group, pid=pid, state=state, **(defaults | more))


def tree(*actors: ActorStatus, **more) -> TreeStatus:
    defaults = {"version": "0.1.0", "uptime_s": 61.0, "url": "http://127.0.0.1:8000", "groups": GROUPS}
    return TreeStatus(root_pid=4100, actors=list(actors), **(defaults | more))


FULL = tree(
    actor("tools.general#0", "tools", 4110),
    actor("tools.general#1", "tools", 4111),
    actor("tools.general#spare0", "tools", 4112, State.SPARE),
    actor("task_queue", "durable", 4113, note="12 tasks recovered"),
    actor("task_worker", "durable", 4115),
    actor("peer_registry", "p2p", None, State.OFF, reason="p2p.enabled is false"),
    actor("router", "root", 4108, restarts=2),
    actor("gateway", "root", 4107),
)


def test_the_first_screen():
    assert first_screen(FULL, 0.412).splitlines() == [
        "greenroom 0.1.0  ready in 0.41 s                    (Ctrl-C stops in order, twice stops now)",
        "  MCP        http://127.0.0.1:8000/mcp",
        "  REST       http://127.0.0.1:8000/tools        (OpenAPI: /openapi.json, metrics: /metrics)",
        "",
        "  root (one_for_one)                pid 4100",
        "  |- router                         pid 4108            ready  2 restarts",
        "  |- gateway                        pid 4107            ready",
        "  |- tools (one_for_one)",
        "  |  `- tools.general x2            pid 4110, 4111      ready  +1 spare",
        "  |- durable (rest_for_one)",
        "  |  |- task_queue                  pid 4113            ready  12 tasks recovered",
        "  |  `- task_worker                 pid 4115            ready",
        "  `- p2p (one_for_one)",
        "     `- peer_registry               off      (p2p.enabled is false)",
        "",
        "  try:  greenroom tools call echo text=hello",
    ]


def test_broken_tools_are_listed_with_their_reason():
    broken = ToolDescriptor(
        name="wrong",
        title="",
        description="",
        category="mine",
        runtime="general",
        pool="general",
        input_schema=b"{}",
        broken="mine/wrong.py: No module named 'nothing'",
    )
    lines = first_screen(FULL, 1.0, [broken]).splitlines()
    assert "  broken: mine/wrong.py: No module named 'nothing'" in lines
    assert lines[-1].startswith("  try:")


def test_a_part_that_is_off_shows_the_setting_that_turns_it_on():
    assert "off      (p2p.enabled is false)" in tree_text(FULL)


def test_a_group_without_actors_is_not_shown():
    assert "durable" not in tree_text(tree(actor("router", "root", 1)))


def test_an_actor_without_a_process_shows_why():
    text = tree_text(
        tree(actor("router", "root", None, State.RESTARTING, restarts=1, reason="exit code 1: ValueError"))
    )
    assert (
        text.splitlines()[1]
        == "  `- router                         pid -               restarting  1 restart  exit code 1: ValueError"
    )


def test_states_of_several_processes_are_all_shown():
    text = tree_text(tree(actor("tools.a#0", "tools", 1), actor("tools.a#1", "tools", None, State.RESTARTING)))
    assert "tools.a x2" in text
    assert "pid 1, -" in text
    assert "ready, restarting" in text


@pytest.mark.parametrize("state", State)
def test_only_what_should_be_ready_and_is_not_makes_it_degraded(state):
    status = tree(actor("router", "root", 1), actor("gateway", "root", 2, state))
    assert is_degraded(status) == (state not in {State.READY, State.OFF})
    assert status_line(status).startswith("degraded" if is_degraded(status) else "ready")


@pytest.mark.parametrize("state", State)
def test_a_missing_spare_makes_nothing_degraded(state):
    assert not is_degraded(tree(actor("router", "root", 1), actor("router#spare0", "root", 2, state)))


def test_the_status_line_of_a_whole_tree():
    assert status_line(FULL) == "ready  up 1 min 01 s  6 of 6 actors ready  2 restarts  http://127.0.0.1:8000/mcp"


def test_the_status_line_says_what_is_wrong():
    line = status_line(tree(actor("router", "root", None, State.FAILED, reason="signal 9", restarts=1)))
    assert "0 of 1 actors ready  1 restart " in line
    assert line.endswith("(router is failed: signal 9)")


def test_what_is_refused_because_it_ends_processes_is_degraded_too():
    status = tree(actor("router", "root", 1), quarantined=2, breakers_open=["divide"])
    assert is_degraded(status)
    assert status_line(status).endswith("(2 quarantined, see: greenroom quarantine list; refused for a while: divide)")
    assert is_degraded(tree(actor("router", "root", 1), breakers_open=["divide"]))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (41.9, "41 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_tree_without_a_gateway_names_no_url():
    line = status_line(tree(actor("peer_registry", "p2p", 4110), url=""))
    assert line == "ready  up 1 min 01 s  1 of 1 actors ready  0 restarts"
