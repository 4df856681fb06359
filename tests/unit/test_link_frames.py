# SPDX-License-Identifier: AGPL-3.0-or-later
"""Frames are cut out of any pieces of bytes, and nothing that a stranger sends makes the cutter keep much or hang."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.p2p.peer_registry.link.frames import CODE_BYTES, HEAD_BYTES, Cutter, Seal, joined
from actors.p2p.peer_registry.link.reasons import LinkViolation, Violation

KEY = bytes(range(32))
MOST = 100
frames = st.lists(st.binary(min_size=1, max_size=MOST), max_size=20)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def cut_all(cutter: Cutter, pieces: list[bytes]) -> list[bytes]:
    found = []
    for piece in pieces:
        cutter.feed(piece)
        while (frame := cutter.cut()) is not None:
            found.append(bytes(frame))
    return found


@given(frames, st.lists(st.integers(min_value=0), max_size=30))
def test_frames_come_out_as_they_went_in_wherever_the_bytes_are_cut(sent, cuts):
    cutter = Cutter(MOST)
    assert cut_all(cutter, pieces_of(joined(sent, None), cuts)) == sent
    assert not cutter.unfinished


@given(frames, st.binary(min_size=1, max_size=3))
def test_a_frame_that_is_not_whole_is_awaited(sent, rest):
    cutter = Cutter(MOST)
    assert cut_all(cutter, [joined(sent, None) + b"\0" + rest[1:]]) == sent
    assert cutter.unfinished


@given(frames, st.integers(MOST + 1, 2**32 - 1), st.binary(max_size=8))
def test_a_length_beyond_the_limit_ends_it_before_more_is_kept(sent, size, rest):
    cutter = Cutter(MOST)
    cutter.feed(joined(sent, None) + struct.pack(">I", size) + rest)
    for frame in sent:
        assert cutter.cut() == frame
    with pytest.raises(LinkViolation) as refused:
        cutter.cut()
    assert refused.value.kind is Violation.TOO_LARGE


def test_an_empty_frame_is_refused():
    cutter = Cutter(MOST)
    cutter.feed(bytes(HEAD_BYTES))
    with pytest.raises(LinkViolation) as refused:
        cutter.cut()
    assert refused.value.kind is Violation.FRAME


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_any_bytes_are_frames_or_a_violation_and_little_is_kept(pieces):
    cutter = Cutter(MOST)
    ended = None
    try:
        for piece in pieces:
            cutter.feed(piece)
            while (frame := cutter.cut()) is not None:
                assert 0 < len(frame) <= MOST
            assert len(cutter._buffer) - cutter._at < HEAD_BYTES + MOST
    except LinkViolation as violation:
        ended = violation.kind
    assert ended in (None, Violation.TOO_LARGE, Violation.FRAME)


def test_the_bytes_of_a_frame_that_trickles_in_are_not_copied_again_and_again():
    cutter = Cutter(1 << 20)
    cutter.feed(struct.pack(">I", 1 << 20))
    cutter.feed(b"x")
    buffer = cutter._buffer
    for _ in range(100):
        cutter.feed(b"x")
        assert cutter.cut() is None
    assert cutter._buffer is buffer


@given(frames, st.lists(st.integers(min_value=0), max_size=30))
def test_sealed_frames_open_in_their_order(sent, cuts):
    cutter = Cutter(MOST + CODE_BYTES)
    opening = Seal(KEY)
    wire = joined(sent, Seal(KEY))
    assert [opening.opened(frame) for frame in cut_all(cutter, pieces_of(wire, cuts))] == sent


@given(
    st.lists(st.binary(min_size=1, max_size=MOST), min_size=1, max_size=5),
    st.data(),
)
def test_a_frame_that_was_changed_forged_repeated_moved_or_left_out_does_not_open(sent, data):
    sealing = Seal(KEY)
    sealed = [frame + sealing.code(frame) for frame in sent]
    at = data.draw(st.integers(0, len(sealed) - 1))
    victim = sealed[at]
    bit = data.draw(st.integers(0, len(victim) * 8 - 1))
    changed = bytearray(victim)
    changed[bit // 8] ^= 1 << bit % 8
    other_key = Seal(KEY[::-1])
    for _ in range(at):
        other_key.code(b"")
    attacks = {
        "changed": [*sealed[:at], bytes(changed)],
        "forged": [*sealed[:at], sent[at] + other_key.code(sent[at])],
        "repeated": [*sealed[: at + 1], victim],
        "shortened": [*sealed[:at], victim[:-1]],
        "without code": [*sealed[:at], sent[at][:CODE_BYTES]],
    }
    if at + 1 < len(sealed):
        attacks["left out"] = [*sealed[:at], sealed[at + 1]]
    for attack in attacks.values():
        opening = Seal(KEY)
        for frame in attack[:-1]:
            opening.opened(frame)
        with pytest.raises(LinkViolation) as refused:
            opening.opened(attack[-1])
        assert refused.value.kind is Violation.FORGED
