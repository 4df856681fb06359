# SPDX-License-Identifier: AGPL-3.0-or-later
"""Blocks of content, as MCP knows them: what a tool may return, and what a model is given or answers."""

from __future__ import annotations

import msgspec


class TextContent(msgspec.Struct, frozen=True, tag_field="type", tag="text", rename="camel", omit_defaults=True):
    """A block of text."""

    text: str


class ImageContent(msgspec.Struct, frozen=True, tag_field="type", tag="image", rename="camel", omit_defaults=True):
    """An image. `data` holds its bytes (base64 on the wire)."""

    data: bytes
    mime_type: str


class AudioContent(msgspec.Struct, frozen=True, tag_field="type", tag="audio", rename="camel", omit_defaults=True):
    """Sound. `data` holds its bytes (base64 on the wire)."""

    data: bytes
    mime_type: str


class ResourceContents(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What an embedded resource holds: `text`, or bytes in `blob` (base64 on the wire); exactly one of them."""

    uri: str
    mime_type: str | None = None
    text: str | None = None
    blob: bytes | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.blob is None):
            raise ValueError("a resource has either text or blob")


class EmbeddedResource(
    msgspec.Struct, frozen=True, tag_field="type", tag="resource", rename="camel", omit_defaults=True
):
    """A resource with its contents."""

    resource: ResourceContents


class ResourceLink(
    msgspec.Struct, frozen=True, tag_field="type", tag="resource_link", rename="camel", omit_defaults=True, kw_only=True
):
    """A pointer to a resource that the client may read."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    """Bytes."""


ContentBlock = TextContent | ImageContent | AudioContent | EmbeddedResource | ResourceLink
"""Return one of these, or a list, to say yourself how MCP clients see the result."""
