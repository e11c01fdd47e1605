"""Hosts as people name them: words and inventory files."""

from __future__ import annotations

import pytest

from cli.parse.inventory import parse_inventory, parse_words
from deploy.inventory import Target, parse_target
from model.errors import InvalidInput

PIN = "SHA256:" + "a" * 43


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("h1", Target(host="h1")),
        ("root@192.0.2.1:2222", Target(host="192.0.2.1", user="root", port=2222)),
        ("ssh://ana@web.example.org", Target(host="web.example.org", user="ana")),
        ("root@[fd00::1]:22", Target(host="fd00::1", user="root", port=22)),
        ("fd00::1", Target(host="fd00::1")),
    ],
)
def test_a_target_is_read_as_ssh_reads_it(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    ["", "@h", "root@", "-oProxyCommand=reboot", "root@-h", "a b@h", "h:0", "h:99999", "h;reboot", "-x@h"],
)
def test_words_that_are_no_target_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no host"):
        parse_target(text)


def test_words_make_the_controller_the_first_host_and_share_how_they_are_reached() -> None:
    first, second = parse_words(
        ["root@h2"], "root@h1", identity=("k",), jump="j@gate", host_key=(f"h2={PIN}",)
    )
    assert first.controller and not second.controller
    assert first.target == Target(host="h1", user="root", identity=("k",), jump="j@gate")
    assert second.target.host_key == PIN


@pytest.mark.parametrize(
    ("hosts", "controller", "flags", "words"),
    [
        (["a", "b"], "", {"name": "x"}, "for one host"),
        (["a", "a"], "", {}, "named twice"),
        ([], "", {}, "no host is named"),
        (["a"], "", {"host_key": ("MD5:aa",)}, "is no fingerprint"),
        (["a"], "", {"jump": "-x"}, "jump"),
        (["a"], "", {"name": "no name"}, "invalid host name"),
        (["a"], "", {"address": "--purge"}, "is no address"),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    hosts: list[str], controller: str, flags: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_words(hosts, controller, **flags)  # type: ignore[arg-type]


def test_an_inventory_gives_each_host_what_holds_for_all_unless_it_says_otherwise() -> None:
    text = f"""
user: root
port: 2222
identity: ~/.ssh/fleet
hosts:
  - host: h1
    controller: true
    labels: {{zone: a}}
  - host: ana@h2:22
    name: second
    host_key: {PIN}
    identity: ~/.ssh/other
"""
    first, second = parse_inventory("hosts.yaml", text)
    assert first.controller and first.labels == {"zone": "a"}
    assert first.target == Target(host="h1", user="root", port=2222, identity=("~/.ssh/fleet",))
    assert second.target == Target(host="h2", user="ana", port=22, identity=("~/.ssh/other",), host_key=PIN)
    assert second.name == "second"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts:\n  - hots: h1\n", "hosts"),
        ("hosts: [{host: h1, colour: red}]", r"hosts\[0\].colour: unknown field"),
        ("hosts: [{host: '-x'}, {host: 'h 2'}]", r"hosts\[0\].*hosts\[1\]"),
        ("hosts: [{host: h1, controller: true}, {host: h2, controller: true}]", "not several"),
        ("hosts: [{host: h1, name: a}, {host: h2, name: a}]", "named a too"),
        ("hosts: []", "no host is named"),
        ("hosts: [", "is no YAML: line 2"),
    ],
)
def test_an_inventory_that_is_wrong_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_inventory("hosts.yaml", text)
