"""What hosts of a fleet don't agree in, and how commands on many of them end."""

from __future__ import annotations

import click
import pytest
from msgspec.structs import replace

from cli.commands.hostwork import ExecCommand
from deploy.findings import Level
from deploy.hostfacts import Address, Facts
from deploy.hostwork import Ran, exit_code
from deploy.skew import Seen, compare

RELEASE = "0.1.0-0123456789ab"
FACTS = Facts(
    release=RELEASE, default_link="eth0", addresses=(Address(link="eth0", address="192.0.2.1/24", mtu=1500),)
)


def seen(name: str, *, agent: str = RELEASE, **facts: object) -> Seen:
    return Seen(name=name, facts=replace(FACTS, **facts), agent=agent)


def said(*hosts: Seen, controller: str = RELEASE) -> list[tuple[str, Level, str]]:
    return [(where, found.level, found.what) for where, found in compare(hosts, controller)]


def test_hosts_that_agree_are_no_finding() -> None:
    assert said(seen("n1"), seen("n2")) == []
    assert said(seen("n1", clock_off=100.0)) == [], "one alone has nobody to differ from"


def test_clocks_apart_are_told_by_the_two_that_are_furthest_apart() -> None:
    hosts = (seen("n1", clock_off=-3.0), seen("n2", clock_off=1.0), seen("n3", clock_off=4.0))
    assert said(*hosts) == [("n1 - n3", Level.WARNING, "n3's clock is 7.0 s ahead of n1's")]
    unsure = (seen("n1", clock_off=-3.0, clock_doubt=1.5), seen("n3", clock_off=4.0, clock_doubt=1.5))
    assert said(*unsure) == []


def test_links_of_different_mtu_are_a_note() -> None:
    jumbo = (Address(link="eth0", address="192.0.2.2/24", mtu=9000),)
    [(_, level, words)] = said(seen("n1"), seen("n2", addresses=jumbo), seen("n3"))
    assert (level, words) == (
        Level.NOTE,
        "they take packets of different sizes: 1500 on n1, n3; 9000 on n2",
    )


def test_upgrade_that_was_left_halfway_is_told_by_host_and_by_fleet() -> None:
    half = seen("n2", agent="0.0.9-aaaaaaaaaaaa")
    found = said(seen("n1"), half)
    assert found[0][0] == "n2" and "is started from 0.1.0-0123456789ab the next time" in found[0][2]
    assert found[1][0] == "the fleet" and "the agents of n2 another release" in found[1][2]


def test_daemons_are_each_compared_with_what_they_are_pinned_to() -> None:
    other = "0.2.0-bbbbbbbbbbbb"
    pinned = {"agent": RELEASE, "controller": other}
    head = seen("n1", controls="f" * 32, running=frozenset({"controller"}), pinned=pinned)
    words = [what for where, _, what in said(head, seen("n2"), controller=RELEASE)]
    assert words == [f"its controller runs {RELEASE}, and is started from {other} the next time"]
    assert all(where == "the fleet" for where, _, _ in said(head, seen("n2"), controller=other))


@pytest.mark.parametrize(("codes", "ended"), [((0, 0), 0), ((0, 3, 4), 3), ((255, 0), 255)])
def test_program_on_many_hosts_ends_as_the_first_that_failed(codes: tuple[int, ...], ended: int) -> None:
    assert exit_code([Ran(name=str(n), code=code) for n, code in enumerate(codes)]) == ended


def test_words_after_the_dashes_are_the_programs() -> None:
    command = ExecCommand("exec", params=[click.Argument(["hosts"], nargs=-1)])
    context = command.make_context("exec", ["n1", "n2", "--", "grep", "--", "-x", "a b"])
    assert context.params["hosts"] == ("n1", "n2") and context.meta["words"] == ("grep", "--", "-x", "a b")
    assert command.make_context("exec", ["n1"]).meta["words"] == ()
