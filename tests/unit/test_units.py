"""systemd's units of the daemons: what they say, and for whom."""

from __future__ import annotations

import msgspec
import pytest

from cli.systemd import version
from deploy import units
from deploy.units import AGENT, CONTROLLER, FOLDER, PROCESSES, Options
from model.errors import InvalidInput

OPTIONS = Options(program=("/opt/flota/current/bin/flota",))


def settings(text: str) -> dict[str, list[str]]:
    """What stands in a unit, by key."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def unit(name: str, options: Options = OPTIONS) -> dict[str, list[str]]:
    return settings({**units.agent_units(options), **units.controller_units(options)}[f"{FOLDER}/{name}"])


def test_every_unit_is_marked_comes_back_and_tells_its_folders() -> None:
    made = {**units.agent_units(OPTIONS), **units.controller_units(OPTIONS)}
    assert sorted(made) == [f"{FOLDER}/{name}" for name in (AGENT, CONTROLLER, PROCESSES)]
    for text in made.values():
        assert units.is_ours(text) and units.folders(text) == ("/var/lib/flota", "/run/flota")
        said = settings(text)
        assert said["Restart"] == ["always"] and said["StartLimitIntervalSec"] == ["0"]
        assert all(len(values) == 1 for key, values in said.items() if key != "Environment"), said


def test_agent_unit_shuts_nothing_off_that_containers_would_inherit() -> None:
    """A mount namespace, a filter of system calls or missing capabilities would be every container's."""
    text = units.agent_units(OPTIONS)[f"{FOLDER}/{AGENT}"]
    for word in ("Protect", "Private", "Restrict", "SystemCall", "NoNewPrivileges", "Capabilit", "LockPers"):
        assert word not in text
    said = settings(text)
    assert said["KillMode"] == ["process"] and said["Type"] == ["notify"] and said["Delegate"] == ["yes"]


def test_controller_unit_may_write_where_it_must_and_nowhere_else() -> None:
    said = unit(CONTROLLER)
    assert said["ProtectSystem"] == ["strict"]
    assert said["ReadWritePaths"] == ["/var/lib/flota/controller /run/flota"]
    assert "KillMode" not in said and said["NoNewPrivileges"] == ["yes"]


def test_run_folder_elsewhere_is_made_by_the_daemons_themselves() -> None:
    """The file system can't be closed then: where a boot empties it, nothing would be there to be named."""
    for name in (CONTROLLER, PROCESSES):
        said = unit(name, Options(program=("/f",), run="/srv/run"))
        assert "RuntimeDirectory" not in said and "ReadWritePaths" not in said
        assert said["ProtectSystem"] == ["full"]
    assert unit(CONTROLLER, Options(program=("/f",), run="/run/a/b"))["RuntimeDirectory"] == ["a/b"]


def test_folders_under_tmp_are_not_hidden_by_a_private_one() -> None:
    assert unit(CONTROLLER)["PrivateTmp"] == ["yes"]
    assert "PrivateTmp" not in unit(CONTROLLER, Options(program=("/f",), root="/tmp/x"))


def test_restarts_come_slower_where_systemd_can_do_that() -> None:
    assert "RestartSteps" not in unit(AGENT)
    newer = msgspec.structs.replace(OPTIONS, systemd=254)
    assert unit(AGENT, newer)["RestartMaxDelaySec"] == ["30"]


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("/opt/flota", "/opt/flota"),
        ("/a b", '"/a b"'),
        ("/100%", '"/100%%"'),
        ('/a"b\\c', '"/a\\"b\\\\c"'),
        ("/a;b", '"/a;b"'),
    ],
)
def test_word_of_a_unit_stands_for_itself(text: str, stands: str) -> None:
    assert units.word(text) == stands


def test_dollar_in_a_command_line_is_no_variable() -> None:
    (line,) = unit(AGENT, Options(program=("/f",), root="/a$HOME"))["ExecStart"]
    assert '"/a$$HOME"' in line


def test_path_with_a_line_feed_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unit"):
        units.agent_units(Options(program=("/f",), root="/a\nExecStartPre=/bin/x"))


@pytest.mark.parametrize(
    ("text", "number"),
    [("systemd 252 (252.38-1~deb12u1)\n+PAM", 252), ("systemd 256.4 (x)", 256), ("", 0), ("busybox", 0)],
)
def test_version_of_systemd_is_read(text: str, number: int) -> None:
    assert version(text) == number
