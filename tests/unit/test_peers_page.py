# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/peers.md: its configurations can be used, it names each command, tool, metric, fault of libp2p and thing that is
not provided, and says the limits that are in force. That its first network works is shown by
`tests/process/test_peers_page.py`."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

import gateway.peer_metrics
from actors.p2p.peer_registry import admission, bans, introductions, peers
from actors.p2p.peer_registry.call_tokens import MOST_AGE_S
from actors.p2p.peer_registry.configured import host_rules
from actors.p2p.peer_registry.hardening import PATCHES, limits
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.sharing.assignment import SenderRules
from actors.p2p.peer_registry.sharing.runner import RunnerRules
from actors.p2p.peer_registry.tools import NOT_MEASURED, PeerTools
from actors.p2p.peer_registry.tools_remote import RemoteToolTools
from actors.peer_provided import NOT_PROVIDED
from actors.settings import Settings
from supervisor.cli_peers import peers as commands
from supervisor.config import load
from supervisor.config_keys import known_keys, sections

PAGE = (Path(__file__).parents[2] / "docs" / "peers.md").read_text()
CONFIGURATIONS = re.findall(r"^ *```yaml\n(\s*p2p:.*?)```", PAGE, re.DOTALL | re.MULTILINE)
P2P = Settings().p2p
REGISTRY = P2P.peer_registry
HOST, LINK = host_rules(P2P.connectivity), LinkRules()


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the table with this title: first cell -> the others."""
    table = PAGE.partition(f"\n| {title} |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return {first: others for first, *others in cells}


def names(title: str) -> set[str]:
    """What stands in backquotes in the first cells of a table."""
    return {name for first in rows(title) for name in re.findall(r"`([^`]+)`", first)}


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_each_configuration_can_be_used(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(dedent(text))
    assert load(file, {}, {}).notices == []


def test_each_command_is_told():
    assert names("command") == {f"greenroom peers {name}" for name in commands.commands}


def test_each_tool_is_told():
    tools = [*PeerTools(None).all(), *RemoteToolTools(None).all()]
    assert names("tool") - {"not_provided"} == {tool.__name__ for tool in tools}


def test_each_metric_is_told():
    shown = re.findall(r"^    (mcp_p2p_\w+)", gateway.peer_metrics.__doc__ or "", re.MULTILINE)
    assert names("metric") == set(shown)


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("connections; of these, opened by others", f"{HOST.max_connections}; {HOST.max_inbound}"),
        ("connections with one peer", f"{HOST.max_per_peer}"),
        (
            "connections from one IPv4 address or IPv6 /64; of these, in their handshake",
            f"{HOST.max_per_address}; {HOST.max_handshakes_per_address}",
        ),
        ("a handshake", f"{HOST.upgrade_s:g} s"),
        ("streams that the other side may have open on a connection", f"{HOST.inbound_streams}"),
        ("unread bytes of a stream; then the connection is cut", f"{limits.MOST_UNREAD}"),
        ("links; of these, opened by others", f"{LINK.max_links}; {LINK.max_inbound_links}"),
        ("a link's hello", f"{LINK.hello_timeout_s:g} s, {LINK.max_hello_bytes} bytes in a frame"),
        ("a frame on a link", f"{LINK.max_frame_bytes} bytes"),
        ('requests of one peer that are worked on; then "busy"', f"{LINK.max_serving}"),
        ("silence on a link; then it is given up", f"{LINK.dead_after_s:g} s"),
        ("peers that are remembered", f"{REGISTRY.max_peers}"),
        ("addresses of a peer; points of its history", f"{peers.MOST_ADDRESSES}; {peers.MOST_POINTS}"),
        ("peers and addresses whose bans are remembered", f"{bans.MOST_SUBJECTS} each"),
        ("peers in one answer to who is here", f"{introductions.MOST_TOLD}"),
        (
            "what a peer without rights may ask",
            f"{admission.STRANGERS.rate_per_s:g} per second, {admission.STRANGERS.burst} at once after a pause",
        ),
        ("a message of MCP", f"{REGISTRY.mcp.max_frame_bytes} bytes"),
        ("requests of MCP of one peer; of all", f"{REGISTRY.mcp.max_requests}; {REGISTRY.mcp.max_requests_in_all}"),
        ("tasks of peers that run here", f"{REGISTRY.sharing.slots}"),
        ("tasks of this node that are with peers", f"{REGISTRY.sharing.max_assigned}"),
        (
            "a task's payload, and its result, that go to a peer and back",
            f"{SenderRules(me='').max_payload_bytes} bytes",
        ),
    ],
)
def test_a_limit_is_what_the_page_says(what, limit):
    assert rows("what | at most")[what][0] == limit


def test_the_page_says_how_long_a_token_is_good_and_how_large_a_result_may_be():
    assert f"is good for {MOST_AGE_S:g} s" in " ".join(PAGE.split())
    assert SenderRules(me="").max_payload_bytes == RunnerRules().max_result_bytes


def test_each_fault_is_told_and_those_that_are_patched_are_called_so():
    told = rows("fault")
    assert set(told) == {f"B{number}" for number in range(1, 38)} | {"B3b"}
    patched = {key.split()[0] for key in PATCHES} | {"B3b", "B27", "B36"}  # the last three within patches of others
    of_another_kind = {"B35"}  # a limit that is set for each host
    assert {fault for fault, (_, here) in told.items() if here.startswith("patch")} == patched | of_another_kind


def test_what_is_not_provided_is_what_the_tools_say():
    told = rows("what | why not")
    assert {name.strip("`") for name in told} == {*NOT_MEASURED, *(feature.name for feature in NOT_PROVIDED)}
    for feature in NOT_PROVIDED:
        assert told[f"`{feature.name}`"] == [feature.why_not]


def test_the_settings_that_it_names_exist():
    named = set(re.findall(r"`(p2p\.[a-z_.]+\w)(?:: \w+)?`", PAGE))
    assert named
    assert named <= set(known_keys()) | set(sections()) | {"p2p.peer_registry.allow"}
