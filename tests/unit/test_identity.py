# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node's key, its peer id, and its signatures."""

from __future__ import annotations

import stat

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import UnavailableError
from actors.p2p.identity import NodeSigner, load_or_create_key, peer_id, verify

DATA = b"what was signed"
ANN = NodeSigner(Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01"))
BOB = NodeSigner(Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x02"))
SIGNED = ANN.sign(DATA)


def test_the_key_is_made_once_and_for_this_user_alone(tmp_path):
    key = load_or_create_key(tmp_path)
    assert peer_id(load_or_create_key(tmp_path)) == peer_id(key)
    assert stat.S_IMODE((tmp_path / "peer.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["peer.key"]


def test_a_file_that_is_no_key_is_left_alone(tmp_path):
    (tmp_path / "peer.key").write_bytes(b"short")
    with pytest.raises(UnavailableError, match="holds no key of 32 bytes"):
        load_or_create_key(tmp_path)
    assert (tmp_path / "peer.key").read_bytes() == b"short"


def test_the_peer_id_of_a_known_key():
    # The public key of RFC 8032, section 7.1, test 1, behind the bytes that every Ed25519 peer id begins with.
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    found = peer_id(Ed25519PrivateKey.from_private_bytes(secret))
    assert base58.b58decode(found).hex() == "002408011220" + public
    assert found.startswith("12D3KooW")


def test_a_signature_is_that_of_one_peer_over_these_bytes():
    assert verify(ANN.peer, DATA, SIGNED)
    assert not verify(BOB.peer, DATA, SIGNED)
    assert not verify(ANN.peer, DATA + b"x", SIGNED)
    assert not verify(ANN.peer, DATA, BOB.sign(DATA))


@given(st.integers(0, len(SIGNED) - 1), st.characters())
def test_any_other_text_is_no_signature(place, character):
    other = SIGNED[:place] + character + SIGNED[place + 1 :]
    assert verify(ANN.peer, DATA, other) == (other == SIGNED)


@given(st.integers(0, len(ANN.peer) - 1), st.characters())
def test_any_other_text_is_not_the_peer(place, character):
    other = ANN.peer[:place] + character + ANN.peer[place + 1 :]
    assert verify(other, DATA, SIGNED) == (other == ANN.peer)


@pytest.mark.parametrize("text", ["", "=", SIGNED + "==", SIGNED[:-1], SIGNED + "A", " " + SIGNED[1:], "é" * 86])
def test_what_is_no_signature_is_false(text):
    assert not verify(ANN.peer, DATA, text)


@pytest.mark.parametrize("peer", ["", "12D3KooW", "Qm" + "a" * 44, ANN.peer + "1", "2" + ANN.peer[1:], "0" * 52])
def test_what_is_no_peer_id_is_false(peer):
    assert not verify(peer, DATA, SIGNED)
