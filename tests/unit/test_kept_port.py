# SPDX-License-Identifier: AGPL-3.0-or-later
"""The port that a node had is read again, and nothing that stands in its file does harm."""

from __future__ import annotations

import pytest

from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.kept_port import at, keep, kept


def test_a_port_is_kept(tmp_path):
    path = tmp_path / "port"
    assert kept(path) == 0
    keep(path, 40001)
    keep(path, 40002)
    assert kept(path) == 40002
    assert [one.name for one in tmp_path.iterdir()] == ["port"]


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "9" * 100, "1 2", "4001\x00", "٤٠٠١"])
def test_what_is_no_port_is_none(tmp_path, text):
    path = tmp_path / "port"
    path.write_text(text)
    assert kept(path) == 0


def test_a_file_that_can_not_be_read_is_none(tmp_path):
    assert kept(tmp_path) == 0


def test_only_where_any_port_will_do_it_is_used():
    rules = HostRules(listen=("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/4001"))
    assert at(rules, 5).listen == ("/ip4/127.0.0.1/tcp/5", "/ip6/::1/tcp/4001")
    assert at(rules, 0) == rules
