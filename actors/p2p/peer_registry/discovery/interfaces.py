# SPDX-License-Identifier: AGPL-3.0-or-later
"""This machine's own IP addresses."""

from __future__ import annotations

import ipaddress

import ifaddr
import trio


async def own_addresses(version: int) -> list[str]:
    """Those of this version of IP, without those that mean something on one cable only. Raises `OSError`."""
    return await trio.to_thread.run_sync(_addresses, version)


async def own_ipv4() -> list[str]:
    """The same of IPv4."""
    return await own_addresses(4)


def _addresses(version: int) -> list[str]:
    found = []
    for adapter in ifaddr.get_adapters():
        for one in adapter.ips:
            ip = ipaddress.ip_address(one.ip if isinstance(one.ip, str) else one.ip[0])
            if ip.version == version and not ip.is_link_local:
                found.append(str(ip))
    return found
