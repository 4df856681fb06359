# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node that others begin at consists of, when it is of no use, and what it says of itself."""

from __future__ import annotations

import ipaddress
import random

import msgspec
import pytest

from actors.settings import Settings
from supervisor.bootstrap import as_configured, check, reachable
from supervisor.core import Core
from supervisor.rundir import StartError
from supervisor.tree import build_tree

PEER = "12D3KooW" + "1" * 44


def settings(*, only=True, place=None, **registry):
    p2p = {"bootstrap_only": only, "peer_registry": registry, "connectivity": {"listen_port": 0} | (place or {})}
    return msgspec.convert({"p2p": p2p}, Settings)


def test_it_is_the_peer_registry_and_does_nothing_for_anybody():
    ours = as_configured(settings(introduce_strangers=True))
    tree = build_tree(ours)
    assert [child.id for child in tree.children] == ["peer_registry"]
    Core(tree.groups, tree.children, random.Random(0))
    registry = ours.p2p.peer_registry
    assert ours.p2p.enabled
    assert not any(part.enabled for part in (ours.p2p.task_queue, registry.sharing, registry.mcp))
    assert registry.wanted_connections == 0, "it waits for others"
    assert registry.introduce_strangers


def test_its_process_that_dies_too_often_ends_all_since_nothing_else_is_left():
    tree = build_tree(as_configured(settings(introduce_strangers=True)))
    assert {group.id: group.escalates for group in tree.groups} == {"root": True, "p2p": True}


def test_other_nodes_are_as_they_are_configured():
    ours = settings(only=False, introduce_strangers=True)
    assert as_configured(ours) is ours


@pytest.mark.parametrize(
    "registry", [{"introduce_strangers": True}, {"secret_file": "/s"}, {"allow": {PEER: {}}}], ids=str
)
def test_it_is_of_use_to_somebody(registry):
    check(as_configured(settings(**registry)))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (settings(), "--secret-file FILE"),
        (settings(introduce_strangers=True, secret_file="/s"), "exclude each other"),
        (settings(introduce_strangers=True, enabled=False), "must be true"),
        (settings(introduce_strangers=True, place={"listen_host": "here"}), "give an IP address"),
        (settings(introduce_strangers=True, place={"listen_host": ""}), "give an IP address"),
        (settings(introduce_strangers=True, place={"listen_host": "192.0.2.77"}), "can't be listened on"),
    ],
)
def test_what_is_of_no_use_does_not_start(wanted, said):
    with pytest.raises(StartError, match=said):
        check(as_configured(wanted))


def test_an_address_for_all_of_this_machine_is_shown_as_one_that_can_be_dialled():
    named = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"
    assert reachable(named) == named
    for unspecified in ("/ip4/0.0.0.0", "/ip6/::"):
        _, kind, ip, *rest = reachable(f"{unspecified}/tcp/4001/p2p/{PEER}").split("/")
        assert (kind, rest) == (unspecified[1:4], ["tcp", "4001", "p2p", PEER])
        assert not ipaddress.ip_address(ip).is_unspecified
