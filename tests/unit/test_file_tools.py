# SPDX-License-Identifier: AGPL-3.0-or-later
"""Paths that callers give, `hash_file` and `file_detect`, on real files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import zipfile
import zlib

import pytest
from tool_calls import Caller, loaded

from actors.errors import ForbiddenError, InvalidArgumentsError
from actors.tools.file_tools.file_detect import file_detect
from actors.tools.file_tools.hash_file import hash_file
from actors.tools.files import Files


@pytest.fixture
async def call(tmp_path):
    return Caller(loaded(file_detect, hash_file), tmp_path / "data")


# --- confinement -----------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A data directory, one more root, and a folder that is none."""
    for name in ("data/files", "root/sub", "outside"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("data/secret", "data/files/in", "root/sub/in", "outside/out"):
        (tmp_path / name).write_text(name)
    return Files([tmp_path / "root"], tmp_path / "data")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("in", "data/files/in"),
        ("./sub/../in", "data/files/in"),
        ("new/deep", "data/files/new/deep"),
        ("{tmp}/root/sub/in", "root/sub/in"),
        ("{tmp}/root", "root"),
        ("../../root/sub/in", "root/sub/in"),
    ],
)
def test_paths_below_a_root_are_found(files, tmp_path, path, place):
    assert files.resolve(path.format(tmp=tmp_path)) == tmp_path / place


@pytest.mark.parametrize(
    "path",
    ["..", "../secret", "../../outside/out", "{tmp}/outside/out", "{tmp}/root/../outside/out", "/", "/etc/passwd",
     "{tmp}/data/secret", "{tmp}/rootless", "/proc/self/environ", "/dev/zero", "~/x/../../.."],
)  # fmt: skip
def test_paths_outside_of_the_roots_are_refused(files, tmp_path, path):
    with pytest.raises(ForbiddenError, match="outside of the folders that tools may use"):
        files.resolve(path.format(tmp=tmp_path))


def test_a_link_is_judged_by_where_it_leads(files, tmp_path):
    (files.home / "to_outside").symlink_to(tmp_path / "outside")
    (files.home / "to_root").symlink_to(tmp_path / "root")
    (files.home / "to_itself").symlink_to(files.home / "to_itself")
    (files.home / "dangling").symlink_to(tmp_path / "outside" / "none")
    assert files.existing_file("to_root/sub/in").read_text() == "root/sub/in"
    for path in ("to_outside", "to_outside/out", "dangling"):
        with pytest.raises(ForbiddenError):
            files.resolve(path)
    with pytest.raises(InvalidArgumentsError):
        files.existing_file("to_itself")


def test_the_data_directory_is_closed_even_when_a_root_contains_it(tmp_path):
    (tmp_path / "data").mkdir()
    wide = Files([tmp_path], tmp_path / "data")
    assert wide.resolve(str(tmp_path / "other")) == tmp_path / "other"
    assert wide.resolve("x") == tmp_path / "data/files/x"
    for closed in ("data", "data/identity.key", "data/datasets/x"):
        with pytest.raises(ForbiddenError):
            wide.resolve(str(tmp_path / closed))


def test_a_data_directory_behind_a_link_is_as_closed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "real")
    wide = Files([tmp_path], tmp_path / "data")
    for closed in ("data/key", "real/key"):
        with pytest.raises(ForbiddenError):
            wide.resolve(str(tmp_path / closed))


@pytest.mark.parametrize(
    ("path", "said"),
    [("", "not a usable path"), ("a\0b", "not a usable path"), ("none", "does not exist"), (".", "not a regular file"),
     ("in/deeper", "Not a directory"), ("x" * 300, "File name too long"), ("pipe", "not a regular file")],
)  # fmt: skip
def test_what_is_no_file_is_named_as_such(files, path, said):
    os.mkfifo(files.home / "pipe")
    with pytest.raises(InvalidArgumentsError, match=said):
        files.existing_file(path)


def test_files_that_are_too_large_are_refused_and_folders_are_told_from_files(files):
    assert files.existing_file("in", max_bytes=13)
    with pytest.raises(InvalidArgumentsError, match="has 13 bytes; at most 12 are taken"):
        files.existing_file("in", max_bytes=12)
    assert files.existing_folder(".") == files.home
    with pytest.raises(InvalidArgumentsError, match="not a folder"):
        files.existing_folder("in")


def test_a_file_appears_whole_or_not_at_all(files):
    with files.writing("sub/new") as temporary:
        temporary.write_text("whole")
        assert not (files.home / "sub/new").exists()
    assert (files.home / "sub/new").read_text() == "whole"

    def fail_half_way():
        with files.writing("sub/never") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [entry.name for entry in (files.home / "sub").iterdir()] == ["new"]


def test_of_two_writers_one_is_told_that_the_other_was_first(files):
    def write_both():
        with files.writing("new") as second:
            second.write_text("second")
            with files.writing("new") as first:
                first.write_text("first")

    with pytest.raises(InvalidArgumentsError, match="overwrite=true"):
        write_both()
    assert (files.home / "new").read_text() == "first"


def test_writing_replaces_files_on_request_and_folders_never(files):
    with files.writing("in", overwrite=True) as temporary:
        temporary.write_text("newer")
    assert files.existing_file("in").read_text() == "newer"
    for path in (".", "sub"):
        (files.home / "sub").mkdir(exist_ok=True)
        with pytest.raises(InvalidArgumentsError, match="name a file"), files.writing(path, overwrite=True):
            pass


def test_writing_through_a_link_stays_within_the_roots(files, tmp_path):
    (files.home / "link").symlink_to(tmp_path / "outside" / "out")
    with pytest.raises(ForbiddenError), files.writing("link", overwrite=True):
        pass
    assert (tmp_path / "outside/out").read_text() == "outside/out"


# --- hash_file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha3-256", "blake2b", "sha1", "md5"])
async def test_digests_are_those_of_the_standard_library(call, algorithm):
    content = os.urandom(3000)
    (call.home / "a").write_bytes(content)
    assert await call("hash_file", path="a", algorithm=algorithm) == {
        "path": "a",
        "algorithm": algorithm,
        "digest": hashlib.new(algorithm.replace("-", "_"), content).hexdigest(),
        "bytes": 3000,
    }


async def test_a_large_file_is_read_in_pieces_with_progress(call):
    size = 3 * 1024 * 1024 + 1
    (call.home / "a").write_bytes(bytes(size))
    digest = await call("hash_file", path="a")
    assert digest["digest"] == hashlib.sha256(bytes(size)).hexdigest()
    assert (call.items[-1].progress, call.items[-1].total) == (size, size)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"path": "/etc/hostname"}, ForbiddenError),
        ({"path": "none"}, InvalidArgumentsError),
        ({"path": "."}, InvalidArgumentsError),
        ({"path": "a", "algorithm": "crc32"}, InvalidArgumentsError),
    ],
)
async def test_only_files_below_the_roots_are_hashed(call, arguments, error):
    with pytest.raises(error):
        await call("hash_file", **arguments)


# --- file_detect -----------------------------------------------------------------------------------------------------


def png() -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "mime_type", "method"),
    [
        ("a.png", png(), "image/png", "signature"),
        ("a.zip", archive(), "application/zip", "signature"),
        ("a.pdf", b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n", "application/pdf", "signature"),
        ("a.gz", gzip.compress(b"hello"), "application/x-gzip", "signature"),
        ("a.json", b'{"a": [1, 2]}', "application/json", "text"),
        ("a.jsonl", b'{"a": 1}\n{"a": 2}\n', "application/jsonl", "text"),
        ("a.csv", b"a,b\n1,2\n", "text/csv", "text"),
        ("a.tsv", b"a\tb\n1\t2\n", "text/tab-separated-values", "text"),
        ("a.html", b"<!DOCTYPE html><html></html>", "text/html", "text"),
        ("a.svg", b"<?xml version='1.0'?><svg></svg>", "image/svg+xml", "text"),
        ("a.xml", b"<?xml version='1.0'?><a/>", "application/xml", "text"),
        ("a.py", b"#!/usr/bin/env python3\nprint()\n", "text/x-python", "text"),
        ("a.sh", b"#!/bin/sh\n", "text/x-shellscript", "text"),
        ("a.txt", b"Just some words.", "text/plain", "name"),
        ("words", b"Just some words.", "text/plain", "text"),
        ("a", b"", "application/x-empty", "empty"),
        ("a.unknown", b"\x01\x02\x03\x04\x05", "application/octet-stream", "none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_kinds_are_told_by_content(call, name, content, mime_type, method):
    (call.home / name).write_bytes(content)
    kind = await call("file_detect", path=name)
    assert (kind["mime_type"], kind["method"], kind["bytes"]) == (mime_type, method, len(content))


async def test_a_name_that_lies_is_told(call):
    (call.home / "picture.txt").write_bytes(png())
    (call.home / "picture.png").write_bytes(png())
    (call.home / "picture").write_bytes(png())
    fits = [
        (await call("file_detect", path=name))["extension_fits"] for name in ("picture.txt", "picture.png", "picture")
    ]
    assert fits == [False, True, None]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"plain", "us-ascii"),
        ("grün".encode(), "utf-8"),
        ("grün".encode("utf-8-sig"), "utf-8"),
        ("grün".encode("utf-16"), "utf-16"),
        ("grün".encode("utf-32"), "utf-32"),
        ("grün".encode("latin-1"), None),
        (b"a\0b", None),
    ],
)
async def test_encodings_are_believed_only_when_they_fit(call, content, encoding):
    (call.home / "a").write_bytes(content)
    kind = await call("file_detect", path="a")
    assert (kind["encoding"], kind["is_text"]) == (encoding, encoding is not None)


async def test_a_character_across_the_end_of_the_sample_is_no_error(call):
    (call.home / "a").write_bytes(b"x" * (256 * 1024 - 1) + "é".encode() * 100)
    assert (await call("file_detect", path="a"))["encoding"] == "utf-8"


async def test_files_outside_of_the_roots_are_not_looked_at(call):
    with pytest.raises(ForbiddenError):
        await call("file_detect", path="/etc/hostname")
