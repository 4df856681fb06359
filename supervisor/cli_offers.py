# SPDX-License-Identifier: AGPL-3.0-or-later
"""The verbs `resources` and `prompts`: list them, read one, fill one in."""

from __future__ import annotations

from pathlib import Path

import click

from supervisor.cli_common import Verbs, data_dir_of, data_dir_option, json_option, run


@click.group(cls=Verbs)
def resources() -> None:
    """List resources and read them."""


@resources.command("list")
@data_dir_option
@json_option
def resources_list(data_dir: Path | None, as_json: bool) -> None:
    """URIs and templates, with name, kind and pool; broken ones with the reason.

    Example: greenroom resources list
    """
    from supervisor import client, client_offers

    catalogue = run(lambda: client.catalogue(data_dir_of(data_dir)))
    if as_json:
        click.echo(client_offers.resources_json(catalogue))
        return
    for resource in catalogue.resources:
        click.echo(client_offers.resource_line(resource))


@resources.command("read")
@click.argument("uri")
@data_dir_option
@json_option
def resources_read(uri: str, data_dir: Path | None, as_json: bool) -> None:
    """Read a resource: text goes out as it is, other contents as their bytes.

    Example: greenroom resources read notes://milk
    """
    from supervisor import client_offers

    contents = run(lambda: client_offers.read_resource(data_dir_of(data_dir), uri))
    if as_json:
        click.echo(contents)
        return
    for text in client_offers.contents_of(contents):
        click.echo(text, nl=isinstance(text, str))


@click.group(cls=Verbs)
def prompts() -> None:
    """List prompts and fill them in."""


@prompts.command("list")
@data_dir_option
@json_option
def prompts_list(data_dir: Path | None, as_json: bool) -> None:
    """Names and arguments (`?`: may be left out), with category and pool; broken ones with the reason.

    Example: greenroom prompts list
    """
    from supervisor import client, client_offers

    catalogue = run(lambda: client.catalogue(data_dir_of(data_dir)))
    if as_json:
        click.echo(client_offers.prompts_json(catalogue))
        return
    for prompt in catalogue.prompts:
        click.echo(client_offers.prompt_line(prompt))


@prompts.command("get", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", nargs=-1)
@data_dir_option
@json_option
def prompts_get(name: str, arguments: tuple[str, ...], data_dir: Path | None, as_json: bool) -> None:
    """Fill a prompt in and show its messages; each argument is KEY=VALUE.

    Example: greenroom prompts get plan_day tone=short
    """
    from supervisor import client_offers

    messages = run(lambda: client_offers.get_prompt(data_dir_of(data_dir), name, arguments))
    click.echo(messages if as_json else client_offers.messages_text(messages))
