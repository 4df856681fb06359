# SPDX-License-Identifier: AGPL-3.0-or-later
"""`http_fetch` reaches the public internet only: whatever a name resolves to, and wherever a server redirects."""

from __future__ import annotations

import ipaddress
from functools import partial

import httpcore
import pytest
import trio
from tool_calls import Caller, loaded
from web_server import OTHER, PRIVATE, PUBLIC, Internet, Server, answer, moved

from actors.errors import ForbiddenError, UnavailableError
from actors.tools.web_tools._guard import is_public
from actors.tools.web_tools.http_fetch import http_fetch


@pytest.fixture
async def server():
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        running = Server(listener.socket.getsockname()[1])
        nursery.start_soon(partial(trio.serve_listeners, running.serve, [listener]))
        yield running
        nursery.cancel_scope.cancel()


@pytest.fixture
async def guarded(tmp_path):
    """Fetch as it is by default."""
    return partial(Caller(loaded(http_fetch), tmp_path), "http_fetch")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1", "64:ff9b:1::1", "::127.0.0.1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:0:0:0:0:80ff:fffe",
    ],
)  # fmt: skip
def test_special_addresses_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_of_the_internet_are_public(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_by_default_nothing_on_this_machine_is_reached_however_it_is_written(server, guarded, host):
    with pytest.raises(ForbiddenError, match=r"tools\.allow_private_addresses"):
        await guarded(url=f"http://{host}:{server.port}/")
    assert server.connections == 0


@pytest.fixture
async def internet(server, monkeypatch):
    net = Internet(server.port)
    really = httpcore.TrioBackend.connect_tcp

    async def connect(self, host, port, *rest):
        net.connected.append(host)
        return await really(self, "127.0.0.1", net.port, *rest)

    monkeypatch.setattr(httpcore.TrioBackend, "connect_tcp", connect)
    trio.socket.set_custom_hostname_resolver(net)
    yield net
    trio.socket.set_custom_hostname_resolver(None)


async def test_a_public_name_is_reached_at_its_address(server, internet, guarded):
    internet.names["a.test"] = [[PUBLIC]]
    server.pages["/"] = answer(b"hello", content_type="text/plain")
    assert (await guarded(url="http://a.test/"))["text"] == "hello"
    assert internet.connected == [PUBLIC]
    assert server.header("host") == ["a.test"]


async def test_a_name_that_does_not_exist_is_said_to(internet, guarded):
    with pytest.raises(UnavailableError, match=r"none\.test can't be resolved"):
        await guarded(url="http://none.test/")


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1/", "http://inside.test/", "//169.254.169.254/latest/meta-data/"]
)
async def test_a_redirect_to_a_private_address_is_refused(server, internet, guarded, location):
    internet.names |= {"a.test": [[PUBLIC]], "inside.test": [[PRIVATE]]}
    server.pages["/"] = moved(location)
    with pytest.raises(ForbiddenError):
        await guarded(url="http://a.test/")
    assert internet.connected == [PUBLIC]


async def test_a_name_that_changes_its_address_after_the_check_gains_nothing(server, internet, guarded):
    internet.names["a.test"] = [[PUBLIC], [PRIVATE]]
    server.pages["/"] = answer()
    await guarded(url="http://a.test/")
    assert internet.connected == [PUBLIC]
    with pytest.raises(ForbiddenError):
        await guarded(url="http://a.test/")
    assert internet.connected == [PUBLIC]


async def test_of_several_addresses_only_the_public_ones_are_tried(server, internet, guarded):
    internet.names["a.test"] = [[PRIVATE, PUBLIC, "10.0.0.1"]]
    server.pages["/"] = answer()
    await guarded(url="http://a.test/")
    assert internet.connected == [PUBLIC]


async def test_headers_of_ones_own_do_not_follow_a_redirect_to_another_host(server, internet, guarded):
    internet.names |= {"a.test": [[PUBLIC]], "b.test": [[OTHER]]}
    server.pages |= {"/": moved("http://b.test/there"), "/there": moved("http://a.test/back"), "/back": answer()}
    await guarded(url="http://a.test/", headers={"Authorization": "Bearer x", "X-Key": "k"})
    assert [server.header("authorization", at) for at in range(3)] == [["Bearer x"], [], ["Bearer x"]]
    assert server.header("x-key", 1) == []


async def test_cookies_do_not_go_to_another_host(server, internet, guarded):
    internet.names |= {"a.test": [[PUBLIC]], "b.test": [[OTHER]]}
    server.pages |= {"/": answer(status="302 Found", location="http://b.test/x", set_cookie="a=b"), "/x": answer()}
    await guarded(url="http://a.test/")
    assert server.header("cookie", 1) == []


async def test_proxies_of_the_environment_are_not_used(server, internet, guarded, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    internet.names["a.test"] = [[PUBLIC]]
    server.pages["/"] = answer()
    await guarded(url="http://a.test/")
    assert internet.connected == [PUBLIC]
