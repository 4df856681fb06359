# SPDX-License-Identifier: AGPL-3.0-or-later
"""The listening sockets: one per gateway slot, on one port that nobody else has, connects wait in the backlog."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from supervisor.listeners import open_listeners, url_of
from supervisor.rundir import StartError


@pytest.fixture
def listeners():
    with ExitStack() as stack:

        def opened(host: str = "127.0.0.1", port: int = 0, count: int = 1) -> list[socket.socket]:
            return [stack.enter_context(sock) for sock in open_listeners(host, port, count)]

        yield opened


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_slot_has_a_socket_of_its_own_on_the_same_port(listeners, count):
    socks = listeners(count=count)
    assert len({sock.fileno() for sock in socks}) == count
    assert len({sock.getsockname() for sock in socks}) == 1
    assert socks[0].getsockname()[1] > 0


def test_connections_reach_every_slot(listeners):
    socks = listeners(count=2)
    with ExitStack() as clients:
        for _ in range(64):
            clients.enter_context(socket.create_connection(socks[0].getsockname(), timeout=5))
        for sock in socks:
            accepted, _ = sock.accept()
            accepted.close()


def test_a_connect_waits_in_the_backlog_while_nobody_accepts(listeners):
    [sock] = listeners()
    with socket.create_connection(sock.getsockname(), timeout=5) as client:
        client.sendall(b"early")
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.recv(16) == b"early"


def test_nothing_blocks_and_nothing_is_inherited_unasked(listeners):
    for sock in listeners(count=2):
        assert not sock.getblocking()
        assert not sock.get_inheritable()


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("second", [1, 2])
def test_a_port_that_is_taken_is_an_error_with_the_remedy(listeners, first, second):
    """Also when both would share the port: half of the connections would go to the other server."""
    port = listeners(count=first)[0].getsockname()[1]
    with pytest.raises(StartError, match=rf"127.0.0.1:{port} can't be listened on .*--host and --port"):
        listeners(port=port, count=second)


def test_a_port_that_is_free_again_can_be_taken_at_once(listeners):
    [sock] = listeners()
    address = sock.getsockname()
    client = socket.create_connection(address, timeout=5)
    accepted, _ = sock.accept()
    accepted.close()
    sock.close()
    client.close()
    assert listeners(port=address[1])[0].getsockname() == address


@pytest.mark.parametrize("host", ["192.0.2.1", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_an_error_with_the_remedy(host):
    with pytest.raises(StartError, match=rf"{host}:0 can't be listened on .*--host and --port"):
        open_listeners(host, 0, 1)


def test_the_url_is_the_address_really_bound(listeners):
    [sock] = listeners()
    assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_the_url_of_every_address_is_one_that_works(listeners):
    [sock] = listeners("0.0.0.0")
    assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_the_url_of_ipv6_has_brackets(listeners):
    try:
        [sock] = listeners("::1")
    except StartError:
        pytest.skip("no IPv6 here")
    assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"
