# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/clients.md: its snippets are JSON and YAML that work, and name commands, options and settings that there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from gateway.legacy_sse import STREAM_PATH
from supervisor.cli import greenroom
from supervisor.config import load
from supervisor.config_keys import known_keys

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
SNIPPETS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
SERVERS = [snippet.get("mcpServers", snippet.get("servers"))["greenroom"] for snippet in SNIPPETS]
COMMANDS = [server for server in SERVERS if "command" in server]
OPTIONS = {option for parameter in greenroom.commands["stdio"].params for option in parameter.opts}


def test_snippets_connect_by_both_ways():
    assert len(COMMANDS) == 2
    assert len(SERVERS) - len(COMMANDS) == 2


@pytest.mark.parametrize("server", COMMANDS, ids=lambda server: " ".join(server["args"]))
def test_a_snippets_command_is_one_that_setup_makes(server):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    *_, environment, folder, name = Path(server["command"]).parts
    assert name in scripts
    assert (environment, folder) == (".venv", "bin")
    assert Path(server["command"]).is_absolute()
    verb, *rest = server["args"]
    # It parses as the real command line does; nothing is run.
    context = greenroom.commands[verb].make_context(verb, rest)
    assert context.command.name == "stdio"


@pytest.mark.parametrize("url", re.findall(r"http://127\.0\.0\.1:8000(/\w+)", PAGE))
def test_addresses_exist(url):
    assert url in {"/mcp", STREAM_PATH}


def test_every_option_and_setting_that_is_named_exists():
    ours = set(re.findall(r"`(--[\w-]+)`", PAGE)) | set(re.findall(r"greenroom stdio (--[\w-]+)", PAGE))
    assert {"--own", "--attach", "--tools"} <= ours <= OPTIONS
    settings = re.findall(r"`((?:server|stdio)\.\w+)", PAGE)
    assert settings
    assert set(settings) <= set(known_keys())


def test_the_switch_of_the_old_transport_works(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert load(file, {}, {}).settings.server.legacy_sse


def test_the_old_transport_with_several_gateways_is_refused(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("server: {legacy_sse: true, gateways: 2}\n")
    with pytest.raises(Exception, match=r"server\.legacy_sse needs server\.gateways = 1"):
        load(file, {}, {})
