# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the configuration comes from: defaults, then the file, then the environment, then flags; each wins over the one
before. The result is one frozen `Settings` and, for each key, where its value came from.

Everything that is wrong is listed at once, with file, line, key and the nearest known key or what would be right.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from actors.errors import MCPServerError
from actors.settings import Settings
from supervisor.yaml_lines import Parsed, parse_scalar, read_yaml

_PREFIX = "GREENROOM_"
_SEED_VARIABLES = {
    "MCP_HOST": "server.host",
    "MCP_PORT": "server.port",
    "P2P_LISTEN_PORT": "p2p.connectivity.listen_port",
    "TASK_QUEUE_PATH": "p2p.task_queue.queue_path",
    "ENABLE_MCPLUSPLUS": "p2p.mcplusplus.enabled",
}
_NOT_SETTINGS = {"GREENROOM_CONFIG", "GREENROOM_DATA_DIR", "GREENROOM_ROOT_PID"}
_OLD_NAMES = {"runtimes.fastapi": "runtimes.general", "runtimes.trio": "runtimes.p2p"}
_WITHOUT_EFFECT = ("runtimes.general.enable_on_import", "runtimes.p2p.enable_on_import")
_SECRET_WORDS = ("token", "secret", "password", "_key")
_PATHS = ("p2p.task_queue.queue_path", "supervisor.runtime_dir", "tools.roots", "tools.paths")


class ConfigError(MCPServerError):
    """The configuration can't be used; the message lists everything that is wrong with it, a line each."""

    code = "CONFIG"


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from."""

    kind: str
    """`default`, `file`, `env` or `flag`."""
    place: str = ""
    """`config.yaml:12`, the variable's name, or the flag."""

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

    def put(self, key: str, value: object, origin: Origin, where: str) -> None:
        key = self._renamed(key, where)
        if key in _WITHOUT_EFFECT:
            self.notices.append(f"{where}: {key} has no effect here and can be removed")
        elif self._is_known(key):
            self.values[key] = value
            self.origin[key] = origin
        else:
            self.faults.append(f"{where}: unknown key {key!r}{_nearest(key, self.known)}")

    def _renamed(self, key: str, where: str) -> str:
        for old, new in _OLD_NAMES.items():
            if key == old or key.startswith(f"{old}."):
                self.notices.append(f"{where}: {old} is called {new} here")
                return new + key[len(old) :]
        return key

    def _is_known(self, key: str) -> bool:
        return key in self.known or any(
            pattern.endswith(".*") and key.startswith(pattern[:-1]) for pattern in self.known
        )


def find_data_dir(given: Path | None, env: Mapping[str, str]) -> Path:
    """The data directory: flag, `GREENROOM_DATA_DIR`, or the user's own (XDG)."""
    if given is not None:
        return given.expanduser().absolute()
    if env.get("GREENROOM_DATA_DIR"):
        return Path(env["GREENROOM_DATA_DIR"]).expanduser().absolute()
    share = env.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(share).expanduser() / "greenroom"


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
        draft.put(key, value, Origin("flag", f"--{key.rpartition('.')[2]}"), f"flag {key}")
    settings = _checked(draft)
    origin = {key: draft.origin.get(key, Origin("default")) for key in flat(settings)}
    return LoadedConfig(settings, origin, list(dict.fromkeys(draft.notices)))


def _take_file(draft: _Draft, file: Path, parsed: Parsed) -> None:
    draft.faults += [f"{file}:{fault.line}: {fault.problem}" for fault in parsed.faults]
    for old, new in _OLD_NAMES.items():
        if old in parsed.sections and new in parsed.sections:
            draft.faults.append(f"{file}:{parsed.sections[old]}: both {old} and {new} are given; keep {new}")
    for key, entry in parsed.entries.items():
        where = f"{file}:{entry.line}"
        draft.put(key, entry.value, Origin("file", f"{file.name}:{entry.line}"), where)


def _take_env(draft: _Draft, env: Mapping[str, str]) -> None:
    for name, text in sorted(env.items()):
        key = _SEED_VARIABLES.get(name)
        if key is None and name.startswith(_PREFIX) and name not in _NOT_SETTINGS:
            key = name[len(_PREFIX) :].lower().replace("__", ".")
        if key is None:
            continue
        is_list = draft.known.get(key) == "list"
        value: object = [part.strip() for part in text.split(",") if part.strip()] if is_list else parse_scalar(text)
        draft.put(key, value, Origin("env", name), f"environment variable {name}")


def _checked(draft: _Draft) -> Settings:
    """One frozen value, or everything that is wrong."""
    for key in _PATHS:
        if key in draft.values:
            draft.values[key] = _expanded(draft.values[key])
    settings = Settings()
    for key, value in draft.values.items():
        try:
            settings = msgspec.convert(_merged(settings, key, value), Settings)
        except msgspec.ValidationError as error:
            problem = str(error).partition(" - at ")[0]
            origin = draft.origin[key]
            draft.faults.append(f"{origin.place}: {key} = {_shown(key, value)}: {problem}")
    if not draft.faults:
        _check_exposure(draft, settings)
    if draft.faults:
        raise ConfigError("the configuration can't be used:\n  " + "\n  ".join(draft.faults))
    return settings


def _merged(settings: Settings, key: str, value: object) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(settings)
    *sections, name = key.split(".")
    at = plain
    for section in sections:
        at = at.setdefault(section, {})
    at[name] = value
    return plain


def _expanded(value: object) -> object:
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value


def _check_exposure(draft: _Draft, settings: Settings) -> None:
    host = settings.server.host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not settings.server.allow_unauthenticated:
        place = draft.origin.get("server.host", Origin("default"))
        draft.faults.append(
            f"{place}: server.host {host} can be reached by others and nobody has to prove who they are; keep "
            "127.0.0.1 behind a proxy that authenticates, or set server.allow_unauthenticated: true"
        )


def _shown(key: str, value: object) -> str:
    return '"***"' if is_secret(key) else msgspec.json.encode(value, enc_hook=str).decode()


def _nearest(key: str, known: Mapping[str, str]) -> str:
    matches = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def is_secret(key: str) -> bool:
    """Whether a key is named like a secret: its value is never shown."""
    return any(word in key.lower() for word in _SECRET_WORDS)


def describe(loaded: LoadedConfig) -> list[SettingLine]:
    """Every setting with its value and origin; secrets are hidden."""
    return [
        SettingLine(key, "***" if is_secret(key) and value else value, str(loaded.origin[key]))
        for key, value in flat(loaded.settings).items()
    ]


def flat(settings: Settings) -> dict[str, Any]:
    """All values by dotted key, in the order of the Structs."""
    values: dict[str, Any] = {}

    def walk(at: object, prefix: str) -> None:
        if isinstance(at, msgspec.Struct):
            for name in at.__struct_fields__:
                walk(getattr(at, name), f"{prefix}.{name}" if prefix else name)
        else:
            values[prefix] = msgspec.to_builtins(at)

    walk(settings, "")
    return values


def known_keys() -> dict[str, str]:
    """Every key that may be set -> `list`, `value`, or for free names below a section `section.*` -> `map`."""
    keys: dict[str, str] = {}
    for key, value in flat(Settings()).items():
        if isinstance(value, dict):
            keys[f"{key}.*"] = "map"
        else:
            keys[key] = "list" if isinstance(value, list) else "value"
    return keys
