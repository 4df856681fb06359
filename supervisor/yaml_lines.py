# SPDX-License-Identifier: AGPL-3.0-or-later
"""A YAML file as dotted keys with values and line numbers, variables filled in. It knows nothing of what the keys
mean.

`${NAME}` and `${NAME:-default}` are filled in within values, never within keys; `$$` is one `$`. A default ends at the
first `}` and holds no variables itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import yaml

MAX_FILE_BYTES = 256 * 1024
_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<has>:-(?P<default>[^}]*))?\}|(?P<bad>\{))"
)


class Entry(msgspec.Struct, frozen=True):
    """One leaf of the file."""

    value: object
    line: int
    text: str | None = None
    """The text itself, when a variable took part in an unquoted value: `value` is what YAML would make of it."""


class YamlFault(msgspec.Struct, frozen=True):
    """One thing that is wrong with the file, with its line."""

    line: int
    problem: str


class Parsed(msgspec.Struct):
    """What a file holds. Keys of mappings are joined by dots; lists are leaves."""

    entries: dict[str, Entry] = {}
    sections: dict[str, int] = {}
    faults: list[YamlFault] = []


class Loader(yaml.SafeLoader):
    """Refuses aliases where they stand, before anything is made of them."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As the base does. Raises `yaml.MarkedYAMLError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            alias: yaml.AliasEvent = self.peek_event()  # type: ignore[no-untyped-call]
            mark = cast("yaml.error.Mark | None", alias.start_mark)
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def read_yaml(path: Path, env: Mapping[str, str]) -> Parsed:
    """Read one file. Faults are listed, not raised; a file that can't be read at all is one fault at line 0."""
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
        root = yaml.compose(data, Loader)
        if root is not None:
            _Walk(parsed, env).node(root, "")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        parsed.faults.append(YamlFault(line, f"is not valid YAML: {error.problem}"))
    except yaml.reader.ReaderError as error:
        parsed.faults.append(YamlFault(0, f"is not text in UTF-8: {error.reason} at byte {error.position}"))
    except RecursionError:
        parsed.faults.append(YamlFault(0, "is nested too deeply"))
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
            self._fault(line, "must hold sections with keys, not a single value or a list")
        elif key in self._parsed.entries:
            self._fault(line, f"has the key {key!r} twice")
        else:
            before = len(self._parsed.faults)
            entry = self._entry(node, line)
            if len(self._parsed.faults) == before:
                self._parsed.entries[key] = entry

    def _mapping(self, node: yaml.MappingNode, key: str) -> None:
        seen: set[str] = set()
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                self._fault(line, "has a key that is not a plain word")
                continue
            name = name_node.value
            if name in seen:
                self._fault(line, f"has the key {_join(key, name)!r} twice")
                continue
            seen.add(name)
            self.node(value_node, _join(key, name))

    def _entry(self, node: yaml.Node, line: int) -> Entry:
        if isinstance(node, yaml.ScalarNode) and not node.style and "$" in node.value:
            text = self._filled(node.value, line)
            return Entry(parse_scalar(text), line, text)
        return Entry(self._value(node), line)

    def _value(self, node: yaml.Node) -> object:
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return {str(name.value): self._value(value) for name, value in node.value}
        assert isinstance(node, yaml.ScalarNode)
        line = node.start_mark.line + 1
        if "$" in node.value:
            text = self._filled(node.value, line)
            return text if node.style else parse_scalar(text)
        try:
            return scalar(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            self._fault(line, f"has a value that can't be read as {kind}: {node.value[:100]!r}")
            return None

    def _filled(self, text: str, line: int) -> str:
        def fill(match: re.Match[str]) -> str:
            if match["dollar"]:
                return "$"
            if match["bad"]:
                self._fault(line, "has '${' that begins no ${NAME} or ${NAME:-default}; write $${ for the text itself")
                return ""
            value = self._env.get(match["name"])
            if value or (value is not None and not match["has"]):
                return value
            if match["has"]:
                return match["default"] or ""
            name = match["name"]
            self._fault(line, f"uses ${{{name}}}, which is not set; set it, or write ${{{name}:-default}}")
            return ""

        return _VARIABLE.sub(fill, text)

    def _fault(self, line: int, problem: str) -> None:
        self._parsed.faults.append(YamlFault(line, problem))


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def scalar(node: yaml.ScalarNode) -> object:
    """A plain value: text, number, truth or nothing. Dates stay text.

    Raises YAMLError or ValueError for a tag that asks for more, and for numbers beyond all measure.
    """
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    loader = yaml.SafeLoader("")
    try:
        value: object = loader.construct_object(node, deep=True)
    finally:
        loader.dispose()
    return value


def parse_scalar(text: str) -> object:
    """Text as a YAML scalar would be read: `8000` is a number, `true` a truth value; what is neither stays text."""
    try:
        node = yaml.compose(text, Loader)
        if node is None:
            return ""
        return scalar(node) if isinstance(node, yaml.ScalarNode) else text
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return text
