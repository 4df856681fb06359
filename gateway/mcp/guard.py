# SPDX-License-Identifier: AGPL-3.0-or-later
"""Host and Origin checks: the guard against DNS rebinding and foreign pages in a browser.

A page of another site can make a browser talk to a loopback server, but it can choose neither the Host of a name that
it does not own nor its Origin. So Host must be a loopback name, the bound host, or a configured one (else 421), and
Origin, if there is one, a loopback name's, a configured one, or the same as an accepted Host (else 403). Ports do not
matter for names we know ourselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from gateway.types import Request

_REMEMBERED_MAX: Final = 256
"""Accepted pairs of Host and Origin that are remembered."""
_WILDCARD_BINDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, never bound


class Guard:
    """Decides on the Host and Origin of requests."""

    def __init__(self, *, bound_host: str, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> None:
        self._bound = bound_host.lower().strip("[]")
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        self._remembered: set[tuple[str | None, str | None]] = set()

    def refusal(self, request: Request) -> tuple[int, str] | None:
        """None when the request may pass, else HTTP status and reason."""
        host, origin = request.headers.get("host"), request.headers.get("origin")
        if (host, origin) in self._remembered and not request.repeated:
            return None
        if "host" in request.repeated or host is None or not self.host_allowed(host):
            return 421, "Host is not one of this server's names; add it to server.allowed_hosts"
        if "origin" in request.repeated or (origin is not None and not self._origin_allowed(origin, host)):
            return 403, "Origin is not allowed; add it to server.allowed_origins"
        if len(self._remembered) < _REMEMBERED_MAX:
            self._remembered.add((host, origin))
        return None

    def host_allowed(self, host: str) -> bool:
        """Whether a Host header's value names this server."""
        return "*" in self._hosts or self._known_host(host)

    def _known_host(self, host: str) -> bool:
        host = host.lower()
        name = host_name(host)
        if name is None:
            return False
        if name == self._bound or host in self._hosts or name in self._hosts or is_loopback(name):
            return True
        # Rebinding needs a name; an address literal in Host shows that the client meant this very address.
        return self._bound in _WILDCARD_BINDS and is_address(name)

    def _origin_allowed(self, origin: str, host: str) -> bool:
        origin = origin.lower()
        if "*" in self._origins or origin.rstrip("/") in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in {"http", "https"} or name is None or parts.path not in {"", "/"}:
            return False
        if is_loopback(name) or name == self._bound:
            return True
        # With `*` as host any name passes, a rebound one too, so that "same as Host" proves nothing.
        return parts.netloc == host.lower() and self._known_host(host)


def host_name(host: str) -> str | None:
    """The name or address in a Host value, without brackets and port; None when it is malformed."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or (rest and not rest.startswith(":")):
            return None
    else:
        name, _, port = host.partition(":")
    if not name or (port and not (port.isascii() and port.isdigit())):
        return None
    return name


def is_loopback(name: str) -> bool:
    """Whether a name or address always means this machine."""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_address(name: str) -> bool:
    """Whether this is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
