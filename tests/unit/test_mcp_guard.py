# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which Host and Origin may pass."""

from __future__ import annotations

import pytest

from gateway.mcp.guard import Guard, host_name
from gateway.types import Request


def status(guard: Guard, host: str | None, origin: str | None = None, repeated: tuple[str, ...] = ()) -> int:
    headers = {name: value for name, value in (("host", host), ("origin", origin)) if value is not None}
    refusal = guard.refusal(Request("POST", headers, repeated=frozenset(repeated)))
    return 200 if refusal is None else refusal[0]


LOCAL = Guard(bound_host="127.0.0.1", allowed_hosts=[], allowed_origins=[])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8000", 200),
        ("127.8.9.10", 200),
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("[::1]:8000", 200),
        ("evil.example.com", 421),
        ("localhost.evil.example.com", 421),
        ("192.168.1.5:8000", 421),
        ("localhost:x", 421),
        ("localhost:80:80", 421),
        ("[::1", 421),
        ("[::1]x", 421),
        ("", 421),
        (None, 421),
    ],
)
def test_a_loopback_server_takes_loopback_names(host: str | None, expected: int) -> None:
    assert status(LOCAL, host) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:8000", 200),
        ("https://localhost:3000", 200),
        ("http://[::1]", 200),
        ("http://evil.example.com", 403),
        ("null", 403),
        ("", 403),
        ("file://localhost", 403),
        ("http://localhost/path", 403),
        ("http://[", 403),
    ],
)
def test_a_loopback_server_takes_loopback_origins(origin: str, expected: int) -> None:
    assert status(LOCAL, "127.0.0.1:8000", origin) == expected


def test_configured_names_pass_with_their_own_origin() -> None:
    guard = Guard(bound_host="10.0.0.1", allowed_hosts=["Gw.example.com", "other.example.com:81"], allowed_origins=[])
    assert status(guard, "gw.example.com:8443", "https://gw.example.com:8443") == 200
    assert status(guard, "gw.example.com", "https://app.example.com") == 403
    assert status(guard, "other.example.com:81") == 200
    assert status(guard, "other.example.com:82") == 421
    assert status(guard, "10.0.0.1") == 200


def test_configured_origins_pass() -> None:
    guard = Guard(bound_host="127.0.0.1", allowed_hosts=[], allowed_origins=["https://app.example.com/"])
    assert status(guard, "localhost", "https://app.example.com") == 200
    assert status(guard, "localhost", "https://app.example.com:444") == 403


def test_a_star_for_hosts_does_not_open_origins() -> None:
    guard = Guard(bound_host="127.0.0.1", allowed_hosts=["*"], allowed_origins=[])
    assert status(guard, "rebound.example.com") == 200
    assert status(guard, "rebound.example.com", "http://rebound.example.com") == 403


def test_a_star_for_origins_opens_them() -> None:
    guard = Guard(bound_host="127.0.0.1", allowed_hosts=[], allowed_origins=["*"])
    assert status(guard, "localhost", "null") == 200


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", ""])
def test_a_server_on_all_addresses_takes_addresses_but_no_names(bound: str) -> None:
    guard = Guard(bound_host=bound, allowed_hosts=[], allowed_origins=[])
    assert status(guard, "192.168.1.5:8000", "http://192.168.1.5:8000") == 200
    assert status(guard, "[fe80::1]:8000") == 200
    assert status(guard, "evil.example.com") == 421


def test_repeated_headers_are_refused_also_after_a_good_one() -> None:
    assert status(LOCAL, "localhost") == 200
    assert status(LOCAL, "localhost", repeated=("host",)) == 421
    assert status(LOCAL, "localhost", repeated=("origin",)) == 403


def test_the_memory_of_good_pairs_is_bounded() -> None:
    guard = Guard(bound_host="127.0.0.1", allowed_hosts=[], allowed_origins=[])
    for port in range(1, 2000):
        assert status(guard, f"localhost:{port}") == 200
    assert len(guard._remembered) <= 256


@pytest.mark.parametrize(
    ("host", "name"), [("a:1", "a"), ("a", "a"), ("[::1]", "::1"), ("[::1]:5", "::1"), (":5", None), ("a:b", None)]
)
def test_the_name_in_a_host(host: str, name: str | None) -> None:
    assert host_name(host) == name
