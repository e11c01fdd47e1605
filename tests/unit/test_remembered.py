"""What daemons were told last, and what holds of it when they are told something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.commands import daemons
from cli.remembered import in_force, load, read, store, understood
from model.errors import InvalidInput

BEFORE: dict[str, Any] = {
    "name": "n9", "address": "10.0.0.9", "behind_nat": True, "label": ["z=9"], "cgroup_parent": "/z",
    "cgroup_driver": "z", "storage_driver": "vfs",
    "insecure_registry": ["z:5000"], "registry_mirror": ["https://z"], "network_driver": ["z"],
    "port": 7499, "listen": "10.0.0.9", "controller_address": "old.example.com", "log_level": "debug",
}  # fmt: skip
AGENT: dict[str, Any] = {"name": "", "address": "", "behind_nat": False, "label": ()}


def test_what_is_not_said_is_as_it_was_said_last() -> None:
    before = {"name": "n1", "address": "10.0.0.1", "label": ["a=b"], "port": 7421}
    flags = {**AGENT, "address": "10.0.0.2"}
    assert in_force(before, flags, {"address"}) == {
        "name": "n1", "address": "10.0.0.2", "behind_nat": False, "label": ["a=b"], "port": 7421,
    }  # fmt: skip


def test_what_is_said_empty_is_as_never_said() -> None:
    before = {"address": "10.0.0.1", "behind_nat": True, "label": ["a=b"]}
    flags = {**AGENT, "label": ("",)}
    assert in_force(before, flags, {"address", "behind_nat", "label"}) == AGENT


def test_settings_come_back_and_what_is_unset_is_gone_from_them(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    assert load(root) == {}
    store(root, {**AGENT, "name": "n1", "label": ("a=b",)})
    assert load(root) == {"name": "n1", "label": ["a=b"]}
    store(root, in_force(load(root), AGENT, {"name"}))
    assert load(root) == {"label": ["a=b"]}


def test_address_of_an_old_file_that_is_a_name_is_the_controllers() -> None:
    assert understood({"address": "fleet.example.com"}) == {"controller_address": "fleet.example.com"}
    for address in ("10.0.0.1", "fd00::1"):
        assert understood({"address": address, "name": "n1"}) == {"address": address, "name": "n1"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_settings_that_make_no_sense_are_told_to_daemons_and_replaced_by_commands(
    tmp_path: Path, text: str
) -> None:
    assert read(str(tmp_path)) == {}
    path, root = tmp_path / "settings.json", str(tmp_path)
    path.write_text('{"label": ["disk=ssd"]}')
    with daemons.agent.make_context("agent", ["--root", root]):
        again = daemons._reread(root)
        assert again()["label"] == ["disk=ssd"]
        path.write_text(text)
        with pytest.raises(InvalidInput, match=r"settings\.json"):
            again()
        with pytest.raises(InvalidInput, match=r"settings\.json"):
            daemons._in_force(root, {"label": ()})
    assert load(root) == {}
    store(root, {"name": "n1"})
    assert read(root) == {"name": "n1"}


def test_settings_are_readable_json(tmp_path: Path) -> None:
    store(str(tmp_path), {"controller_address": "fleet.example.com", "port": 0})
    found = json.loads((tmp_path / "settings.json").read_text())
    assert found == {"controller_address": "fleet.example.com"}


def test_daemon_in_the_background_is_told_all_whatever_is_remembered() -> None:
    none: dict[str, Any] = {
        "name": "", "address": "", "behind_nat": False, "label": (), "cgroup_parent": "", "cgroup_driver": "",
        "insecure_registry": (), "registry_mirror": (), "network_driver": (), "log_level": "",
        "storage_driver": "",
        "peer_port": "", "peer_rate": "",
    }  # fmt: skip
    full = {**none, "name": "n1", "behind_nat": True, "label": ("a=b", "c=d"), "network_driver": ("x",)}
    for flags in (none, full):
        with daemons.agent.make_context("agent", daemons.agent_words(flags)) as context:
            given = {key: context.params[key] for key in flags}
            found = in_force(BEFORE, given, daemons.said(context))
        assert {key: found[key] for key in flags} == flags


def test_controller_in_the_background_is_told_its_own_address_or_else_its_hosts() -> None:
    flags: dict[str, Any] = {
        "port": 0,
        "listen": "",
        "network_driver": (),
        "controller_address": "",
        "log_level": "",
        "registry": "",
        "registry_replicas": 2,
        "registry_anonymous_pull": False,
        "lost_after": 20.0,
    }
    for more, address in (
        ({}, ""),
        ({"address": "10.0.0.1"}, "10.0.0.1"),
        ({"registry": "10.0.0.1:5000", "registry_replicas": 3, "registry_anonymous_pull": True}, ""),
        ({"address": "10.0.0.1", "controller_address": "fleet.example.com"}, "fleet.example.com"),
    ):
        words = daemons.controller_words({**flags, **more})
        with daemons.controller.make_context("controller", words) as context:
            given = {key: context.params[key] for key in flags}
            found = in_force(BEFORE, given, daemons.said(context))
        told = {key: value for key, value in more.items() if key in flags}
        assert {key: found[key] for key in flags} == {**flags, **told, "controller_address": address}


@pytest.mark.parametrize(("said", "known"), [("", ""), ("192.0.2.1", "192.0.2.1"), ("FD00:0::1", "fd00::1")])
def test_own_address_is_known_as_other_hosts_write_it(said: str, known: str) -> None:
    with daemons.agent.make_context("agent", ["--address", said]) as context:
        assert context.params["address"] == known


@pytest.mark.parametrize("said", ["node1.example.com", "fe80::1%eth0", "10.0.0.256"])
def test_own_address_that_is_none_is_refused_by_name(said: str) -> None:
    with pytest.raises(InvalidInput, match=f"--address {said}"):
        daemons.agent.make_context("agent", ["--address", said])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"port": "7420"}', 'port: "7420" is no whole number'),
        ('{"port": true}', "port: true is no whole number"),
        ('{"port": 99999}', "port: 99999 is not in the range"),
        ('{"label": "disk=ssd"}', 'label: "disk=ssd" is no list of texts'),
        ('{"label": [1]}', "label: [1] is no list of texts"),
        ('{"behind_nat": "no"}', 'behind_nat: "no" is no true or false'),
        ('{"lost_after": [3]}', "lost_after: [3] is no number"),
        ('{"name": 7, "log_level": "loud"}', "name: 7 is no text; log_level: 'loud' is not one of"),
        ('{"address": {}}', "address: {} is no text"),
    ],
)
def test_setting_that_no_option_could_have_said_is_told_with_file_and_key(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read(str(tmp_path), daemons.up.params)
    assert refused.value.message.startswith(f"{path}: ") and words in refused.value.message
    assert path.read_text() == text


def test_settings_that_daemons_wrote_are_read_by_every_command_and_unknown_keys_are_left(
    tmp_path: Path,
) -> None:
    store(str(tmp_path), {**BEFORE, "lost_after": 20, "of_a_newer_release": 1})
    for command in (daemons.up, daemons.agent, daemons.controller, daemons.join):
        assert read(str(tmp_path), command.params)["lost_after"] == 20


def test_no_copies_of_the_registry_are_remembered_as_none(tmp_path: Path) -> None:
    with daemons.controller.make_context("controller", ["--registry-replicas", "0"]) as context:
        store(str(tmp_path), context.params)
    with daemons.controller.make_context("controller", []) as again:
        found = in_force(read(str(tmp_path), daemons.controller.params), again.params, daemons.said(again))
    assert found["registry_replicas"] == 0
