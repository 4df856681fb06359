# SPDX-License-Identifier: AGPL-3.0-or-later
"""Configuration: where values come from, which wins, and how everything that is wrong is told."""

from __future__ import annotations

import msgspec
import pytest

from actors.peer_provided import FEATURES, NOT_PROVIDED
from actors.settings import Settings
from supervisor.config import NOT_YET, ConfigError, describe, find_config_file, find_data_dir, load
from supervisor.config_keys import flat, is_secret, known_keys

SEED = """
server:
  host: "127.0.0.1"
  port: 8000
  log_level: "INFO"
runtimes:
  fastapi:
    enabled: true
    workers: 4
    timeout: 60
  trio:
    enabled: true
    enable_on_import: true
tools:
  enabled_categories:
    - all
p2p:
  enabled: true
  mcplusplus:
    enabled: true
  workflow_scheduler:
    enabled: true
    max_concurrent_workflows: 100
    workflow_timeout: 3600
  task_queue:
    enabled: true
    queue_path: "~/.cache/ipfs_datasets_py/task_queue.duckdb"
    max_queue_size: 10000
  peer_registry:
    enabled: true
    bootstrap_nodes:
      - "/ip4/127.0.0.1/tcp/4001/p2p/QmBootstrap1"
    peer_discovery_interval: 60
  connectivity:
    listen_port: 4001
    max_connections: 100
    connection_timeout: 30
monitoring:
  enabled: true
  metrics_port: 9090
  enable_tracing: true
  tracing_endpoint: "http://localhost:4318"
"""
PEER = "12D3KooWGuEhyjCQTdBV6dVWELDWtRgVXfbBMuVGKUzoRN93Nmjk"


@pytest.fixture
def config(tmp_path):
    """Load a file with this text."""

    def load_text(text: str | bytes, env: dict[str, str] | None = None, **flags: object):
        file = tmp_path / "config.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(file, env or {}, {key.replace("__", "."): value for key, value in flags.items()})

    return load_text


@pytest.fixture
def faults(config, tmp_path):
    """What is wrong with a file with this text, one line each, without the folder's name."""

    def listed(text: str | bytes, env: dict[str, str] | None = None, **flags: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            config(text, env, **flags)
        assert caught.value.code == "CONFIG"
        head, *lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
        assert head == "the configuration can't be used:"
        return [line.strip() for line in lines]

    return listed


# --- the seed's file -----------------------------------------------------------------------------------------------


def test_every_key_of_the_seed_is_accepted(config):
    settings = config(SEED).settings
    assert settings.runtimes.general.workers == 4
    assert settings.p2p.workflow_scheduler.workflow_timeout == 3600.0
    assert settings.p2p.peer_registry.bootstrap_nodes == ["/ip4/127.0.0.1/tcp/4001/p2p/QmBootstrap1"]
    assert settings.monitoring.metrics_port == 9090


def test_old_names_of_the_runtimes_are_accepted_with_a_notice_each(config):
    loaded = config("runtimes:\n  fastapi: {workers: 3}\n  trio: {enabled: false}\n")
    assert loaded.settings.runtimes.general.workers == 3
    assert loaded.settings.runtimes.p2p.enabled is False
    assert [notice.partition(": ")[2] for notice in loaded.notices] == [
        "runtimes.fastapi is called runtimes.general here",
        "runtimes.trio is called runtimes.p2p here",
    ]


def test_an_old_name_beside_the_new_one_is_an_error(faults):
    assert faults("runtimes:\n  fastapi: {workers: 3}\n  general: {workers: 2}\n") == [
        "config.yaml:2: both runtimes.fastapi and runtimes.general are given; keep runtimes.general"
    ]


def test_a_key_that_changes_nothing_is_told(config):
    notices = config("runtimes:\n  p2p: {enable_on_import: true}\nmonitoring: {metrics_port: 9090}\n").notices
    assert any("runtimes.p2p.enable_on_import has no effect here and can be removed" in note for note in notices)
    assert any("monitoring.metrics_port changes nothing yet" in note for note in notices)


def test_what_changes_nothing_yet_names_known_keys():
    assert all(any(key.startswith(beginning) for key in known_keys()) for beginning in NOT_YET)


# --- precedence and origins ----------------------------------------------------------------------------------------


def test_default_then_file_then_environment_then_flag(config):
    key, text, env = "server.port", "server: {port: 1}", {"GREENROOM_SERVER__PORT": "2"}
    expected = [
        (config(""), 8000, "default"),
        (config(text), 1, "file config.yaml:1"),
        (config(text, env), 2, "env GREENROOM_SERVER__PORT"),
        (config(text, env, server__port=3), 3, "flag --port"),
    ]
    for loaded, value, origin in expected:
        assert loaded.settings.server.port == value
        assert str(loaded.origin[key]) == origin


def test_every_setting_has_an_origin(config):
    loaded = config(SEED)
    assert set(loaded.origin) == set(flat(loaded.settings))
    shown = {line.key: line for line in describe(loaded)}
    assert shown["p2p.connectivity.listen_port"].origin == "file config.yaml:35"
    assert shown["router.carry"].origin == "default"


def test_the_flag_for_tools_is_named_as_it_is_typed(config):
    assert str(config("", tools__paths=["./mine"]).origin["tools.paths"]) == "flag --tools"


def test_a_pool_that_only_has_a_name_has_all_defaults(config):
    loaded = config("tools:\n  pools:\n    heavy:\n    light: {}\n    fat: {workers: 2}\n")
    assert set(loaded.settings.tools.pools) == {"heavy", "light", "fat"}
    assert str(loaded.origin["tools.pools.fat.workers"]) == "file config.yaml:5"
    assert str(loaded.origin["tools.pools.fat.cpu_s"]) == "default"


def test_an_empty_file_and_empty_sections_are_defaults(config):
    assert config("").settings == config("# nothing\n").settings == config("server:\np2p:\n").settings == Settings()


def test_no_file_is_defaults():
    assert load(None, {}, {}).settings == Settings()


def test_the_file_is_found_by_flag_then_variable_then_data_directory(tmp_path):
    flag, variable = tmp_path / "flag.yaml", {"GREENROOM_CONFIG": "/etc/greenroom.yaml"}
    assert find_config_file(flag, tmp_path, variable) == flag
    assert str(find_config_file(None, tmp_path, variable)) == "/etc/greenroom.yaml"
    assert find_config_file(None, tmp_path, {}) is None
    (tmp_path / "config.yaml").touch()
    assert find_config_file(None, tmp_path, {}) == tmp_path / "config.yaml"


def test_the_data_directory_is_found_by_flag_then_variable_then_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    env = {"GREENROOM_DATA_DIR": "/data", "XDG_DATA_HOME": "/xdg"}
    assert find_data_dir(tmp_path, env) == tmp_path
    assert str(find_data_dir(None, env)) == "/data"
    assert str(find_data_dir(None, {"XDG_DATA_HOME": "/xdg"})) == "/xdg/greenroom"
    assert str(find_data_dir(None, {"XDG_DATA_HOME": "not/absolute"})) == "/home/somebody/.local/share/greenroom"


def test_a_file_that_is_named_and_missing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nothere\.yaml:0: can't be read \(No such file or directory\)"):
        load(tmp_path / "nothere.yaml", {}, {})


# --- environment ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("MCP_HOST", "127.0.0.2", "server.host", "127.0.0.2"),
        ("MCP_PORT", "9000", "server.port", 9000),
        ("P2P_LISTEN_PORT", "4002", "p2p.connectivity.listen_port", 4002),
        ("TASK_QUEUE_PATH", "/data/q.duckdb", "p2p.task_queue.queue_path", "/data/q.duckdb"),
        ("ENABLE_MCPLUSPLUS", "false", "p2p.mcplusplus.enabled", False),
        ("ENABLE_MCPLUSPLUS", "0", "p2p.mcplusplus.enabled", False),
        ("GREENROOM_P2P__ENABLED", "on", "p2p.enabled", True),
        ("GREENROOM_TOOLS__ROOTS", "/a, /b", "tools.roots", ["/a", "/b"]),
        ("GREENROOM_TOOLS__POOLS__HEAVY__WORKERS", "3", "tools.pools.heavy.workers", 3),
        ("GREENROOM_TOOLS__MAX_CONCURRENT__ECHO", "3", "tools.max_concurrent.echo", 3),
        ("GREENROOM_P2P__TASK_QUEUE__QUEUE_PATH", "2024", "p2p.task_queue.queue_path", "2024"),
        ("GREENROOM_SERVER__LOG_LEVEL", "debug", "server.log_level", "DEBUG"),
        ("GREENROOM_SUPERVISOR__HEARTBEAT_S", "0.5", "supervisor.heartbeat_s", 0.5),
    ],
)
def test_environment_variables_set_their_key(variable, text, key, value):
    loaded = load(None, {variable: text}, {})
    assert flat(loaded.settings)[key] == value
    assert str(loaded.origin[key]) == f"env {variable}"


def test_our_variable_wins_over_the_seeds():
    assert load(None, {"GREENROOM_SERVER__PORT": "1", "MCP_PORT": "2"}, {}).settings.server.port == 1


def test_an_empty_variable_counts_as_not_set(config):
    env = {"MCP_PORT": "", "GREENROOM_SERVER__HOST": ""}
    assert config("server: {port: 81}", env).settings.server.port == 81


def test_a_wrong_variable_is_an_error_that_names_it_and_the_key(faults):
    env = {"GREENROOM_SERVER__PROT": "1", "MCP_PORT": "many"}
    assert faults("", env) == [
        "environment variable GREENROOM_SERVER__PROT: unknown key 'server.prot'; did you mean 'server.port'?",
        'environment variable MCP_PORT: server.port = "many": Expected `int`, got `str`',
    ]


def test_variables_of_others_that_begin_like_ours_are_left_alone_and_slips_are_told():
    env = {"GREENROOM_PORT": "tcp://10.0.0.1:8000", "GREENROOM_SERVICE_HOST": "10.0.0.1", "GREENROOM_SERVER_PORT": "1"}
    loaded = load(None, env | {"GREENROOM_DATA_DIR": "/x", "GREENROOM_CONFIG": "/y", "GREENROOM_ROOT_PID": "1"}, {})
    assert loaded.settings == Settings()
    assert loaded.notices == [
        "environment variable GREENROOM_SERVER_PORT is not a setting; did you mean GREENROOM_SERVER__PORT?"
    ]


# --- substitution --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "env", "value"),
    [
        ("${H}", {"H": "127.0.0.3"}, "127.0.0.3"),
        ("127.0.0.${N}", {"N": "4"}, "127.0.0.4"),
        ("${H:-127.0.0.5}", {}, "127.0.0.5"),
        ("${H:-127.0.0.5}", {"H": ""}, "127.0.0.5"),
        ("${H:-127.0.0.5}", {"H": "127.0.0.6"}, "127.0.0.6"),
        ('"${A}.0.0.${B}"', {"A": "127", "B": "7"}, "127.0.0.7"),
        ("'${H}'", {"H": "127.0.0.8"}, "127.0.0.8"),
    ],
)
def test_variables_are_filled_in(config, written, env, value):
    assert config(f"server:\n  host: {written}\n", env).settings.server.host == value


def test_a_filled_in_value_is_typed_by_its_key(config):
    text = (
        "server:\n  port: '${P}'\n  gateways: ${G}\np2p:\n  enabled: ${E:-true}\n  task_queue:\n    queue_path: ${Q}\n"
        "tools:\n  roots: ['${R}/x']\n"
    )
    env = {"P": "8", "G": "2", "Q": "0123", "R": "/r"}
    with pytest.raises(ConfigError, match=r'server.port = "8": Expected `int`, got `str`'):
        config(text, env)
    settings = config(text.replace("'${P}'", "${P}"), env).settings
    assert (settings.server.port, settings.server.gateways, settings.p2p.enabled) == (8, 2, True)
    assert settings.p2p.task_queue.queue_path == "0123", "a text key keeps the text"
    assert settings.tools.roots == ["/r/x"]


def test_a_missing_variable_is_an_error_that_names_file_line_and_remedy(faults):
    assert faults("server:\n  port: 1\n  host: ${NOBODY}\n")[0] == (
        "config.yaml:3: uses ${NOBODY}, which is not set; set it, or write ${NOBODY:-default}"
    )


def test_keys_and_comments_are_not_substituted(faults, config):
    assert "unknown key 'server.${KEY}'" in faults("server:\n  ${KEY}: 1\n", {"KEY": "port"})[0]
    assert config("# ${NOBODY}\nserver: {port: 1}\n").settings.server.port == 1


def test_a_value_is_never_read_as_more_than_a_value(config):
    path = "x: 1\nserver: {host: 0.0.0.0}"
    assert config("supervisor:\n  runtime_dir: ${X}\n", {"X": path}).settings.supervisor.runtime_dir == path


def test_two_dollars_are_one(config):
    loaded = config("supervisor:\n  runtime_dir: '/a/$${HOME}/$$/$x'\n", {"HOME": "/h"})
    assert loaded.settings.supervisor.runtime_dir == "/a/${HOME}/$/$x"


@pytest.mark.parametrize("written", ["${", "${1X}", "${A-b}", "'${A b}'", "${A:-b"])
def test_a_malformed_variable_is_an_error(faults, written):
    assert any("begins no ${NAME}" in line for line in faults(f"server:\n  host: {written}\n", {"A": "x"}))


def test_a_home_directory_is_filled_in(config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    loaded = config("tools: {roots: [~/data, /x]}\np2p: {task_queue: {queue_path: ~/q.duckdb}}\n")
    assert loaded.settings.tools.roots == ["/home/somebody/data", "/x"]
    assert loaded.settings.p2p.task_queue.queue_path == "/home/somebody/q.duckdb"


# --- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("server:\n  prot: 1\n", "config.yaml:2: unknown key 'server.prot'; did you mean 'server.port'?"),
        ("servr:\n  port: 1\n", "config.yaml:2: unknown key 'servr.port'; did you mean 'server.port'?"),
        (
            "tools:\n  pools:\n    fat: {wrokers: 3}\n",
            "config.yaml:3: unknown key 'tools.pools.fat.wrokers'; did you mean 'tools.pools.fat.workers'?",
        ),
        ("zzz: 1\n", "config.yaml:1: unknown key 'zzz'"),
        ("server: 5\n", "config.yaml:1: server is a section: it takes keys, not a value"),
        ("tools: {pools: [a]}\n", "config.yaml:1: tools.pools is a section: it takes keys, not a value"),
        (
            "server:\n  port:\n    a: 1\n",
            "config.yaml:3: unknown key 'server.port.a'; server.port takes a value, not keys",
        ),
        ("server:\n  port: x\n", 'config.yaml:2: server.port = "x": Expected `int`, got `str`'),
        ("server:\n  port:\n", "config.yaml:2: server.port = null: Expected `int`, got `null`"),
        ("server:\n  port: true\n", "config.yaml:2: server.port = true: Expected `int`, got `bool`"),
        ("server:\n  port: 1.5\n", "config.yaml:2: server.port = 1.5: Expected `int`, got `float`"),
        ("server:\n  port: 65536\n", "config.yaml:2: server.port = 65536: Expected `int` <= 65535"),
        ("tools:\n  roots: /data\n", 'config.yaml:2: tools.roots = "/data": Expected `array`, got `str`'),
        ("tools:\n  roots:\n  - 1\n", "config.yaml:3: tools.roots = [1]: Expected `str`, got `int`"),
        (
            "server: {log_level: LOUD}\n",
            'config.yaml:1: server.log_level = "LOUD": must be one of DEBUG, ERROR, INFO, WARNING',
        ),
        ("server:\n  port: 1\n  port: 2\n", "config.yaml:3: has the key 'server.port' twice"),
        ("server.port: 1\nserver: {port: 2}\n", "config.yaml:2: has the key 'server.port' twice"),
        ("server: {port: 1}\nserver: {host: x}\n", "config.yaml:2: has the key 'server' twice"),
        ("- a\n- b\n", "config.yaml:1: must hold sections with keys, not a single value or a list"),
        ("hello\n", "config.yaml:1: must hold sections with keys, not a single value or a list"),
        ("? [a, b]\n: 1\n", "config.yaml:1: has a key that is not a plain word"),
        ("server: [\n", "config.yaml:2: is not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\n---\nb: 2\n", "config.yaml:2: is not valid YAML: but found another document"),
        ("a: &x 1\nb: *x\n", "config.yaml:2: is not valid YAML: aliases (*name) are not supported"),
        ("a: &x [*x]\n", "config.yaml:1: is not valid YAML: aliases (*name) are not supported"),
        (
            "server: {port: !!python/object/apply:os.getpid []}\n",
            "config.yaml:1: server.port = []: Expected `int`, got `array`",
        ),
        ("server: {port: !!python/name:os.system x}\n", "has a value that can't be read as python/name:os.system: 'x'"),
        ("server: {port: !!int x}\n", "config.yaml:1: has a value that can't be read as int: 'x'"),
        (f"server: {{port: {'9' * 5000}}}\n", "config.yaml:1: has a value that can't be read as int: '9999"),
        (b"server: {host: '\xff'}\n", "config.yaml:0: is not text in UTF-8"),
        (b"server: {host: 'a\x00'}\n", "config.yaml:0: is not text in UTF-8"),
    ],
)
def test_a_fault_names_file_line_and_key(faults, text, fault):
    assert any(fault in line for line in faults(text)), faults(text)


def test_everything_that_is_wrong_is_listed_at_once(faults):
    listed = faults("server:\n  prot: 1\n  port: x\n  host: ${NOBODY}\n", {"GREENROOM_ROUTER__CARRY": "perhaps"})
    assert len(listed) == 4


def test_an_alias_bomb_and_a_huge_file_are_refused(faults):
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert faults(bomb) == ["config.yaml:2: is not valid YAML: aliases (*name) are not supported"]
    assert faults("# " + "x" * 300_000) == ["config.yaml:0: is larger than 262144 bytes"]


def test_deep_nesting_is_an_error_and_not_a_crash(faults):
    assert faults("[" * 400) == ["config.yaml:0: is nested too deeply"]
    assert faults("tools: {roots: " + "[" * 400)


def test_a_flood_of_faults_is_cut(faults):
    listed = faults("\n".join(f"key{number}: 1" for number in range(200)))
    assert len(listed) == 21
    assert listed[-1] == "and 180 more"


def test_a_long_value_is_cut(faults):
    assert len(faults(f"server: {{port: {'x' * 5000}}}")[0]) < 300


def test_a_secret_is_never_shown(monkeypatch):
    """No key of today is one; the rule is for the keys to come."""
    monkeypatch.setattr("supervisor.config.is_secret", lambda key: key == "server.port")
    with pytest.raises(ConfigError, match=r'server.port = "\*\*\*"') as caught:
        load(None, {"MCP_PORT": "hunter2"}, {})
    assert "hunter2" not in str(caught.value)
    assert {line.value for line in describe(load(None, {}, {})) if line.key == "server.port"} == {"***"}


# --- bounds --------------------------------------------------------------------------------------------------------


def bounds() -> list[tuple[str, object]]:
    """For each number in the Structs: a value below and a value above what it takes."""
    found = []
    for key, kind in known_keys().items():
        if key.startswith("tools.max_concurrent"):
            found += [("tools.max_concurrent.echo", 0), ("tools.max_concurrent.echo", 10**9)]
        elif not (kind.is_list or kind.is_text or kind.is_truth):
            named = key.replace("*", PEER if key.startswith("p2p.peer_registry.allow") else "fat")
            found += [(named, value) for value in (-1, 2**63, float("inf"), float("nan"))]
    return found


@pytest.mark.parametrize(("key", "value"), bounds())
def test_every_number_has_bounds(key, value):
    with pytest.raises(ConfigError, match=key):
        load(None, {}, {key: value})


@pytest.mark.parametrize("name", [PEER, "16Uiu2HAm" + "x" * 44, "Qm" + "x" * 44])
def test_a_peer_is_allowed_by_its_id(config, name):
    settings = config(f"p2p: {{peer_registry: {{allow: {{{name}: {{tools: [echo], burst: 5}}}}}}}}").settings
    grant = settings.p2p.peer_registry.allow[name]
    assert (grant.tools, grant.tasks, grant.burst) == (["echo"], [], 5)


@pytest.mark.parametrize("name", [PEER.lower(), PEER[:-1], PEER + "1", "12D3KooW" + "0" * 44, "somebody"])
def test_what_is_no_peer_id_is_allowed_nothing(faults, name):
    [fault, *_] = faults(f"p2p: {{peer_registry: {{allow: {{{name}: {{tools: [echo]}}}}}}}}")
    assert fault.startswith(f"config.yaml:1: p2p.peer_registry.allow.{name} = ")


def test_where_a_secret_lies_and_what_it_grants_is_shown_but_no_secret(config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/user")
    loaded = config("p2p: {peer_registry: {secret_file: ~/s, secret_grants: {tools: [echo]}}}")
    shown = {line.key: line.value for line in describe(loaded)}
    assert shown["p2p.peer_registry.secret_file"] == "/home/user/s"
    assert shown["p2p.peer_registry.secret_grants.tools"] == ["echo"]
    assert is_secret("a.secret")
    assert is_secret("a.secrets.file")
    assert is_secret("a.key_file.api_token")


@pytest.mark.parametrize("name", ["Fat", "0x", "a b", "a#b", "x" * 25, "../x"])
def test_a_pools_name_must_fit_into_a_processes_name(faults, name):
    assert f"tools.pools.{name}" in faults(f"tools:\n  pools:\n    '{name}': {{workers: 1}}\n")[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "supervisor: {heartbeat_s: 3}",
            "config.yaml:1: supervisor.hung_after_s = 5 must be at least twice supervisor.heartbeat_s = 3",
        ),
        (
            "p2p: {peer_registry: {ban_max_s: 30}}",
            "config.yaml:1: p2p.peer_registry.ban_max_s = 30 must be at least p2p.peer_registry.ban_s = 60",
        ),
        ("server: {max_body_bytes: 16777216}", "config.yaml:1: server.max_body_bytes = 16777216 does not fit into"),
        (
            "tools: {max_catalogue_bytes: 8388608, pools: {a: {}}}",
            "config.yaml:1: tools.max_catalogue_bytes = 8388608 for each of 2 pools do not fit into",
        ),
        ("channel: {max_frame_bytes: 4194304}", "tools.max_result_bytes = 8388608 does not fit into"),
        (
            "tools: {pools: {a: {categories: [x, y]}, b: {categories: [z, x]}}}",
            "config.yaml:1: tools.pools.b.categories: x runs in pool a already",
        ),
    ],
)
def test_values_that_are_wrong_together(faults, text, fault):
    assert any(fault in line for line in faults(text))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", "fe80::1%eth0"])
def test_an_address_that_others_reach_is_refused_unless_it_is_allowed(config, faults, host):
    [fault] = faults(f"server:\n  host: '{host}'\n")
    assert fault.startswith(f"config.yaml:2: server.host {host} can be reached by others")
    assert "server.allow_unauthenticated: true" in fault
    assert config(f"server: {{host: '{host}', allow_unauthenticated: true}}").settings.server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_a_loopback_address_is_fine(config, host):
    assert config(f"server: {{host: '{host}'}}").settings.server.host == host


def test_what_was_checked_can_be_sent_to_an_actor(config):
    settings = config(SEED).settings
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


@pytest.mark.parametrize("feature", [one for one in NOT_PROVIDED if one.setting], ids=lambda one: one.name)
def test_what_is_not_provided_can_not_be_switched_on(config, feature):
    variable = "GREENROOM_" + feature.setting.upper().replace(".", "__")
    with pytest.raises(ConfigError) as caught:
        config("{}", {variable: "true"})
    assert f"{feature.setting} can't be switched on" in str(caught.value)
    assert feature.why_not in str(caught.value)
    assert config("{}", {variable: "false"})


@pytest.mark.parametrize("feature", [one for one in FEATURES if one.setting], ids=lambda one: one.name)
def test_each_way_to_find_and_reach_peers_is_off_until_its_setting_says_otherwise(feature):
    assert not flat(Settings())[feature.setting]


@pytest.mark.parametrize("host", ["::", "::1", "localhost"])
def test_multicast_dns_needs_an_ipv4_address_to_listen_on(config, host):
    given = f"p2p: {{connectivity: {{listen_host: '{host}'}}, peer_registry: {{discovery: {{mdns: true}}}}}}"
    with pytest.raises(ConfigError, match=r"discovery\.mdns needs an IPv4 address"):
        config(given)
    assert config(given.replace("mdns: true", "mdns: false"))


@pytest.mark.parametrize("host", ["", "127.0.0.1", "0.0.0.0"])
def test_multicast_dns_is_spoken_where_the_host_listens(config, host):
    loaded = config(f"p2p: {{connectivity: {{listen_host: '{host}'}}, peer_registry: {{discovery: {{mdns: true}}}}}}")
    assert loaded.settings.p2p.peer_registry.discovery.mdns
