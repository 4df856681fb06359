# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a new configuration changes in a running tree, and what of it needs a restart of the root. Pure.

New settings count for every process from its next life on. Tool processes get one at once, because tool files may have
changed as well; routers and gateways when any setting differs. What the root itself opened or started at the beginning
stays as it is.
"""

from __future__ import annotations

import msgspec

from actors.settings import Settings
from supervisor.bootstrap import as_configured
from supervisor.chaos.enabling import with_chaos
from supervisor.config_keys import flat
from supervisor.events import Reconfigure
from supervisor.tree import Tree, build_tree

AT_START_ONLY = (
    "chaos.enabled",
    "p2p.bootstrap_only",
    "server.host",
    "server.port",
    "server.gateways",
    "server.log_format",
    "server.log_level",
    "supervisor.breaker_deaths",
    "supervisor.breaker_open_cap_s",
    "supervisor.breaker_open_s",
    "supervisor.breaker_within_s",
    "supervisor.fork_server",
    "supervisor.quarantine_after",
    "supervisor.quarantine_max",
    "supervisor.runtime_dir",
)
"""Keys that only a new root takes over: it opened its sockets, set up its log and keeps its counts by them."""


class Reloaded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answer of admin method `reload`, and what `greenroom reload` prints."""

    changed: list[str]
    """Keys whose new value counts from now on."""
    needs_restart: list[str]
    """Keys whose new value counts after `greenroom down` and `up`."""
    replaced: list[str]
    """Actors that get a new process."""
    added: list[str]
    removed: list[str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done for a new configuration."""

    settings: Settings
    """The new ones, but for what needs a restart."""
    tree: Tree
    order: Reconfigure
    summary: Reloaded


def plan_reload(present: Settings, wanted: Settings, running: set[str]) -> Plan:
    """From the present settings to those of the file. `running`: the children that there are, without spares."""
    settings = as_configured(with_chaos(_keep(present, wanted)))
    needs_restart = [key for key in _different(present, wanted) if key in AT_START_ONLY]
    changed = _different(present, settings)
    tree = build_tree(settings)
    names = {spec.id for spec in tree.children}
    replaced = sorted(name for name in names & running if changed or name.startswith("tools."))
    return Plan(
        settings=settings,
        tree=tree,
        order=Reconfigure(tuple(tree.groups), tuple(tree.children), frozenset(replaced)),
        summary=Reloaded(
            changed=changed,
            needs_restart=needs_restart,
            replaced=replaced,
            added=sorted(names - running),
            removed=sorted(running - names),
        ),
    )


def _different(one: Settings, other: Settings) -> list[str]:
    before, after = flat(one), flat(other)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _keep(present: Settings, wanted: Settings) -> Settings:
    """The wanted settings with the present values of what only a new root takes over."""
    sections: dict[str, msgspec.Struct] = {}
    for key in AT_START_ONLY:
        section, _, name = key.partition(".")
        draft = sections.get(section, getattr(wanted, section))
        value = getattr(getattr(present, section), name)
        sections[section] = msgspec.structs.replace(draft, **{name: value})
    return msgspec.structs.replace(wanted, **sections)
