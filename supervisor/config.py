# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the configuration comes from: defaults, then the file, then the environment, then flags; each wins over the one
before. The result is one frozen `Settings` and, for each key, where its value came from.

Everything that is wrong is listed at once, with file, line, key and the nearest known key or what would be right.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from actors.errors import MCPServerError
from actors.peer_provided import NOT_PROVIDED
from actors.settings import Settings
from supervisor.config_keys import Kind, find_key, flat, is_secret, known_keys, nearest, sections
from supervisor.yaml_lines import Parsed, parse_scalar, read_yaml

_PREFIX = "GREENROOM_"
_SEED_VARIABLES = {
    "MCP_HOST": "server.host",
    "MCP_PORT": "server.port",
    "P2P_LISTEN_PORT": "p2p.connectivity.listen_port",
    "TASK_QUEUE_PATH": "p2p.task_queue.queue_path",
    "ENABLE_MCPLUSPLUS": "p2p.mcplusplus.enabled",
}
_NOT_SETTINGS = ("GREENROOM_CONFIG", "GREENROOM_DATA_DIR", "GREENROOM_ROOT_PID", "GREENROOM_CHAOS_DIR")
_FLAGS = {
    "server.host": "--host",
    "server.port": "--port",
    "tools.paths": "--tools",
    "p2p.connectivity.listen_host": "--listen",
    "p2p.connectivity.listen_port": "--port",
    "p2p.peer_registry.secret_file": "--secret-file",
    "p2p.peer_registry.introduce_strangers": "--open",
}
_OLD_NAMES = {"runtimes.fastapi": "runtimes.general", "runtimes.trio": "runtimes.p2p"}
_WITHOUT_EFFECT = ("runtimes.general.enable_on_import", "runtimes.p2p.enable_on_import")
NOT_YET = (
    "runtimes.p2p.workers",
    "runtimes.p2p.timeout",
    "monitoring.enabled",
    "monitoring.metrics_port",
    "monitoring.enable_tracing",
    "monitoring.tracing_endpoint",
    "p2p.mcplusplus.",
)
"""Keys, and beginnings of keys, that are read and checked but change nothing yet."""
_PATHS = (
    "p2p.peer_registry.discovery.peer_file",
    "p2p.peer_registry.queue_protocol.secret_file",
    "p2p.task_queue.queue_path",
    "p2p.workflow_scheduler.store_path",
    "p2p.peer_registry.store_path",
    "p2p.peer_registry.secret_file",
    "supervisor.runtime_dir",
    "tools.roots",
    "tools.paths",
)
_TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_MAX_FAULTS = 20
_MAX_SHOWN = 100
_FRAME_OVERHEAD = 4096


class ConfigError(MCPServerError):
    """The configuration can't be used; the message lists everything that is wrong with it, a line each."""

    code = "CONFIG"


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from."""

    kind: str
    """`default`, `file`, `env` or `flag`."""
    place: str = ""
    """`config.yaml:12`, the variable's name, or the flag."""
    where: str = ""
    """The same as errors name it, with the file's whole path."""

    def __str__(self) -> str:
        return f"{self.kind} {self.place}".strip()


class SettingLine(msgspec.Struct, frozen=True):
    """One row of `greenroom config show`."""

    key: str
    value: Any
    origin: str


class LoadedConfig(msgspec.Struct, frozen=True):
    """The configuration and how it came about."""

    settings: Settings
    origin: dict[str, Origin]
    notices: list[str]


class _Draft:
    """Values by dotted key, while the sources are read."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origin: dict[str, Origin] = {}
        self.notices: list[str] = []
        self.faults: list[str] = []
        self.known = known_keys()
        self.sections = sections()

    def put(self, key: str, value: object, origin: Origin, text: str | None = None) -> None:
        """Take one value. `text`: the value as it was written outside of YAML, for keys that take text."""
        key = self._renamed(key, origin)
        found = find_key(key, self.known)
        if key in _WITHOUT_EFFECT:
            self.notices.append(f"{origin.where}: {key} has no effect here and can be removed")
        elif found is None:
            self._refuse(key, value, origin)
        else:
            if text is not None:
                value = _read_text(text, value, self.known[found])
            self.values[key] = value
            self.origin[key] = origin
            if key.startswith(NOT_YET):
                self.notices.append(f"{origin.where}: {key} changes nothing yet")

    def _renamed(self, key: str, origin: Origin) -> str:
        for old, new in _OLD_NAMES.items():
            if key == old or key.startswith(f"{old}."):
                self.notices.append(f"{origin.where}: {old} is called {new} here")
                return new + key[len(old) :]
        return key

    def _refuse(self, key: str, value: object, origin: Origin) -> None:
        if find_key(key, self.sections) is not None:
            # `server:` with nothing below it, as after commenting its keys out, is an empty section.
            if value is None or value == {}:
                self._open_section(key, origin)
            else:
                self.faults.append(f"{origin.where}: {key} is a section: it takes keys, not a value")
        elif len(self.faults) < _MAX_FAULTS:
            above = next((at for at in _above(key) if find_key(at, self.known)), None)
            hint = f"; {above} takes a value, not keys" if above else nearest(key, self.known)
            self.faults.append(f"{origin.where}: unknown key {key[:_MAX_SHOWN]!r}{hint}")
        else:
            self.faults.append("")

    def _open_section(self, key: str, origin: Origin) -> None:
        """A pool that is named and says nothing more has all its defaults."""
        if key not in self.sections:
            self.values[key] = {}
            self.origin[key] = origin


def _above(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _read_text(text: str, value: object, kind: Kind) -> object:
    """Text from outside of YAML, as its key takes it."""
    if kind.is_list:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind.is_text:
        return text
    return _TRUTHS.get(text.strip().lower(), value) if kind.is_truth else value


# --- sources -------------------------------------------------------------------------------------------------------


def find_data_dir(given: Path | None, env: Mapping[str, str]) -> Path:
    """The data directory: flag, `GREENROOM_DATA_DIR`, or the user's own (XDG). Raises `ConfigError`."""
    share = env.get("XDG_DATA_HOME") or ""
    if not share.startswith("/"):
        share = "~/.local/share"
    path = given or Path(env.get("GREENROOM_DATA_DIR") or Path(share) / "greenroom")
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{path}: there is no home directory here; name a data directory: --data-dir") from None


def find_config_file(given: Path | None, data_dir: Path, env: Mapping[str, str]) -> Path | None:
    """The file to read: flag, `GREENROOM_CONFIG`, or `config.yaml` in the data directory if it is there."""
    if given is not None:
        return given
    if env.get("GREENROOM_CONFIG"):
        return Path(env["GREENROOM_CONFIG"]).expanduser()
    usual = data_dir / "config.yaml"
    return usual if usual.exists() else None


def load(file: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> LoadedConfig:
    """Build the configuration. `flags`: dotted key -> value. Raises `ConfigError`."""
    draft = _Draft()
    if file is not None:
        _take_file(draft, file, read_yaml(file, env))
    _take_env(draft, env)
    for key, value in flags.items():
        flag = _FLAGS.get(key, key)
        draft.put(key, value, Origin("flag", flag, f"flag {flag}"))
    settings = _checked(draft)
    origin = {key: draft.origin.get(key, Origin("default")) for key in flat(settings)}
    return LoadedConfig(settings, origin, list(dict.fromkeys(draft.notices)))


def _take_file(draft: _Draft, file: Path, parsed: Parsed) -> None:
    draft.faults += [f"{file}:{fault.line}: {fault.problem}" for fault in parsed.faults]
    for old, new in _OLD_NAMES.items():
        if old in parsed.sections and new in parsed.sections:
            draft.faults.append(f"{file}:{parsed.sections[old]}: both {old} and {new} are given; keep {new}")
    for key, line in parsed.sections.items():
        if key and find_key(key, draft.sections):
            draft.put(key, {}, Origin("file", f"{file.name}:{line}", f"{file}:{line}"))
    for key, entry in parsed.entries.items():
        draft.put(key, entry.value, Origin("file", f"{file.name}:{entry.line}", f"{file}:{entry.line}"), entry.text)


def _take_env(draft: _Draft, env: Mapping[str, str]) -> None:
    """The seed's variables, then ours, which win. An empty variable counts as not set."""
    ours = {name: name[len(_PREFIX) :].lower().replace("__", ".") for name in sorted(env) if name.startswith(_PREFIX)}
    for name, key in (_SEED_VARIABLES | ours).items():
        text = env.get(name, "")
        if name in _NOT_SETTINGS or not text:
            continue
        if name in ours and "." not in key:
            # Service managers set variables like GREENROOM_PORT by themselves: not ours, unless it looks like a slip.
            _note_slip(draft, name)
        else:
            draft.put(key, parse_scalar(text), Origin("env", name, f"environment variable {name}"), text)


def _note_slip(draft: _Draft, name: str) -> None:
    for key in draft.known:
        variable = _PREFIX + key.upper().replace(".", "__")
        if variable.replace("__", "_") == name:
            draft.notices.append(f"environment variable {name} is not a setting; did you mean {variable}?")


# --- checks --------------------------------------------------------------------------------------------------------


def _checked(draft: _Draft) -> Settings:
    """One frozen value, or everything that is wrong."""
    for key in _PATHS:
        if key in draft.values:
            draft.values[key] = _expanded(draft, key, draft.values[key])
    plain: dict[str, Any] = {}
    for key, given in draft.values.items():
        found = find_key(key, draft.known)
        kind = draft.known.get(found or "", Kind())
        value = kind.choice(given)
        try:
            msgspec.convert(_placed({}, key, found, value), Settings)
        except msgspec.ValidationError as error:
            problem = str(error).partition(" - at ")[0]
            if kind.choices:
                problem = f"must be one of {', '.join(kind.choices)}"
            draft.faults.append(f"{draft.origin[key].where}: {key} = {_shown(key, value)}: {problem}")
        else:
            _placed(plain, key, found, value)
    if not draft.faults:
        settings = msgspec.convert(plain, Settings)
        _check_exposure(draft, settings)
        _check_sense(draft, settings)
        _check_peers(draft, settings)
    if draft.faults:
        more = len(draft.faults) - _MAX_FAULTS
        lines = draft.faults[:_MAX_FAULTS] + ([f"and {more} more"] if more > 0 else [])
        raise ConfigError("the configuration can't be used:\n  " + "\n  ".join(lines))
    return settings


def _placed(plain: dict[str, Any], key: str, found: str | None, value: object) -> dict[str, Any]:
    """Put a value where its key says. Below `section.*` the rest of the key is one name, dots included."""
    free = found is not None and found.endswith(".*")
    *above, name = key.split(".", found.count(".") if free and found else -1)
    at = plain
    for section in above:
        at = at.setdefault(section, {})
    at[name] = value
    return plain


def _expanded(draft: _Draft, key: str, value: object) -> object:
    if isinstance(value, list):
        return [_expanded(draft, key, item) for item in value]
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        draft.faults.append(f"{draft.origin[key].where}: {key} = {value!r}: there is no such home directory")
        return value


def _check_exposure(draft: _Draft, settings: Settings) -> None:
    host = settings.server.host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not settings.server.allow_unauthenticated:
        draft.faults.append(
            f"{_where(draft, 'server.host')}: server.host {host} can be reached by others and nobody has to prove who "
            "they are; keep 127.0.0.1 behind a proxy that authenticates, or set server.allow_unauthenticated: true"
        )


def _check_sense(draft: _Draft, settings: Settings) -> None:
    """Values that are right by themselves and wrong together."""
    sup = settings.supervisor
    if sup.hung_after_s < 2 * sup.heartbeat_s:
        draft.faults.append(
            f"{_where(draft, 'supervisor.hung_after_s', 'supervisor.heartbeat_s')}: supervisor.hung_after_s = "
            f"{sup.hung_after_s:g} must be at least twice supervisor.heartbeat_s = {sup.heartbeat_s:g}"
        )
    if settings.server.legacy_sse and settings.server.gateways > 1:
        draft.faults.append(
            f"{_where(draft, 'server.legacy_sse', 'server.gateways')}: server.legacy_sse needs server.gateways = 1: "
            "its streams belong to one process, and its messages could reach another"
        )
    frame = settings.channel.max_frame_bytes
    for key, size in (
        ("server.max_body_bytes", settings.server.max_body_bytes),
        ("tools.max_result_bytes", settings.tools.max_result_bytes),
    ):
        if size + _FRAME_OVERHEAD > frame:
            draft.faults.append(
                f"{_where(draft, key, 'channel.max_frame_bytes')}: {key} = {size} does not fit into "
                f"channel.max_frame_bytes = {frame}; {_FRAME_OVERHEAD} bytes of it are for the envelope"
            )
    pools, catalogue = len({"general", *settings.tools.pools}), settings.tools.max_catalogue_bytes
    if pools * catalogue + _FRAME_OVERHEAD > frame:
        draft.faults.append(
            f"{_where(draft, 'tools.max_catalogue_bytes', 'channel.max_frame_bytes')}: tools.max_catalogue_bytes = "
            f"{catalogue} for each of {pools} pools do not fit into channel.max_frame_bytes = {frame} together"
        )
    pool_of: dict[str, str] = {}
    for pool, wanted in settings.tools.pools.items():
        for category in wanted.categories:
            other = pool_of.setdefault(category, pool)
            if other != pool:
                key = f"tools.pools.{pool}.categories"
                draft.faults.append(f"{_where(draft, key)}: {key}: {category} runs in pool {other} already")


def _check_peers(draft: _Draft, settings: Settings) -> None:
    """The same, of the services between nodes; and what they do not provide."""
    values = flat(settings)
    for feature in NOT_PROVIDED:
        if feature.setting and values[feature.setting]:
            draft.faults.append(
                f"{_where(draft, feature.setting)}: {feature.setting} can't be switched on, this is not provided: "
                f"{feature.why_not}"
            )
    peers = settings.p2p.peer_registry
    if peers.ban_max_s < peers.ban_s:
        draft.faults.append(
            f"{_where(draft, 'p2p.peer_registry.ban_max_s', 'p2p.peer_registry.ban_s')}: p2p.peer_registry.ban_max_s = "
            f"{peers.ban_max_s:g} must be at least p2p.peer_registry.ban_s = {peers.ban_s:g}"
        )
    listen_host = settings.p2p.connectivity.listen_host
    if peers.discovery.mdns and listen_host and not _is_ipv4(listen_host):
        key, other = "p2p.peer_registry.discovery.mdns", "p2p.connectivity.listen_host"
        draft.faults.append(f"{_where(draft, key, other)}: {key} needs an IPv4 address in {other}, not {listen_host}")


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _where(draft: _Draft, *keys: str) -> str:
    """Where the first of these keys that was set was set."""
    return next((draft.origin[key].where for key in keys if key in draft.origin), "defaults")


def _shown(key: str, value: object) -> str:
    if is_secret(key):
        return '"***"'
    text = str(value) if isinstance(value, float) else msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def describe(loaded: LoadedConfig) -> list[SettingLine]:
    """Every setting with its value and origin; secrets are hidden."""
    return [
        SettingLine(key, "***" if is_secret(key) and value else value, str(loaded.origin[key]))
        for key, value in flat(loaded.settings).items()
    ]
