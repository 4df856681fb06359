# SPDX-License-Identifier: AGPL-3.0-or-later
"""`http_fetch` against a real server on this machine: answers, bounds, addresses, headers and redirects."""

from __future__ import annotations

import base64
import gzip
import socket
import tracemalloc
import zlib
from functools import partial

import pytest
import trio
from tool_calls import Caller, loaded
from web_server import Server, answer, moved

from actors.errors import DeadlineExceededError, ForbiddenError, InvalidArgumentsError, UnavailableError
from actors.tools.web_tools.http_fetch import MAX_REDIRECTS, http_fetch


@pytest.fixture
async def server():
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        running = Server(listener.socket.getsockname()[1])
        nursery.start_soon(partial(trio.serve_listeners, running.serve, [listener]))
        yield running
        nursery.cancel_scope.cancel()


@pytest.fixture
async def fetch(tmp_path):
    """Fetch with private addresses allowed."""
    return partial(Caller(loaded(http_fetch), tmp_path, allow_private_addresses=True), "http_fetch")


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_a_page_of_text_is_answered_as_text(server, fetch):
    server.pages["/a?b=c"] = answer("grün".encode("latin-1"), content_type="text/plain; charset=ISO-8859-1", x_y="z")
    fetched = await fetch(url=f"{server.url}/a?b=c")
    assert (fetched["url"], fetched["status"], fetched["redirects"]) == (f"{server.url}/a?b=c", 200, [])
    assert (fetched["text"], fetched["encoding"], fetched["bytes"]) == ("grün", "iso8859-1", 4)
    assert (fetched["truncated"], fetched["headers"]["x-y"]) == (False, "z")
    assert "base64" not in fetched


async def test_other_bytes_are_answered_in_base64(server, fetch):
    server.pages["/"] = answer(b"\x00\xff", content_type="image/png")
    fetched = await fetch(url=server.url)
    assert base64.b64decode(fetched["base64"]) == b"\x00\xff"
    assert "text" not in fetched


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "304 Not Modified", "302 Found"])
async def test_any_status_is_a_result(server, fetch, status):
    server.pages["/"] = answer(b"", status)
    assert (await fetch(url=server.url))["status"] == int(status[:3])


@pytest.mark.parametrize(
    "charset", ["zlib", "hex", "rot13", "idna", "punycode", "undefined", "unicode_escape", "no-such", "base64", "."]
)
async def test_a_charset_that_is_none_is_read_as_utf_8(server, fetch, charset):
    bomb = zlib.compress(bytes(100_000))
    server.pages["/"] = answer(bomb, content_type=f"text/plain; charset={charset}")
    fetched = await fetch(url=server.url)
    assert (fetched["text"], fetched["encoding"]) == (bomb.decode("utf-8", "replace"), "utf-8")


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_a_long_body_is_cut_at_max_bytes_and_not_read_further(server, fetch):
    async def endless(stream):
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 65536)

    server.pages["/"] = endless
    fetched = await fetch(url=server.url, max_bytes=1000)
    assert (fetched["text"], fetched["bytes"], fetched["truncated"]) == ("x" * 1000, 1000, True)
    await server.left.wait()


@pytest.mark.parametrize(("most", "truncated"), [(999, True), (1000, False)])
async def test_a_body_of_exactly_max_bytes_is_whole(server, fetch, most, truncated):
    server.pages["/"] = answer(b"x" * 1000, content_type="text/plain")
    fetched = await fetch(url=server.url, max_bytes=most)
    assert (fetched["bytes"], fetched["truncated"]) == (most, truncated)


async def test_a_cut_character_is_left_out_and_not_mangled(server, fetch):
    server.pages["/"] = answer("aé".encode() * 2, content_type="text/plain")
    assert (await fetch(url=server.url, max_bytes=5))["text"] == "aéa"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_bomb_stays_packed(server, fetch, pack):
    encoding = "gzip" if pack is gzip.compress else "deflate"
    server.pages["/"] = answer(pack(bytes(4_000_000), 1), content_encoding=encoding, content_type="text/plain")
    await fetch(url=server.url, max_bytes=1)
    tracemalloc.start()
    fetched = await fetch(url=server.url, max_bytes=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (fetched["bytes"], fetched["truncated"]) == (1000, True)
    assert peak < 1_000_000
    assert server.header("accept-encoding") == ["identity"]


@pytest.mark.parametrize(("encoding", "said"), [("br", "packed its answer with br"), ("gzip", "not packed as it says")])
async def test_a_body_that_can_not_be_unpacked_is_an_error(server, fetch, encoding, said):
    server.pages["/"] = answer(b"nonsense", content_encoding=encoding)
    with pytest.raises(InvalidArgumentsError, match=said):
        await fetch(url=server.url)


async def test_more_than_the_configuration_allows_can_not_be_asked_for(tmp_path, server):
    call = Caller(loaded(http_fetch), tmp_path, allow_private_addresses=True, max_fetch_bytes=500)
    with pytest.raises(InvalidArgumentsError, match="max_bytes is 501; at most 500 are fetched"):
        await call("http_fetch", url=server.url, max_bytes=501)
    assert server.connections == 0


async def silence(_):
    await trio.sleep_forever()


async def half_a_body(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await trio.sleep_forever()


async def half_a_head(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-")
    await trio.sleep_forever()


@pytest.mark.parametrize("page", [silence, half_a_head, half_a_body])
async def test_the_time_out_bounds_everything(server, fetch, page):
    server.pages["/"] = page
    with pytest.raises(DeadlineExceededError, match=r"did not answer completely within 0\.03 seconds"):
        await fetch(url=server.url, timeout=0.03)


async def test_a_cancelled_fetch_hangs_up(server, fetch):
    async def until_closed(stream):
        assert await stream.receive_some() == b""

    server.pages["/"] = until_closed
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(fetch, url=server.url))
        await server.came.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await server.left.wait()


@pytest.mark.parametrize(
    "page",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 1_000_000,
    ],
    ids=["ssh", "nothing", "half", "huge length", "no header", "endless header"],
)
async def test_a_server_that_speaks_no_proper_http_is_said_to(server, fetch, page):
    server.pages["/"] = page
    with pytest.raises(UnavailableError, match="does not answer in proper HTTP"):
        await fetch(url=server.url)


async def test_a_server_that_is_not_there_is_worth_another_try(fetch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match="can't be reached") as failed:
            await fetch(url=f"http://127.0.0.1:{nobody.getsockname()[1]}/")
    assert failed.value.retryable


# --- addresses and headers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("file:///etc/passwd", ForbiddenError),
        ("ftp://example.com/", ForbiddenError),
        ("gopher://example.com/", ForbiddenError),
        ("/etc/passwd", ForbiddenError),
        ("example.com", ForbiddenError),
        ("javascript:alert(1)", ForbiddenError),
        ("http://", InvalidArgumentsError),
        ("http:///path", InvalidArgumentsError),
        ("http://user:secret@example.com/", InvalidArgumentsError),
        ("http://127.0.0.1:0/", InvalidArgumentsError),
        ("http://example.com:99999/", InvalidArgumentsError),
        ("http://example.com:x/", InvalidArgumentsError),
        ("http://[::1", InvalidArgumentsError),
        ("http://example.com/\r\nX: y", InvalidArgumentsError),
        ("", InvalidArgumentsError),
    ],
)
async def test_what_is_no_web_address_is_refused_and_no_secret_repeated(fetch, url, error):
    with pytest.raises(error) as refused:
        await fetch(url=url)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nevil: 1"}, {"x": "a\nb"}, {"x": "a\0"}, {"x\r\nevil": "1"}, {"x y": "1"}, {"": "1"}, {"x:": "1"},
        {"x": "日"}, {"host": "x"}, {"content-length": "5"}, {"Transfer-Encoding": "chunked"}, {"connection": "x"},
        {"Proxy-Authorization": "x"}, {"Accept-Encoding": "br"}, {"expect": "100-continue"}, {"upgrade": "h2c"},
    ],
)  # fmt: skip
async def test_headers_that_would_change_the_request_itself_are_refused(server, fetch, headers):
    with pytest.raises(InvalidArgumentsError):
        await fetch(url=server.url, headers=headers)
    assert server.connections == 0


async def test_headers_of_ones_own_are_sent_and_win(server, fetch):
    server.pages["/"] = answer()
    await fetch(url=server.url, headers={"Authorization": "Bearer x", "User-Agent": "mine", "X-Latin": "é"})
    assert (server.header("authorization"), server.header("user-agent")) == (["Bearer x"], ["mine"])
    assert server.header("x-latin") == ["é"]
    assert server.header("host") == [f"127.0.0.1:{server.port}"]


# --- redirects -------------------------------------------------------------------------------------------------------


async def test_redirects_are_followed_and_listed(server, fetch):
    server.pages |= {"/a": moved("/b?x=1"), "/b?x=1": moved(f"{server.url}/c"), "/c": answer(b"end")}
    fetched = await fetch(url=f"{server.url}/a", headers={"x-own": "1"})
    assert fetched["redirects"] == [f"{server.url}/a", f"{server.url}/b?x=1"]
    assert fetched["url"] == f"{server.url}/c"
    assert server.header("x-own") == ["1"]


async def test_redirects_end_somewhere(server, fetch):
    server.pages["/"] = moved("/")
    with pytest.raises(InvalidArgumentsError, match="redirects more than 5 times"):
        await fetch(url=server.url)
    assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://user:secret@127.0.0.1/"])
async def test_a_redirect_is_judged_like_a_first_address(server, fetch, location):
    server.pages["/"] = moved(location)
    with pytest.raises((ForbiddenError, InvalidArgumentsError)):
        await fetch(url=server.url)
