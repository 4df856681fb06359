# SPDX-License-Identifier: AGPL-3.0-or-later
"""CAR files: what is written is read, by others, too; what is none is refused within bounds."""

from __future__ import annotations

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workflow_clocks import cid

from actors.p2p.workflow_scheduler.car import PIECE_BYTES, BadCarError, CarLimits, read, written

RAW = 0x55
NODE = libipld.encode_dag_cbor({"a": 1})
BLOCKS = [(cid(NODE), NODE), (cid(b"[1]", RAW), b"[1]"), (cid(b"", RAW), b"")]
FILE = b"".join(written([cid(NODE)], BLOCKS))


def file(header, *blocks):
    return b"".join([bytes([len(header)]), header, *(bytes([len(block)]) + block for block in blocks)])


def test_what_is_written_is_read():
    found = read(FILE)
    assert (found.roots, found.blocks, found.damaged) == ([cid(NODE)], dict(BLOCKS), [])


def test_others_read_it():
    # The library's reader knows no raw blocks.
    nodes = [libipld.encode_dag_cbor({"a": number}) for number in range(200)]
    header, blocks = libipld.decode_car(b"".join(written([cid(NODE)], ((cid(node), node) for node in nodes))))
    assert header == {"version": 1, "roots": [cid(NODE)]}
    assert blocks == {cid(node): {"a": number} for number, node in enumerate(nodes)}


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_any_blocks_come_back(blocks):
    named = {cid(block, RAW): block for block in blocks}
    assert read(b"".join(written(named, named.items()))).blocks == named


def test_no_piece_is_large():
    large, small = bytes(3 * PIECE_BYTES), b"small"
    blocks = {cid(large, RAW): large, cid(small, RAW): small}
    pieces = list(written([], blocks.items()))
    assert [len(piece) for piece in pieces[:3]] == [PIECE_BYTES] * 3
    assert len(pieces) == 4
    assert read(b"".join(pieces)).blocks == blocks


def test_a_block_that_is_not_what_its_cid_says_is_named_and_left_out():
    found = read(FILE.replace(b"[1]", b"[2]"))
    assert found.damaged == [cid(b"[1]", RAW)]
    assert found.blocks == {cid(NODE): NODE, cid(b"", RAW): b""}


def found_in(data):
    try:
        found = read(data)
    except BadCarError:
        return None
    return found.roots, found.blocks


def test_every_changed_byte_is_found():
    for place in range(len(FILE)):
        for bit in range(8):
            bad = bytearray(FILE)
            bad[place] ^= 1 << bit
            assert found_in(bytes(bad)) != found_in(FILE)


def test_what_was_cut_off_is_no_file_or_has_fewer_blocks():
    for length in range(len(FILE)):
        found = found_in(FILE[:length])
        assert found is None or len(found[1]) < len(BLOCKS)


EMPTY = libipld.encode_dag_cbor({"version": 1, "roots": []})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no length at byte 0"),
        (b"\x00", "header can't be read"),
        (b"\x80" * 12, "no length at byte 0"),
        (b"\x80\x00", "no length at byte 0"),  # not the shortest form
        (b"{}" * 80, "header can't be read"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "header has"),
        (file(b"\xa0"), "header can't be read"),
        (file(libipld.encode_dag_cbor({"version": 2, "roots": []})), "version 2"),
        (file(libipld.encode_dag_cbor({"version": 1, "roots": ["x"]})), "one of its roots"),
        (file(libipld.encode_dag_cbor({"version": 1, "roots": {}})), "header can't be read"),
        (file(libipld.encode_dag_cbor({"version": True, "roots": []})), "not in the form"),
        (file(libipld.encode_dag_cbor({"version": 1, "roots": [], "more": 1})), "not in the form"),
        (file(EMPTY, b"short"), "CID of another kind"),
        (file(EMPTY, b"\x01\x70" + cid(b"", RAW)[2:]), "CID of another kind"),
        (file(EMPTY, b"") + b"\x05ab", "CID of another kind"),
        (file(EMPTY) + b"\x64ab", "cut off"),
        (file(EMPTY) + b"\xff\xff\xff\xff\x7f", "larger than"),
    ],
)
def test_what_is_no_file_is_refused_with_the_reason(data, why):
    with pytest.raises(BadCarError, match=why):
        read(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data):
    found = found_in(data)  # which raises nothing else
    assert found is None or found != found_in(FILE)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (CarLimits(total_bytes=len(FILE) - 1), "at most"),
        (CarLimits(blocks=2), "more than 2 blocks"),
        (CarLimits(block_bytes=2), "larger than 2 bytes"),
        (CarLimits(header_bytes=20), "at most 20"),
    ],
)
def test_no_more_is_read_than_the_limits_allow(limits, why):
    with pytest.raises(BadCarError, match=why):
        read(FILE, limits)


def test_exactly_what_the_limits_allow_is_read():
    limits = CarLimits(total_bytes=len(FILE), blocks=3, block_bytes=len(NODE), header_bytes=FILE[0])
    assert read(FILE, limits).blocks == dict(BLOCKS)
