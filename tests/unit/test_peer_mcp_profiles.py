# SPDX-License-Identifier: AGPL-3.0-or-later
"""Profiles of MCP++ are read by all their names and sent by one."""

from __future__ import annotations

import pytest

from actors.jsonrpc import RpcError
from actors.p2p.peer_registry.mcp.profiles import (
    PROFILES,
    current_capabilities,
    known,
    legacy_capabilities,
    read_current,
    read_legacy,
)

LEGACY, CURRENT = "mcp-binding/legacy-2024-11-05", "mcp-binding/2026-07-28"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("mcp++/idl", "mcp++/mcp-idl"),
        ("mcp++/profile-a-idl", "mcp++/mcp-idl"),
        ("mcp++/profile-b-cid-artifacts", "mcp++/cid-envelope"),
        ("mcp++/profile-c-ucan", "mcp++/ucan"),
        ("mcp++/profile-e-mcp-p2p", "mcp++/p2p-transport"),
        *((name, name) for name in PROFILES),
    ],
)
def test_each_profile_is_known_by_each_of_its_names(said, name):
    assert known([said, name, "odd", 5, None, []]) == [name]


def test_a_long_list_is_not_read_to_its_end():
    assert known(["odd"] * 64 + ["mcp++/ucan"]) == []


def test_what_is_sent_is_read_as_it_was_meant():
    ours = {"mcp++/mcp-idl": {}, "mcp++/p2p-transport": {"version": "1.0"}}
    assert read_current(current_capabilities(ours, {})) == list(ours)
    assert read_legacy(legacy_capabilities(ours)) == list(ours)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"extensions": {"io.mcplusplus/profiles": {"mcp++/ucan": {}}}}, ["mcp++/ucan"]),
        ({"mcp++": {"profiles": ["mcp++/ucan"]}}, ["mcp++/ucan"]),
        ({"mcp++": {"profiles": 5}, "extensions": []}, []),
        ({"mcp++": [], "extensions": {"io.mcplusplus/profiles": ["mcp++/ucan"]}}, []),
        (None, []),
        ([], []),
    ],
)
def test_the_current_binding_has_two_forms(said, found):
    assert read_current(said) == found


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"mcpPlusPlusProfiles": ["mcp++/idl"]}, ["mcp++/mcp-idl"]),
        ({"mcp++": {"bindingId": LEGACY, "profiles": ["mcp++/ucan"]}}, ["mcp++/ucan"]),
        ({"mcp++": {"profiles": ["mcp++/ucan"]}}, []),
        ({"experimental": {"mcp++/bindingId": LEGACY, "mcp++/ucan": True, "mcp++/event-dag": False}}, ["mcp++/ucan"]),
        ({"experimental": {"mcp++/ucan": True}}, []),
        ({"mcp++": 5, "experimental": 5, "mcpPlusPlusProfiles": 5}, []),
        (None, []),
    ],
)
def test_the_legacy_binding_has_three_forms(said, found):
    assert read_legacy(said) == found


@pytest.mark.parametrize("binding", [LEGACY, "odd", 5, []])
def test_another_binding_is_refused_in_the_current_one(binding):
    with pytest.raises(RpcError) as caught:
        read_current({"mcp++": {"bindingId": binding}})
    assert caught.value.data == {"bindingId": CURRENT, "reason": "binding_mismatch"}


@pytest.mark.parametrize("binding", [CURRENT, "odd", 5, []])
@pytest.mark.parametrize("where", ["mcp++", "experimental"])
def test_another_binding_is_refused_in_the_legacy_one(binding, where):
    key = "bindingId" if where == "mcp++" else "mcp++/bindingId"
    with pytest.raises(RpcError):
        read_legacy({where: {key: binding}})
