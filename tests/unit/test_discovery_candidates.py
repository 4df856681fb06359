# SPDX-License-Identifier: AGPL-3.0-or-later
"""Addresses that somebody named: which can be dialled, and how many are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr
from peer_books import Clock, book_of

from actors.p2p.peer_registry.discovery.candidates import NEW_AT_ONCE, NEW_PER_S, Candidates, candidate

P = "12D3KooWGuEhyjCQTdBV6dVWELDWtRgVXfbBMuVGKUzoRN93Nmjk"
QM = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("text", "place", "host"),
    [
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{P}", "/ip4/192.0.2.1/tcp/4001", "192.0.2.1"),
        (f"/ip6/2001:db8::1/tcp/4001/p2p/{P}", "/ip6/2001:db8::1/tcp/4001", "2001:db8::1"),
        (f"/dns4/node.example.org/tcp/1/p2p/{P}", "/dns4/node.example.org/tcp/1", "node.example.org"),
        (f"/dns/a/tcp/65535/ipfs/{P}", "/dns/a/tcp/65535", "a"),
        (f"/ip4/192.0.2.1/tcp/04001/p2p/{P}", "/ip4/192.0.2.1/tcp/4001", "192.0.2.1"),
    ],
)
def test_an_address_is_taken_apart(text, place, host):
    found = candidate(text)
    assert found == (P, place, host)
    assert str(Multiaddr(found.place)) == found.place


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no address"),
        ("192.0.2.1:4001", "no address"),
        ("/ip4/192.0.2.1/tcp/4001", "has to end with /p2p/"),
        (f"/p2p/{P}", "has to end with /p2p/"),
        ("/ip4/192.0.2.1/tcp/4001/p2p/", "no peer id"),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{P}x", "no peer id"),
        ("/ip4/192.0.2.1/tcp/4001/p2p/" + "0" * 52, "no peer id"),
        (f"/ip4/192.0.2.1/udp/4001/p2p/{P}", "can be dialled"),
        (f"/ip4/192.0.2.1/tcp/4001/ws/p2p/{P}", "can be dialled"),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{QM}/p2p-circuit/p2p/{P}", "can be dialled"),
        (f"/ip4/192.0.2.256/tcp/4001/p2p/{P}", "IP address is none"),
        (f"/ip4/::1/tcp/4001/p2p/{P}", "none of /ip4/"),
        (f"/ip6/fe80::1%eth0/tcp/4001/p2p/{P}", "none of /ip6/"),
        (f"/ip4/0.0.0.0/tcp/4001/p2p/{P}", "nobody"),
        (f"/ip4/224.0.0.251/tcp/4001/p2p/{P}", "nobody"),
        (f"/unix/a/tcp/4001/p2p/{P}", "can't be dialled"),
        (f"/dns4/-a b/tcp/4001/p2p/{P}", "name is none"),
        (f"/dns4/{'a.' * 150}/tcp/4001/p2p/{P}", "characters"),
        (f"/ip4/192.0.2.1/tcp/0/p2p/{P}", "port"),
        (f"/ip4/192.0.2.1/tcp/65536/p2p/{P}", "port"),
        (f"/ip4/192.0.2.1/tcp/٤/p2p/{P}", "port"),
        (f"/ip4/192.0.2.1/tcp/-1/p2p/{P}", "port"),
    ],
)
def test_what_can_not_be_dialled_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        candidate(text)


@given(st.text(max_size=60) | st.lists(st.sampled_from(["ip4", "p2p", "tcp", "1.2.3.4", P, "", "9"])).map("/".join))
def test_whatever_stands_there_is_taken_apart_or_refused(text):
    try:
        found = candidate(text)
    except ValueError:
        return
    assert found.peer_id in text
    assert found.place.startswith("/")


class Finding:
    """Candidates, over a book."""

    def __init__(self, **rules):
        self.clock = Clock(0.0)
        self.book = book_of(self.clock, **rules)
        self.news = 0
        self.candidates = Candidates(self.book.heard, self.book.__contains__, P, self.clock)
        self.candidates.on_new = self.on_new

    def on_new(self):
        self.news += 1

    def found(self, *numbers, way="test"):
        return self.candidates.found(way, [candidate(f"/ip4/192.0.2.1/tcp/{n % 9 + 1}/p2p/{peer(n)}") for n in numbers])


def peer(number):
    return "12D3KooW" + "".join(DIGITS[number // 58**k % 58] for k in range(44))


def test_who_is_found_is_hearsay_and_nothing_more():
    finding = Finding()
    assert finding.found(1, 2, 1) == 2
    known = finding.book.get(peer(1))
    assert (known.last_seen, known.persistent, known.capabilities) == (None, False, [])
    assert known.addresses == ["/ip4/192.0.2.1/tcp/2"]
    assert finding.news == 1


def test_who_is_known_is_no_news_but_may_be_elsewhere():
    finding = Finding()
    finding.found(1)
    again = candidate(f"/ip4/192.0.2.9/tcp/1/p2p/{peer(1)}")
    assert finding.candidates.found("test", [again]) == 0
    assert set(finding.book.get(peer(1)).addresses) == {"/ip4/192.0.2.1/tcp/2", again.place}
    assert finding.news == 1


def test_this_node_itself_is_not_found():
    finding = Finding()
    assert finding.candidates.found("test", [candidate(f"/ip4/192.0.2.1/tcp/1/p2p/{P}")]) == 0
    assert len(finding.book) == 0


def test_only_so_many_new_ones_are_taken_in_a_time():
    finding = Finding(max_peers=10_000)
    assert finding.found(*range(1000)) == NEW_AT_ONCE
    assert finding.found(*range(1000)) == 0
    assert finding.found(*range(1000, 2000), way="other") == NEW_AT_ONCE
    finding.clock.now += 10
    assert finding.found(*range(1000)) == 10 * NEW_PER_S


def test_a_flood_drives_out_only_hearsay():
    finding = Finding(max_peers=10)
    finding.book.seen(peer(5000))
    finding.found(*range(60))
    assert peer(5000) in finding.book
    assert len(finding.book) == 10
