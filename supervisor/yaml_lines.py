# SPDX-License-Identifier: AGPL-3.0-or-later
"""A YAML file as dotted keys with values and line numbers, variables filled in. It knows nothing of what the keys
mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import yaml

MAX_FILE_BYTES = 1024 * 1024
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\})")


class Entry(msgspec.Struct, frozen=True):
    """One leaf of the file."""

    value: object
    line: int


class YamlFault(msgspec.Struct, frozen=True):
    """One thing that is wrong with the file, with its line."""

    line: int
    problem: str


class Parsed(msgspec.Struct):
    """What a file holds. Keys of mappings are joined by dots; lists are leaves."""

    entries: dict[str, Entry] = {}
    sections: dict[str, int] = {}
    faults: list[YamlFault] = []


def read_yaml(path: Path, env: Mapping[str, str]) -> Parsed:
    """Read one file. Faults are listed, not raised; an unreadable file is one fault at line 0."""
    parsed = Parsed()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        parsed.faults.append(YamlFault(0, f"can't be read ({error.strerror})"))
        return parsed
    if len(data) > MAX_FILE_BYTES:
        parsed.faults.append(YamlFault(0, f"is larger than {MAX_FILE_BYTES} bytes"))
        return parsed
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, yaml.SafeLoader)):
            parsed.faults.append(YamlFault(0, "uses aliases (*name), which are not supported"))
            return parsed
        root = yaml.compose(data, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        parsed.faults.append(YamlFault(line, f"is not valid YAML: {error.problem}"))
        return parsed
    except (yaml.YAMLError, RecursionError) as error:
        parsed.faults.append(YamlFault(0, f"is not valid YAML: {type(error).__name__}"))
        return parsed
    if root is not None:
        _Walk(parsed, env).node(root, "")
    return parsed


class _Walk:
    """From nodes to entries."""

    def __init__(self, parsed: Parsed, env: Mapping[str, str]) -> None:
        self._parsed = parsed
        self._env = env

    def node(self, node: yaml.Node, key: str) -> None:
        line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            self._parsed.sections[key] = line
            self._mapping(node, key)
        elif not key:
            self._parsed.faults.append(YamlFault(line, "must hold sections with keys, not a single value"))
        else:
            self._parsed.entries[key] = Entry(self._value(node), line)

    def _mapping(self, node: yaml.MappingNode, key: str) -> None:
        seen: set[str] = set()
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            name = str(name_node.value)
            if name in seen:
                self._parsed.faults.append(YamlFault(line, f"has the key {_join(key, name)!r} twice"))
                continue
            seen.add(name)
            self.node(value_node, _join(key, name))

    def _value(self, node: yaml.Node) -> object:
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return {str(name.value): self._value(value) for name, value in node.value}
        assert isinstance(node, yaml.ScalarNode)
        if "$" not in node.value:
            return scalar(node)
        text = self._filled(node.value, node.start_mark.line + 1)
        return text if node.style in {"'", '"'} else parse_scalar(text)

    def _filled(self, text: str, line: int) -> str:
        def fill(match: re.Match[str]) -> str:
            name, has_default, default = match.group(1), match.group(2), match.group(3)
            if name is None:
                return "$"
            if name in self._env and (self._env[name] or not has_default):
                return self._env[name]
            if has_default:
                return default or ""
            self._parsed.faults.append(
                YamlFault(line, f"uses ${{{name}}}, which is not set; set it, or write ${{{name}:-default}}")
            )
            return ""

        return _VARIABLE.sub(fill, text)


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def scalar(node: yaml.Node) -> object:
    """A plain value: text, number, truth or nothing. Dates stay text."""
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    loader = yaml.SafeLoader("")
    try:
        value: object = loader.construct_object(node, deep=True)
    finally:
        loader.dispose()
    return value


def parse_scalar(text: str) -> object:
    """Text as a YAML scalar would be read: `8000` is a number, `true` a truth value."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    if node is None:
        return ""
    return scalar(node) if isinstance(node, yaml.ScalarNode) else text
