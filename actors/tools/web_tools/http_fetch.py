# SPDX-License-Identifier: AGPL-3.0-or-later
"""`http_fetch`: one document from the public web, within bounds of size and time."""

from __future__ import annotations

import base64
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import msgspec
import trio
from msgspec import Meta

from actors.errors import DeadlineExceededError
from actors.toolkit import ForbiddenError, InvalidArgumentsError, ToolContext, UnavailableError, tool
from actors.tools.web_tools._body import Collector, as_text

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
MAX_TIMEOUT_S = 120.0
_ENVELOPE_BYTES = 65536
_NOT_YOURS = {
    "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive",
    "proxy-authorization", "proxy-connection", "accept-encoding", "range",
}  # fmt: skip
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Fetched(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `http_fetch` answers: the body as `text` or as `base64`, never both."""

    url: str
    """The last address, after redirects."""
    status: int
    headers: dict[str, str]
    bytes: int
    """Of the body in this answer, unpacked."""
    truncated: bool
    """The body is longer than `max_bytes`; its beginning is here."""
    redirects: list[str]
    """Addresses that led here."""
    text: str | None = None
    encoding: str | None = None
    base64: str | None = None


@tool(read_only=True, idempotent=True, open_world=True, timeout=MAX_TIMEOUT_S + 5.0)
async def http_fetch(
    ctx: ToolContext,
    url: Annotated[str, Meta(min_length=1, max_length=8192)],
    max_bytes: Annotated[int, Meta(ge=1)] = 1_000_000,
    timeout: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_S)] = 30.0,
    headers: dict[str, str] | None = None,
) -> Fetched:
    """Fetch one document over HTTP or HTTPS with GET, following up to five redirects.

    Private, loopback and other special addresses are refused unless the configuration allows them. An answer of any
    status is a result, not an error.

    Args:
        url: Address, http or https.
        max_bytes: Most bytes of the body; the rest is cut off.
        timeout: Seconds for everything.
        headers: Request headers of your own. They go to the first address's host only, not to where it redirects.
    """
    # Base64 makes four bytes of three, and the answer has to fit below tools.max_result_bytes.
    most = min(ctx.settings.max_fetch_bytes, (ctx.settings.max_result_bytes - _ENVELOPE_BYTES) * 3 // 4)
    if max_bytes > most:
        raise InvalidArgumentsError(f"max_bytes is {max_bytes}; at most {most} are fetched", parameter="max_bytes")
    own_headers = _checked_headers(headers or {})
    with trio.move_on_after(timeout):
        return await _fetch(ctx, url, max_bytes, own_headers)
    raise DeadlineExceededError(f"{url} did not answer completely within {timeout:g} seconds")


async def _fetch(ctx: ToolContext, url: str, max_bytes: int, own_headers: dict[str, str]) -> Fetched:
    import httpcore
    import httpx

    from actors.tools.web_tools._guard import GuardedTransport

    origin = target = _checked_url(url)
    visited: list[str] = []
    transport = GuardedTransport(allow_private=ctx.settings.allow_private_addresses)
    try:
        # The tool's own `timeout` bounds everything together, which httpx's single limits do not.
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as client:  # noqa: S113
            while True:
                headers = own_headers if _same_origin(origin, target) else {}
                async with client.stream("GET", target, headers=_all_headers(headers)) as response:
                    if not response.has_redirect_location:
                        return await _read(ctx, response, target, visited, max_bytes)
                    visited.append(_shown(target))
                    if len(visited) > MAX_REDIRECTS:
                        raise InvalidArgumentsError(f"{_shown(origin)} redirects more than {MAX_REDIRECTS} times")
                    target = _checked_url(str(target.join(response.headers["location"])))
    except (httpcore.NetworkError, httpcore.TimeoutException) as error:
        raise UnavailableError(f"{_shown(target)} can't be reached: {_cause(error)}", retryable=True) from error
    except (httpcore.ProtocolError, httpx.DecodingError, httpx.InvalidURL) as error:
        raise UnavailableError(f"{_shown(target)} does not answer in proper HTTP: {_cause(error)}") from error


async def _read(
    ctx: ToolContext, response: httpx.Response, target: httpx.URL, visited: list[str], most: int
) -> Fetched:
    import httpcore

    length = response.headers.get("content-length", "")
    total = int(length) if length.isascii() and length.isdigit() else None
    collector = Collector(response.headers.get("content-encoding", ""), most)
    done = 0
    try:
        async for chunk in response.aiter_raw():
            done += len(chunk)
            collector.add(chunk)
            if collector.full:
                # The body's generators end in order only from within, so the connection is closed under them.
                await response.extensions["network_stream"].aclose()
            else:
                ctx.progress(done, total, "bytes")
    except (httpcore.NetworkError, httpcore.ProtocolError):
        if not collector.full:
            raise
    body = collector.body()
    text = as_text(body, response.headers.get("content-type", ""), truncated=collector.truncated)
    return Fetched(
        url=_shown(target),
        status=response.status_code,
        headers=dict(response.headers),
        bytes=len(body),
        truncated=collector.truncated,
        redirects=visited,
        text=text[0] if text else None,
        encoding=text[1] if text else None,
        base64=None if text else base64.b64encode(body).decode(),
    )


def _checked_url(url: str) -> httpx.URL:
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidArgumentsError(f"this is no usable address: {error}", parameter="url") from error
    if parsed.scheme not in ("http", "https"):
        raise ForbiddenError(f"only http and https are fetched, not {parsed.scheme or 'an address without a scheme'}")
    if not parsed.host:
        raise InvalidArgumentsError("the address names no host", parameter="url")
    if parsed.port is not None and parsed.port not in range(1, 65536):
        raise InvalidArgumentsError(f"there is no port {parsed.port}", parameter="url")
    if parsed.userinfo:
        raise InvalidArgumentsError("a name and password in the address would end up in logs; use headers")
    return parsed


def _checked_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidArgumentsError(f"the header {name!r} can't be sent as it is", parameter="headers")
        if name.lower() in _NOT_YOURS:
            raise InvalidArgumentsError(f"the header {name} is set by the tool itself", parameter="headers")
    return headers


def _all_headers(own: dict[str, str]) -> list[tuple[bytes, bytes]]:
    ours = {"user-agent": _user_agent(), "accept": "*/*"}
    given = {name.lower(): value for name, value in own.items()}
    together = {**ours, **given, "accept-encoding": "identity"}
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in together.items()]


def _user_agent() -> str:
    try:
        return f"greenroom/{version('greenroom')} (http_fetch)"
    except PackageNotFoundError:
        return "greenroom (http_fetch)"


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _shown(url: httpx.URL) -> str:
    return str(url)


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
