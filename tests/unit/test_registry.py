# SPDX-License-Identifier: AGPL-3.0-or-later
"""The router's registry: one flat list with unique names."""

from __future__ import annotations

from actors.router.registry import Registry
from actors.tool_messages import PromptDescriptor, ResourceDescriptor, ToolDescriptor


def tool(name, pool="general", **more):
    return ToolDescriptor(
        name=name,
        title=name,
        description="d",
        category="c",
        runtime="general",
        pool=pool,
        input_schema=b"{}",
        **more,
    )


def names(registry):
    return [(t.name, t.broken) for t in registry.catalogue.tools]


def test_tools_of_all_actors_are_listed_by_name():
    registry = Registry()
    assert registry.offer("tools.general", [tool("b"), tool("a")])
    assert registry.offer("peer_registry", [tool("c")])
    assert names(registry) == [("a", ""), ("b", ""), ("c", "")]
    assert registry.get("b").name == "b"


def test_the_version_grows_only_with_a_change():
    registry = Registry()
    registry.offer("tools.general", [tool("a")])
    version = registry.catalogue.version
    assert not registry.offer("tools.general", [tool("a")])
    assert registry.catalogue.version == version
    assert registry.offer("tools.general", [tool("a"), tool("b")])
    assert registry.catalogue.version == version + 1


def test_a_name_belongs_to_one_actor_and_the_second_offer_is_shown_as_broken():
    registry = Registry()
    registry.offer("tools.zeta", [tool("same", pool="zeta")])
    registry.offer("tools.alpha", [tool("same", pool="alpha")])
    assert names(registry) == [("same", ""), ("same@tools.zeta", "the name 'same' is taken by tools.alpha")]
    assert registry.get("same").pool == "alpha"


def test_a_withdrawn_tool_is_gone():
    registry = Registry()
    registry.offer("tools.general", [tool("a"), tool("b")])
    registry.offer("tools.general", [tool("b")])
    assert names(registry) == [("b", "")]


def test_the_configured_limit_is_part_of_the_tool():
    registry = Registry({"a": 3})
    registry.offer("tools.general", [tool("a"), tool("b")])
    assert registry.get("a").max_concurrent == 3
    assert registry.get("b").max_concurrent is None


COMMON = {"title": "t", "description": "d", "category": "c", "runtime": "general", "pool": "p"}


def resource(uri, **more):
    return ResourceDescriptor(name="r", uri=uri, **COMMON, **more)


def prompt(name, **more):
    return PromptDescriptor(name=name, **COMMON, **more)


def test_resources_and_prompts_are_listed_and_change_the_version():
    registry = Registry()
    assert registry.offer("tools.a", [], [resource("b:1"), resource("a:1")], [prompt("q"), prompt("p")])
    assert [one.uri for one in registry.catalogue.resources] == ["a:1", "b:1"]
    assert [one.name for one in registry.catalogue.prompts] == ["p", "q"]
    version = registry.catalogue.version
    assert not registry.offer("tools.a", [], [resource("b:1"), resource("a:1")], [prompt("q"), prompt("p")])
    assert registry.offer("tools.a", [], [resource("a:1")], [])
    assert registry.catalogue.version == version + 1


def test_a_uri_and_a_prompts_name_belong_to_one_actor():
    registry = Registry()
    registry.offer("tools.zeta", [], [resource("a:1")], [prompt("p")])
    registry.offer("tools.alpha", [], [resource("a:1"), resource("a:1", broken="own fault")], [prompt("p")])
    assert [one.broken for one in registry.catalogue.resources] == [
        "", "own fault", "the URI 'a:1' is taken by tools.alpha",
    ]  # fmt: skip
    assert [one.broken for one in registry.catalogue.prompts] == ["", "the name 'p' is taken by tools.alpha"]
