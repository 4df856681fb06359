# SPDX-License-Identifier: AGPL-3.0-or-later
"""A small HTTP server that answers what a test says, right or wrong, and a made-up internet around it."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP answer."""
    fields = {"content-length": str(len(body)), "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


def moved(location: str) -> bytes:
    return answer(b"elsewhere", "302 Found", location=location)


class Server:
    """Answers each path with bytes, or by a function of the stream; keeps the requests it got."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.pages = {}
        self.requests: list[bytes] = []
        self.connections = 0
        self.came = trio.Event()
        self.left = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        head = b""
        async with stream:
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            self.requests.append(head)
            self.came.set()
            page = self.pages[head.split(b" ")[1].decode()]
            with suppress(trio.BrokenResourceError):
                await (stream.send_all(page) if isinstance(page, bytes) else page(stream))
            self.left.set()

    def header(self, name: str, request: int = -1) -> list[str]:
        """The values of a header in one of the requests."""
        lines = self.requests[request].decode("latin-1").split("\r\n")[1:]
        return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name}: ")]


PUBLIC, OTHER, PRIVATE = "93.184.216.34", "93.184.216.35", "127.0.0.1"


class Internet(trio.abc.HostnameResolver):
    """Names, and public addresses that lead to the test's own server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.names: dict[str, list[list[str]]] = {}
        """Name -> what it resolves to, the first time, the second time, ..."""
        self.connected: list[str] = []

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        times = self.names[name]
        addresses = times.pop(0) if len(times) > 1 else times[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError
