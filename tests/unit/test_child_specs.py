# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a child spec and a group may say: each fault is an error of its own that names the place and the field."""

from __future__ import annotations

import random

import msgspec
import pytest
from driving import child, group, root

from supervisor.core import Core
from supervisor.spec import Backoff, ChildSpec, GroupSpec, Heartbeat, Intensity, Limits, Restart, SpecError, Strategy

WRONG_CHILDREN = [
    ({"id": ""}, "id"),
    ({"id": "Router"}, "id"),
    ({"id": "0router"}, "id"),
    ({"id": "two words"}, "id"),
    ({"id": "pool#"}, "id"),
    ({"id": "pool#1#2"}, "id"),
    ({"id": "pool/../etc"}, "id"),
    ({"id": "router\n"}, "id"),
    ({"entry": ""}, "entry"),
    ({"entry": "module"}, "entry"),
    ({"entry": "module:"}, "entry"),
    ({"entry": ":main"}, "entry"),
    ({"entry": "module:two.parts"}, "entry"),
    ({"entry": "os;system:main"}, "entry"),
    ({"shutdown": "soon"}, "shutdown"),
    ({"shutdown": -0.1}, "shutdown"),
    ({"shutdown": float("nan")}, "shutdown"),
    ({"ready_timeout": 0.0}, "ready_timeout"),
    ({"ready_timeout": -1.0}, "ready_timeout"),
    ({"ready_timeout": float("nan")}, "ready_timeout"),
    ({"heartbeat": Heartbeat(every_s=0.0)}, "heartbeat.every_s"),
    ({"heartbeat": Heartbeat(every_s=-1.0)}, "heartbeat.every_s"),
    ({"heartbeat": Heartbeat(hung_after_s=float("nan"))}, "heartbeat.hung_after_s"),
    ({"heartbeat": Heartbeat(every_s=3.0, hung_after_s=5.9)}, "heartbeat.hung_after_s"),
    ({"limits": Limits(cpu_s=0)}, "limits.cpu_s"),
    ({"limits": Limits(open_files=-1)}, "limits.open_files"),
    ({"limits": Limits(file_size_bytes=-1)}, "limits.file_size_bytes"),
    ({"limits": Limits(address_space_bytes=0)}, "limits.address_space_bytes"),
    ({"spares": -1}, "spares"),
    ({"restart": "sometimes"}, "restart"),
    ({"significant": True}, "significant"),
]


@pytest.mark.parametrize(("fields", "field"), WRONG_CHILDREN)
def test_a_wrong_child_spec_names_the_child_and_the_field(fields, field):
    with pytest.raises(SpecError) as caught:
        ChildSpec(**({"id": "router", "entry": "some.module:main"} | fields))
    assert caught.value.where == f"child {fields.get('id', 'router')!r}"
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{caught.value.where}: {field} ")


WRONG_GROUPS = [
    ({"id": ""}, "id"),
    ({"id": "Tools"}, "id"),
    ({"id": "tools#0"}, "id"),
    ({"parent": "tools"}, "parent"),
    ({"strategy": "one_for_two"}, "strategy"),
    ({"intensity": Intensity(restarts=-1)}, "intensity.restarts"),
    ({"intensity": Intensity(within_s=0.0)}, "intensity.within_s"),
    ({"backoff": Backoff(first_s=-0.1)}, "backoff.first_s"),
    ({"backoff": Backoff(first_s=2.0, cap_s=1.0)}, "backoff.cap_s"),
    ({"backoff": Backoff(reset_after_s=-1.0)}, "backoff.reset_after_s"),
]


@pytest.mark.parametrize(("fields", "field"), WRONG_GROUPS)
def test_a_wrong_group_names_the_group_and_the_field(fields, field):
    with pytest.raises(SpecError) as caught:
        GroupSpec(**({"id": "tools"} | fields))
    assert caught.value.where == f"group {fields.get('id', 'tools')!r}"
    assert caught.value.field == field


WRONG_TREES = [
    ([], "the tree", "groups"),
    ([root(), group("other", parent=None)], "the tree", "groups"),
    ([root(), group("tools"), group("tools")], "group 'tools'", "id"),
    ([root(), group("tools", parent="later"), group("later")], "group 'tools'", "parent"),
    ([root(), child("a"), child("a")], "child 'a'", "id"),
    ([root(), child("a", group="nowhere")], "child 'a'", "group"),
]


@pytest.mark.parametrize(("specs", "where", "field"), WRONG_TREES)
def test_a_wrong_tree_names_the_place_and_the_field(specs, where, field):
    groups = [spec for spec in specs if isinstance(spec, GroupSpec)]
    children = [spec for spec in specs if isinstance(spec, ChildSpec)]
    with pytest.raises(SpecError) as caught:
        Core(groups, children, random.Random(0))
    assert (caught.value.where, caught.value.field) == (where, field)


@pytest.mark.parametrize(
    "name", ["router", "task_queue", "tools.general", "tools.general#0", "tools.my-pool#12", "router#spare0"]
)
def test_the_names_of_actors_are_accepted(name):
    assert ChildSpec(id=name, entry="actors.router.main:main").id == name


@pytest.mark.parametrize("shutdown", ["kill", None, 0.0, 5.0])
def test_each_way_of_stopping_is_accepted(shutdown):
    assert child("router", shutdown=shutdown).shutdown == shutdown


def test_restart_types_and_strategies_may_be_given_as_plain_words():
    assert child("router", restart="transient") == child("router", restart=Restart.TRANSIENT)
    assert group("tools", strategy="one_for_all") == group("tools", strategy=Strategy.ONE_FOR_ALL)


def test_the_defaults_of_a_child():
    spec = ChildSpec(id="router", entry="actors.router.main:main")
    assert spec.restart is Restart.PERMANENT
    assert spec.shutdown == 5.0
    assert spec.ready_timeout == 20.0
    assert spec.heartbeat == Heartbeat(every_s=1.0, hung_after_s=5.0)
    assert spec.limits == Limits(cpu_s=None, open_files=None, file_size_bytes=None, address_space_bytes=None)
    assert spec.spares == 0
    assert spec.group == "root"
    assert not spec.significant


def test_the_defaults_of_a_group():
    spec = GroupSpec(id="tools")
    assert spec.strategy is Strategy.ONE_FOR_ONE
    assert spec.intensity == Intensity(restarts=5, within_s=30.0)
    assert spec.backoff == Backoff(first_s=0.1, cap_s=10.0, reset_after_s=30.0)
    assert spec.parent == "root"
    assert spec.escalates


def test_specs_are_values_that_never_change():
    spec = child("router")
    with pytest.raises(AttributeError):
        spec.shutdown = 1.0
    assert spec == child("router")


def test_a_misspelt_field_is_refused_when_a_spec_is_read():
    with pytest.raises(msgspec.ValidationError, match="ready_timeuot"):
        msgspec.json.decode(b'{"id": "a", "entry": "m:f", "ready_timeuot": 1}', type=ChildSpec)
