# SPDX-License-Identifier: AGPL-3.0-or-later
"""What tools, resources and prompts are made of: content blocks, contents of resources, messages of prompts.

They are encoded where they are made and travel as MCP's JSON. Authors import them from `actors.toolkit`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.tool_messages import Annotations, Icon

Meta = dict[str, Any]
"""`_meta`: what programs may want to know beside the content; keys of your own begin with your domain name."""


class _Block(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What all blocks may carry."""

    annotations: Annotations | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class TextContent(_Block, frozen=True, tag_field="type", tag="text"):
    """A block of text."""

    text: str


class ImageContent(_Block, frozen=True, tag_field="type", tag="image"):
    """An image. `data` holds its bytes (base64 on the wire)."""

    data: bytes
    mime_type: str


class AudioContent(_Block, frozen=True, tag_field="type", tag="audio"):
    """Sound. `data` holds its bytes (base64 on the wire)."""

    data: bytes
    mime_type: str


class ResourceContents(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What a resource holds: `text`, or bytes in `blob` (base64 on the wire); exactly one of them."""

    uri: str
    mime_type: str | None = None
    text: str | None = None
    blob: bytes | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    def __post_init__(self) -> None:
        if (self.text is None) == (self.blob is None):
            raise ValueError("a resource has either text or blob")


class EmbeddedResource(_Block, frozen=True, tag_field="type", tag="resource"):
    """A resource with its contents."""

    resource: ResourceContents


class ResourceLink(_Block, frozen=True, tag_field="type", tag="resource_link", kw_only=True):
    """A pointer to a resource that the client may read."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    """Bytes."""
    icons: list[Icon] | None = None


ContentBlock = TextContent | ImageContent | AudioContent | EmbeddedResource | ResourceLink
"""Return one of these, or a list, to say yourself how MCP clients see the result."""


class PromptMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a prompt: who says it, and one block of content."""

    role: Literal["user", "assistant"]
    content: ContentBlock

    @staticmethod
    def user(content: ContentBlock | str) -> PromptMessage:
        """What the user says to the model."""
        return PromptMessage("user", TextContent(content) if isinstance(content, str) else content)

    @staticmethod
    def assistant(content: ContentBlock | str) -> PromptMessage:
        """What the model has answered."""
        return PromptMessage("assistant", TextContent(content) if isinstance(content, str) else content)
