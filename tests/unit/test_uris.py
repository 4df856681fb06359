# SPDX-License-Identifier: AGPL-3.0-or-later
"""URIs of resources and templates: what may be declared, and what a URI means."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.uris import MAX_URI_CHARS, ResourceTable, UriError, UriTemplate, check_uri


@pytest.mark.parametrize(
    ("template", "uri", "values"),
    [
        ("notes://{id}/data", "notes://a/data", {"id": "a"}),
        ("notes://{id}/data", "notes://a%20%C3%BC/data", {"id": "a ü"}),
        ("notes://{id}/data", "notes://a/b/data", None),
        ("notes://{id}/data", "notes:///data", None),
        ("notes://{id}", "notes://a?b", None),
        ("notes://{id}", "notes://%FF", None),
        ("file:///{+path}", "file:///a/b.txt", {"path": "a/b.txt"}),
        ("x:{a}-{b}", "x:1-2-3", {"a": "1", "b": "2-3"}),
        ("x:{a}/of/{+rest}/end/{c}", "x:1/of/2/3/end/4", {"a": "1", "rest": "2/3", "c": "4"}),
        ("x:{a}/of/{+rest}/end/{c}", "x:1/of/end/4", None),
        ("x:{a}y", "x:y", None),
    ],
)
def test_a_template_gives_the_values_of_its_variables(template, uri, values):
    assert UriTemplate(template).match(uri) == values


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("notes", "needs a scheme"),
        ("{scheme}:x", "needs a scheme"),
        ("n://a b", "no blanks"),
        ("n://{a}{b}", "between them"),
        ("n://{?query}", r"\{name\} and \{\+name\} only"),
        ("n://{a,b}", r"\{name\} and \{\+name\} only"),
        ("n://{a", r"\{name\} and \{\+name\} only"),
        ("n://{a}/{a}", "twice"),
        ("n://{+a}/{+b}", "only one"),
        ("n:" + "a" * MAX_URI_CHARS, "more than 2048"),
    ],
)
def test_what_is_no_template_says_why(template, reason):
    with pytest.raises(UriError, match=reason):
        UriTemplate(template)


@pytest.mark.parametrize("uri", ["", "a", "a b:c", "1a:b", "a:\x00", "a:b c", "a:" + "x" * MAX_URI_CHARS])
def test_what_is_no_uri_is_refused(uri):
    with pytest.raises(UriError):
        check_uri(uri)


def test_a_uri_means_the_resource_that_has_it_then_the_most_specific_template():
    table = ResourceTable(["a://{+rest}", "a://{x}/long", "a://fixed", "not understood {", "a://{x}"])
    assert table.find("a://fixed") == (2, {})
    assert table.find("a://1/long") == (1, {"x": "1"})
    assert table.find("a://1/other") == (0, {"rest": "1/other"})
    assert table.find("b://1") is None
    assert table.find("a://" + "x" * MAX_URI_CHARS) is None


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=2))
def test_what_a_client_encodes_comes_back(values):
    from urllib.parse import quote

    one, two = values
    try:
        encoded = [quote(value, safe="") for value in values]
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text that could travel
    uri = "x:{a}/{b}".replace("{a}", encoded[0]).replace("{b}", encoded[1])
    assert UriTemplate("x:{a}/{b}").match(uri) == {"a": one, "b": two}


def test_no_uri_makes_matching_slow():
    template = UriTemplate("x:" + "-".join(f"{{v{number}}}" for number in range(20)))
    began = time.perf_counter()
    template.match("x:" + "-" * (MAX_URI_CHARS - 3) + "/")
    assert time.perf_counter() - began < 0.1
