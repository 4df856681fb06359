# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults on the wire: what a broken or hostile peer may send to the sockets of a tree, and how it may read.

Each returns what it saw; it raises `WireError` when that is not what must happen.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec
import trio

from actors.messages import Answer, Call, Cancel, Failure, Frame, Reply
from actors.peers import hello
from actors.tool_messages import ToolCall
from supervisor.chaos.load import request_body, request_headers

_CLOSES_WITHIN_S = 7.0
"""An actor waits 5 s for a hello."""
_ANSWERS_WITHIN_S = 10.0
_HOLD_S = 1.5
_LENGTH = struct.Struct(">I")
_TOO_LONG = 2**31
_LARGE = 500_000
_MANY = 64
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode
_NOTHING = msgspec.Raw(_encode(None))


class WireError(Exception):
    """The other side did not do what it must. For the nemesis, which makes it a problem of the fault."""


def frame(value: Frame) -> bytes:
    """A frame as it goes over the wire."""
    data = _encode(value)
    return _LENGTH.pack(len(data)) + data


def greeting() -> bytes:
    """This side's hello, as a frame."""
    return frame(hello("chaos", 0))


def tool_call(call_id: int, tool: str, arguments: dict[str, object], timeout_s: float = _ANSWERS_WITHIN_S) -> bytes:
    """A call of a tool, as a frame for a pool's socket."""
    call = ToolCall(name=tool, arguments=msgspec.json.encode(arguments), call_id=f"chaos-wire-{call_id}")
    return frame(Call(call_id, "tools/call", timeout_s, msgspec.Raw(_encode(call))))


async def closes(path: str, data: bytes) -> float:
    """Send this to a Unix socket; seconds until the other side closed the connection."""
    async with await trio.open_unix_socket(path) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        return await _until_closed(stream, path)


async def _until_closed(stream: trio.abc.ReceiveStream, where: str) -> float:
    began = trio.current_time()
    with trio.move_on_after(_CLOSES_WITHIN_S):
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some(65536):
                pass
        return trio.current_time() - began
    raise WireError(f"{where} did not close the connection within {_CLOSES_WITHIN_S:g} s")


async def length_prefix(paths: Sequence[str], *, after_hello: bool) -> str:
    """Announce 2 GiB."""
    data = (greeting() if after_hello else b"") + _LENGTH.pack(_TOO_LONG) + b"x" * 1000
    slowest = max([await closes(path, data) for path in paths])
    return f"closed {len(paths)} connections, the last after {slowest * 1000:.0f} ms"


async def half_frame(paths: Sequence[str]) -> str:
    """Half of a hello, then the end; and half of a frame after a whole one."""
    whole = greeting()
    for path in paths:
        for data in (whole[: len(whole) // 2], whole + whole[:-3]):
            async with await trio.open_unix_socket(path) as stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(data)
                    await stream.send_eof()
                await _until_closed(stream, path)
    return f"closed {2 * len(paths)} connections"


async def random_bytes(paths: Sequence[str], ports: Sequence[int], chance: random.Random) -> str:
    """Noise, then the end."""
    targets: list[str | int] = [*paths, *ports]
    for target in targets:
        for _ in range(3):
            noise = chance.randbytes(chance.randint(1, 5000))
            stream = await _connect(target)
            async with stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(noise)
                    await stream.send_eof()
                await _until_closed(stream, str(target))
    return f"closed {3 * (len(paths) + len(ports))} connections"


async def _connect(target: str | int) -> trio.SocketStream:
    if isinstance(target, int):
        return await trio.open_tcp_stream("127.0.0.1", target)
    return await trio.open_unix_socket(target)


def _http(url: str, body: bytes, tool: str) -> tuple[str, int, bytes]:
    place = urlsplit(url)
    host, port = place.hostname or "127.0.0.1", place.port or 80
    headers = request_headers(tool) | {"host": f"{host}:{port}", "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return host, port, f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode() + body


async def slow_reader(url: str, pool_socket: str, number: int) -> str:
    """Ask for much over HTTP and on a pool's socket, and read nothing for a while."""
    body = request_body(number, "chaos_large", {"size": _LARGE * 8})
    host, port, request = _http(url, body, "chaos_large")
    async with await trio.open_tcp_stream(host, port) as web, await trio.open_unix_socket(pool_socket) as peer:
        await web.send_all(request)
        calls = b"".join(tool_call(call_id, "chaos_large", {"size": _LARGE}) for call_id in range(1, _MANY + 1))
        await peer.send_all(greeting() + calls)
        await trio.sleep(_HOLD_S)
    return f"read nothing of {(_LARGE * 8 + _LARGE * _MANY) // 1_000_000} MB for {_HOLD_S:g} s"


async def slow_writer(url: str, pool_socket: str, number: int, chance: random.Random) -> str:
    """A request in pieces of a few bytes, over HTTP and on a pool's socket; both must be answered right."""
    text = f"slow-{number}"
    host, port, request = _http(url, request_body(number, "echo", {"text": text}), "echo")
    async with await trio.open_tcp_stream(host, port) as web:
        pieces = await _in_pieces(web, request, chance)
        answer = b""
        with trio.move_on_after(_ANSWERS_WITHIN_S):
            while text.encode() not in answer and (chunk := await web.receive_some(65536)):
                answer += chunk
        if f'"text":"{text}"'.encode() not in answer:
            raise WireError(f"a request in pieces was answered {answer[:200]!r}")
    async with await trio.open_unix_socket(pool_socket) as peer:
        call = tool_call(1, "chaos_disk", {"token": text, "harm": False})
        pieces += await _in_pieces(peer, greeting() + call, chance)
        await _answered(peer, 1, text)
    return f"answered right, sent in {pieces} pieces"


async def _in_pieces(stream: trio.SocketStream, data: bytes, chance: random.Random) -> int:
    count = at = 0
    while at < len(data):
        size = chance.randint(1, 12)
        await stream.send_all(data[at : at + size])
        at += size
        count += 1
        await trio.sleep(chance.uniform(0.0, 0.003))
    return count


async def wrong_peer(pool_socket: str) -> str:
    """Cancels and answers for calls that never were, then the same call's id twice."""
    async with await trio.open_unix_socket(pool_socket) as peer:
        late: list[Frame] = [Cancel(99, "never was"), Reply(77, _NOTHING), Answer(5, 6, _NOTHING)]
        await peer.send_all(greeting() + b"".join(frame(one) for one in late))
        await peer.send_all(tool_call(1, "chaos_disk", {"token": "after-late", "harm": False}))
        await _answered(peer, 1, "after-late")
        await peer.send_all(frame(Cancel(1, "too late")))
        await peer.send_all(tool_call(2, "chaos_disk", {"token": "after-cancel", "harm": False}))
        await _answered(peer, 2, "after-cancel")
        # In one piece: the first of the two is still running when the second comes.
        await peer.send_all(tool_call(3, "chaos_large", {"size": 1}) + tool_call(3, "chaos_large", {"size": 1}))
        took = await _until_closed(peer, "the pool's socket, after a doubled id,")
    return f"late frames dropped; closed {took * 1000:.0f} ms after a doubled id"


async def _answered(stream: trio.SocketStream, call_id: int, text: str) -> None:
    """Read frames until the call's reply, which must hold the text."""
    data = b""
    with trio.move_on_after(_ANSWERS_WITHIN_S):
        while chunk := await stream.receive_some(65536):
            data += chunk
            while len(data) >= 4 and len(data) >= 4 + (size := _LENGTH.unpack_from(data)[0]):
                value, data = _decode(data[4 : 4 + size]), data[4 + size :]
                if isinstance(value, Failure) and value.id == call_id:
                    raise WireError(f"call {call_id} failed: {value.error.code}")
                if isinstance(value, Reply) and value.id == call_id:
                    if text.encode() not in bytes(value.body):
                        raise WireError(f"call {call_id} got the answer of another")
                    return
    raise WireError(f"call {call_id} was not answered")
