# SPDX-License-Identifier: AGPL-3.0-or-later
"""An HTTP transport that connects to public addresses only, whatever a name resolves to and whenever it changes.

A host is resolved once, each of its addresses is judged, and the connection goes to a judged address, not to the name:
a name that resolves differently a moment later (DNS rebinding) gains nothing. Proxies of the environment are not used.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterable
from functools import cache
from types import TracebackType
from typing import Any

import httpcore
import httpx
import trio

from actors.errors import ForbiddenError, UnavailableError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet. IPv6 addresses that stand for IPv4 ones are judged as those."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    )


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


async def checked_addresses(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The addresses of a host that may be connected to. Raises `ForbiddenError` if it has none of those."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError(f"the name {host} can't be resolved: {error.strerror or error}") from error
    texts = dict.fromkeys(str(entry[4][0]) for entry in found)
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in texts]
    allowed = [
        str(address) for address in addresses if is_public(address) or (allow_private and not address.is_multicast)
    ]
    if not allowed:
        raise ForbiddenError(
            f"{host} is not on the public internet; tools may reach private addresses only with "
            "tools.allow_private_addresses"
        )
    return allowed


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore, to judged addresses."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._plain = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        refused: Exception | None = None
        for address in await checked_addresses(host, port, allow_private=self._allow_private):
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refused = error
        assert refused is not None
        raise refused

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise ForbiddenError(f"Unix sockets ({path}, {timeout}, {socket_options}) are no web addresses")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _Body(httpx.AsyncByteStream):
    """httpcore's body for httpx."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - httpcore types it as one of several
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


@cache
def _ssl_context() -> ssl.SSLContext:
    """One for all: loading the certificates takes tens of milliseconds of the loop."""
    return httpx.create_ssl_context(trust_env=False)


class GuardedTransport(httpx.AsyncBaseTransport):
    """One for each fetch. Errors of the connection are httpcore's."""

    def __init__(self, *, allow_private: bool, ssl_context: ssl.SSLContext | None = None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or _ssl_context(),
            max_connections=1,
            max_keepalive_connections=0,
            http1=True,
            http2=False,
            network_backend=_GuardedBackend(allow_private=allow_private),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the body of the answer is not read yet."""
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            status_code=answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()
