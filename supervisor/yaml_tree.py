# SPDX-License-Identifier: AGPL-3.0-or-later
"""A YAML (or JSON) document as plain values, with the line of each of them. It knows nothing of what they mean."""

from __future__ import annotations

import msgspec
import yaml

from supervisor.yaml_lines import Loader, YamlFault, scalar

Place = tuple[str | int, ...]
"""Keys and indices from the root to a value."""


class YamlTree(msgspec.Struct):
    """What a document holds."""

    value: object = None
    lines: dict[Place, int] = {}
    faults: list[YamlFault] = []

    def line_of(self, place: Place) -> int:
        """The line of what is there, or of the nearest around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_tree(data: bytes) -> YamlTree:
    """Read one document. Faults are listed, not raised."""
    tree = YamlTree()
    try:
        root = yaml.compose(data, Loader)
        tree.value = None if root is None else _value(root, (), tree)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        tree.faults.append(YamlFault(line, f"is not valid YAML: {error.problem}"))
    except yaml.reader.ReaderError as error:
        tree.faults.append(YamlFault(0, f"is not text in UTF-8: {error.reason} at byte {error.position}"))
    except RecursionError:
        tree.faults.append(YamlFault(0, "is nested too deeply"))
    return tree


def _value(node: yaml.Node, place: Place, tree: YamlTree) -> object:
    line = node.start_mark.line + 1
    tree.lines.setdefault(place, line)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*place, index), tree) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, tree)
    assert isinstance(node, yaml.ScalarNode)
    try:
        return scalar(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        tree.faults.append(YamlFault(line, f"has a value that can't be read as {kind}: {node.value[:100]!r}"))
        return None


def _mapping(node: yaml.MappingNode, place: Place, tree: YamlTree) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            tree.faults.append(YamlFault(line, "has a key that is not a plain word"))
        elif key.value in found:
            tree.faults.append(YamlFault(line, f"has the key {key.value!r} twice"))
        else:
            tree.lines[(*place, key.value)] = line
            found[key.value] = _value(value, (*place, key.value), tree)
    return found
