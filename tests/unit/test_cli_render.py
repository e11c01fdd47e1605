"""Tables, templates and texts, as docker prints them; nothing of others drives a terminal."""

from __future__ import annotations

import pytest

from cli import exits, render
from cli.main import TABLE
from cli.printout import Printout
from cli.render import Column
from model.errors import CommandFailed, InvalidInput, NotFound

COLUMNS: list[Column] = [
    ("CONTAINER ID", lambda i: i["id"]),
    ("NAMES", lambda i: i["name"]),
    ("CREATED", lambda i: "now"),
]
ITEM = {"id": "abc", "name": "web", "status": {"pid": 7, "oom_killed": False}, "list": [{"ip": "10.0.0.1"}]}


def test_table_is_as_wide_as_its_widest_cell() -> None:
    text = render.table(COLUMNS, [ITEM, {"id": "d", "name": "x\ny"}])
    assert text == "CONTAINER ID   NAMES   CREATED\nabc            web     now\nd              x y     now\n"
    assert render.table(COLUMNS, []) == "CONTAINER ID   NAMES   CREATED\n"
    assert render.table(COLUMNS, [ITEM], headings=False) == "abc   web   now\n"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Names}}", "web\n"),
        ("{{ .ID }}-{{.names}}", "abc-web\n"),
        ("{{.RunningFor}}", "now\n"),
        ("{{.status.pid}} {{.status.oom_killed}}", "7 false\n"),
        ("{{.Status.OOMKilled}}", "false\n"),
        ("{{json .status}}", '{"pid":7,"oom_killed":false}\n'),
        ("{{json .list}}", '[{"ip":"10.0.0.1"}]\n'),
        ("{{(index .list 0).ip}}", "10.0.0.1\n"),
        ("{{json (index .list 0)}}", '{"ip":"10.0.0.1"}\n'),
        ("table {{.ID}}\\t{{.Names}}", "ID\tNAMES\nabc\tweb\n"),
        ("plain", "plain\n"),
        ("", "\n"),
    ],
)  # fmt: skip
def test_templates(template: str, text: str) -> None:
    assert render.template(template, COLUMNS, [ITEM]) == text


@pytest.mark.parametrize(
    "template", ["{{.nope}}", "{{range .x}}", "{{(index .list 3).ip}}", "{{index .list}}"]
)
def test_template_that_is_refused(template: str) -> None:
    with pytest.raises(InvalidInput, match="template"):
        render.template(template, COLUMNS, [ITEM])


def test_control_bytes_of_others_are_dropped() -> None:
    nasty = {"id": "\x1b]0;x\x07", "name": "a\r\x9b2J\x7f\x00b"}
    assert render.table(COLUMNS, [nasty], headings=False) == "]0;x   a2Jb   now\n"
    assert render.template("{{.Names}}", COLUMNS, [nasty]) == "a2Jb\n"


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("ěšč ⛔ 💛\n", "ěšč ⛔ 💛\n"),
        ("a\tb\r\nc", "a\tb\r\nc"),
        ("\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m", "\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m"),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("\x1b\x1b]]0;title\x07x", "]]0;titlex"),
        ("\x1bP$qm\x1b\\x", "P$qm\\x"),
        ("\x1b[6n\x1b[21t\x1b[2J\x1bc", "[6n[21t[2Jc"),
        ("\x9b6n\x90q\x9d0;t\x9c", "6nq0;t"),
        ("\x1b[3\x1b[2Jm\x08\x7f\x00", "[3[2Jm"),
        ("\x1b[31", ""),
    ],
)
def test_printout_keeps_text_and_colours_alone_however_it_is_cut(printed: str, shown: str) -> None:
    data = printed.encode()
    for size in (1, 2, 3, len(data)):
        printout = Printout()
        assert "".join(printout.shown(data[i : i + size]) for i in range(0, len(data), size)) == shown
    assert Printout().shown(b"\xff\x9b2J") == "\ufffd\ufffd2J", "bytes that are no text are told as such"


def test_printout_holds_no_endless_colour_back() -> None:
    printout = Printout()
    assert "".join(printout.shown(b"\x1b[" + b"1;" * 50 + b"x") for _ in range(2)).count("x") == 2


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"phase": "running", "started_at": 900}, "Up 1 minute"),
        ({"phase": "running", "started_at": 900, "paused": True}, "Up 1 minute (Paused)"),
        ({"phase": "running", "started_at": 900, "health": "healthy"}, "Up 1 minute (healthy)"),
        ({"phase": "running", "started_at": 900, "health": "unhealthy"}, "Up 1 minute (unhealthy)"),
        ({"phase": "running", "started_at": 900, "health": "starting"}, "Up 1 minute (health: starting)"),
        (
            {"phase": "running", "started_at": 900, "health": "healthy", "paused": True},
            "Up 1 minute (Paused)",
        ),
        ({"phase": "exited", "exit_code": 0, "finished_at": 990}, "Exited (0) 10 seconds ago"),
        ({"phase": "exited"}, "Exited (?)"),
        ({"phase": "restarting", "exit_code": 1, "finished_at": 999}, "Restarting (1) 1 second ago"),
        ({}, "Assigned"),
        ({"phase": "created"}, "Created"),
    ],
)
def test_phases_are_worded_as_docker_does(status: dict[str, object], text: str) -> None:
    assert render.phase_text(status, 1000) == text


def test_ports_are_worded_as_docker_does() -> None:
    web = {"published": 8080, "target": 80, "protocol": "tcp"}
    dns = {"published": 53, "target": 53, "protocol": "udp", "host_ip": "127.0.0.1"}
    assert render.ports_text([web, dns]) == "0.0.0.0:8080->80/tcp, 127.0.0.1:53->53/udp"
    assert render.ports_text([{**web, "host_ip": "fd00::1"}]) == "[fd00::1]:8080->80/tcp"
    assert render.published_text([web, dns]) == "*:8080->80/tcp, *:53->53/udp"


def test_exit_codes_depend_on_the_verb() -> None:
    missing = NotFound("no such image")
    assert exits.of_error(["run", "x"], missing) == 125
    assert exits.of_error(["-H", "run", "ps"], missing) == 1
    assert exits.of_error(["--host", "unix:///ps", "run"], missing) == 125
    assert exits.of_error(["--host=unix:///ps", "container", "exec"], missing) == 125
    assert exits.of_error(["run"], CommandFailed('exec: "x": executable file not found in $PATH')) == 127
    assert exits.of_usage(["run"]) == 125 and exits.of_usage(["ps"]) == 2 and exits.of_usage([]) == 2


def test_every_command_of_the_table_can_be_loaded_and_helps() -> None:
    from click.testing import CliRunner

    from cli.main import cli

    for name in TABLE:
        done = CliRunner().invoke(cli, [name, "--help"])
        assert done.exit_code == 0 and done.output.startswith("Usage: "), name
