# SPDX-License-Identifier: AGPL-3.0-or-later
"""Profiles of MCP++ and bindings: how they are named, what a side says it has, and what can be used.

A profile can be used when both sides have it. Nothing is echoed: what the other side says is read, never repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from actors.jsonrpc import INVALID_PARAMS, RpcError
from actors.p2p.peer_registry.mcp.rpc import CURRENT_BINDING, LEGACY_BINDING

TRANSPORT: Final = "mcp++/p2p-transport"
PROFILES: Final = (
    "mcp++/mcp-idl",
    "mcp++/cid-envelope",
    "mcp++/ucan",
    "mcp++/deontic-policy",
    TRANSPORT,
    "mcp++/event-dag",
    "mcp++/risk-scheduling",
    "mcp++/x402-payments",
)
"""A to H, as they are sent."""
_OTHER_NAMES: Final = {
    "mcp++/idl": "mcp++/mcp-idl",
    "mcp++/profile-a-idl": "mcp++/mcp-idl",
    "mcp++/profile-b-cid-artifacts": "mcp++/cid-envelope",
    "mcp++/profile-c-ucan": "mcp++/ucan",
    "mcp++/profile-e-mcp-p2p": TRANSPORT,
}
"""As they are read, too."""
_MAP: Final = "io.mcplusplus/profiles"
_MOST_NAMES: Final = 64
"""Looked at in what the other side says."""
_NEGOTIATION: Final = "optional_additive"
"""How older nodes call it that a profile needs no agreement beyond both having it."""

Profiles = Mapping[str, Mapping[str, object]]
"""Those of one side, each with what is said of it."""


def known(names: Iterable[object]) -> list[str]:
    """Those that are profiles, by the names that we send, each once, in order."""
    found: dict[str, None] = {}
    for at, name in enumerate(names):
        if at >= _MOST_NAMES:
            break
        if isinstance(name, str):
            ours = _OTHER_NAMES.get(name, name)
            if ours in PROFILES:
                found[ours] = None
    return list(found)


# --- the current binding -------------------------------------------------------------------------------------------


def current_capabilities(profiles: Profiles, limits: Mapping[str, object]) -> dict[str, object]:
    """What a side says in its `capabilities`."""
    return {
        "extensions": {_MAP: {name: dict(said) for name, said in profiles.items()}},
        "mcp++": {"bindingId": CURRENT_BINDING, "profiles": list(profiles), "limits": dict(limits)},
    }


def read_current(capabilities: object) -> list[str]:
    """The profiles that the other side says it has. Raises `RpcError` when it speaks of another binding."""
    ours = _object(capabilities, "mcp++")
    check_binding(ours.get("bindingId"), CURRENT_BINDING)
    return known([*_object(_object(capabilities, "extensions"), _MAP), *_list(ours.get("profiles"))])


# --- the legacy binding --------------------------------------------------------------------------------------------


def legacy_capabilities(profiles: Profiles) -> dict[str, object]:
    """What a side says in its `capabilities`."""
    names = list(profiles)
    return {"mcp++": {"bindingId": LEGACY_BINDING, "profiles": names}, "mcpPlusPlusProfiles": names}


def read_legacy(capabilities: object) -> list[str]:
    """The same from a side that speaks the legacy binding, in each of the forms that are about. Profiles count only
    beside the binding's id, but for the list that deployed nodes send without one."""
    if not isinstance(capabilities, dict):
        return []
    found = list(_list(capabilities.get("mcpPlusPlusProfiles")))
    ours, experimental = _object(capabilities, "mcp++"), _object(capabilities, "experimental")
    if (said := ours.get("bindingId")) is not None:
        check_binding(said, LEGACY_BINDING)
        found += _list(ours.get("profiles"))
    if (said := experimental.get("mcp++/bindingId")) is not None:
        check_binding(said, LEGACY_BINDING)
        found += [name for name, value in experimental.items() if value is not False and value is not None]
    return known(found)


def legacy_negotiation(profiles: Profiles, wanted: Iterable[str]) -> dict[str, object]:
    """What deployed nodes say of profiles beside `capabilities`. `wanted`: what the other side named."""
    names = list(profiles)
    usable = [name for name in wanted if name in profiles]
    return {
        "profile_negotiation": {
            "supports_profile_negotiation": True,
            "mode": _NEGOTIATION,
            "profiles": names,
        },
        "active_profile": (usable or names or [""])[0],
    }


def check_binding(said: object, ours: str) -> None:
    """Raise `RpcError` when the other side names another binding than the one that is spoken; it need not name any."""
    if said is not None and said != ours:
        raise RpcError(INVALID_PARAMS, f"this stream speaks {ours}", {"bindingId": ours, "reason": "binding_mismatch"})


def most_bytes_of(limits: object, default: int) -> int:
    """The largest message that the other side takes, by the limits that it publishes."""
    said = limits.get("max_frame_bytes") if isinstance(limits, dict) else None
    return said if type(said) is int and said > 0 else default


def limits_of(capabilities: object) -> dict[str, Any]:
    """What the other side publishes in the current binding."""
    return _object(_object(capabilities, "mcp++"), "limits")


def _object(value: object, name: str) -> dict[str, Any]:
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
