# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow's definition from a file, and what is wrong with it, by line."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.errors import InvalidArgumentsError, UnavailableError
from actors.workflow_messages import Workflow
from supervisor.yaml_tree import Place, YamlTree, read_tree

MAX_FILE_BYTES: Final = 16 << 20
"""The scheduler takes less, and says how much."""
STDIN: Final = "-"
_AT: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<key>[^`]*)`")
_PART: Final = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+)\]")


class WorkflowFile(msgspec.Struct):
    """What was read, and where it stands."""

    shown: str
    """Its name for people."""
    workflow: Workflow
    tree: YamlTree


def read_workflow(name: str) -> WorkflowFile:
    """Read a file, or standard input (`-`). Raises `UnavailableError` and `InvalidArgumentsError`, whose message and
    `details.faults` name lines."""
    shown = "standard input" if name == STDIN else name
    try:
        data = _read(name)
    except OSError as error:
        raise UnavailableError(f"{shown} can't be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InvalidArgumentsError(f"{shown} is larger than {MAX_FILE_BYTES} bytes")
    tree = read_tree(data)
    if tree.faults:
        raise _faulty(shown, [{"line": fault.line, "code": "YAML", "message": fault.problem} for fault in tree.faults])
    try:
        return WorkflowFile(shown, msgspec.convert(tree.value, Workflow), tree)
    except msgspec.ValidationError as error:
        place, problem = _explained(str(error))
        raise _faulty(shown, [{"line": tree.line_of(place), "code": "INVALID_ARGUMENTS", "message": problem}]) from None


def with_lines(error: InvalidArgumentsError, file: WorkflowFile) -> InvalidArgumentsError:
    """What the scheduler finds wrong with a definition, by the lines of the file."""
    faults = error.details.get("faults")
    if not isinstance(faults, list) or not faults:
        return error
    steps = {step.step_id: at for at, step in reversed(list(enumerate(file.workflow.steps)))}
    found = []
    for fault in faults:
        at = steps.get(fault.get("step", ""))
        found.append({**fault, "line": file.tree.line_of(() if at is None else ("steps", at))})
    more = error.details.get("more_faults") or 0
    return _faulty(file.shown, sorted(found, key=lambda fault: fault["line"]), more)


def _read(name: str) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _faulty(shown: str, faults: list[dict[str, Any]], more: int = 0) -> InvalidArgumentsError:
    lines = [f"  line {fault['line']}: {fault['message']} [{fault['code']}]" for fault in faults]
    lines += [f"  ... and {more} more"] if more else []
    count = len(faults) + more
    head = f"{shown} is no workflow that can be run: {count} {'fault' if count == 1 else 'faults'}"
    return InvalidArgumentsError("\n".join([head, *lines]), faults=faults)


def _explained(text: str) -> tuple[Place, str]:
    """Where msgspec found the fault, and its words."""
    found = _AT.search(text)
    path = found["path"].lstrip(".") if found is not None else ""
    problem = text[: found.start()] if found is not None else text
    parts = [*_PART.finditer(f".{path}" if path and path[0] != "[" else path), *_UNKNOWN.finditer(problem)]
    place = tuple(part["key"] if part["key"] is not None else int(part["index"]) for part in parts)
    return place, f"{path}: {problem}" if path else problem
