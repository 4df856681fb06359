# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whom a node wants to be connected with, and where they may be."""

from __future__ import annotations

from peer_books import Clock, book_of, peer

from actors.p2p.peer_registry.node import KnownContacts

ME, A, B, C, D = map(peer, range(5))
PLACE, OTHER = "/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.2/tcp/4001"


def test_wanted_are_those_of_the_operator_of_the_settings_and_of_a_file_each_once():
    book = book_of(Clock())
    book.persist(A)
    book.heard(D, [PLACE])
    known = KnownContacts(book, [f"{PLACE}/p2p/{B}", f"{PLACE}/p2p/{ME}"], ME)
    known.also = {A: [PLACE], C: [PLACE], ME: [PLACE]}
    assert list(known.wanted()) == [A, B, C]
    known.also = {}
    assert list(known.wanted()) == [A, B]


def test_who_is_banned_is_not_wanted_whoever_names_it():
    book = book_of(Clock())
    known = KnownContacts(book, [f"{PLACE}/p2p/{A}"], ME)
    known.also = {B: [PLACE]}
    book.violated(A, "", "noise")
    book.violated(B, "", "noise")
    assert list(known.wanted()) == []


def test_a_peer_may_be_wherever_anybody_says():
    book = book_of(Clock())
    book.heard(A, [OTHER])
    known = KnownContacts(book, [f"{PLACE}/p2p/{A}"], ME)
    known.also = {A: [PLACE, "/ip4/192.0.2.3/tcp/1"]}
    assert known.addresses(A) == [OTHER, PLACE, "/ip4/192.0.2.3/tcp/1"]
    assert known.addresses(B) == []
