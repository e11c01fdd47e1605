"""Our rules in Docker's chain for rules of others: where they stand, and what puts them there."""

from __future__ import annotations

import pytest

from net.diff import Op, diff
from net.dockeruser import older_kind, script, seen, wanted
from net.state import Admission, NetState

ENGINE = """\
-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -o br-0123456789ab -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
"""
USERS = "-A DOCKER-USER -s 192.0.2.9/32 -j DROP\n"
RETURN = "-A DOCKER-USER -j RETURN\n"
MARK = "-m comment --comment flota"
WANTED = Admission(family="ip", past=("br-0123456789ab", "docker0"))
OURS = [
    f"-i flb+ -o br-0123456789ab {MARK} -j RETURN",
    f"-i flx+ -o br-0123456789ab {MARK} -j RETURN",
    f"-i flw+ -o br-0123456789ab {MARK} -j RETURN",
    f"-i flb+ -o docker0 {MARK} -j RETURN",
    f"-i flx+ -o docker0 {MARK} -j RETURN",
    f"-i flw+ -o docker0 {MARK} -j RETURN",
    f"-i flb+ {MARK} -j ACCEPT",
    f"-o flb+ {MARK} -j ACCEPT",
    f"-i flx+ {MARK} -j ACCEPT",
    f"-o flx+ {MARK} -j ACCEPT",
    f"-i flw+ {MARK} -j ACCEPT",
    f"-o flw+ {MARK} -j ACCEPT",
]


def listing(*rules: str) -> str:
    return ENGINE + "".join(rules)


def after(text: str, change: str) -> str:
    """What iptables makes of a script."""
    chain = [line.split(" ", 2)[2] for line in text.splitlines() if line.startswith("-A DOCKER-USER")]
    for line in change.splitlines():
        match line.split(" ", 2):
            case ["-D", _, words]:
                chain.remove(words)
            case ["-I", _, rest]:
                number, words = rest.split(" ", 1)
                assert 1 <= int(number) <= len(chain) + 1
                chain.insert(int(number) - 1, words)
    return listing(*(f"-A DOCKER-USER {words}\n" for words in chain))


def ours() -> str:
    return "".join(f"-A DOCKER-USER {words}\n" for words in OURS)


def test_nothing_is_wanted_where_docker_drops_nothing() -> None:
    assert wanted(listing(RETURN), "ip") == WANTED
    assert wanted(listing(RETURN).replace("FORWARD DROP", "FORWARD ACCEPT"), "ip") is None
    assert wanted(listing().replace("-N DOCKER-USER\n", ""), "ip") is None
    assert wanted("", "ip6") is None


@pytest.mark.parametrize(
    "chains", [("ufw-before-logging-forward", "ufw-before-forward"), ("ufw6-reject-forward",)]
)
def test_nothing_is_wanted_where_ufw_drops_too(chains: tuple[str, ...]) -> None:
    """Its chains come behind Docker's: an accept of ours there would open what it closes."""
    theirs = "".join(f"-A FORWARD -j {name}\n" for name in chains)
    assert wanted(listing(theirs, ours(), RETURN), "ip") is None
    assert wanted(listing("-N ufw-user-forward\n", RETURN), "ip") == WANTED, "ufw is off"


@pytest.mark.parametrize(
    "chain",
    [
        RETURN,
        "",
        USERS + RETURN,
        USERS,
        ours() + USERS + RETURN,
        ours() + USERS,
        RETURN + ours(),
        USERS + ours().replace("docker0", "gone0") + RETURN,
        USERS + "".join(reversed(ours().splitlines(keepends=True))) + RETURN,
    ],
)
def test_rules_come_behind_the_users_and_before_the_last_return(chain: str) -> None:
    before = listing(chain)
    assert seen(before, "ip") != WANTED
    made = after(before, script(before, WANTED))
    assert seen(made, "ip") == WANTED
    kept = "".join(line for line in chain.splitlines(keepends=True) if MARK not in line)
    others = kept.removesuffix(RETURN)
    assert made == listing(others, ours(), RETURN if kept.endswith(RETURN) else "")
    assert after(made, script(made, None)) == listing(kept)


def test_rules_that_stand_well_are_seen_so_and_are_left_alone() -> None:
    assert seen(listing(USERS, ours(), RETURN), "ip") == WANTED
    assert seen(listing(USERS, RETURN), "ip") is None
    have = NetState(admissions=frozenset({WANTED}))
    assert diff(have, have) == ()


def test_rules_of_a_family_that_needs_none_any_more_go() -> None:
    broken, other = Admission(family="ip", sound=False), Admission(family="ip6")
    want, have = (NetState(admissions=frozenset(items)) for items in ({WANTED}, {broken, other}))
    assert diff(want, have) == (Op(verb="remove", item=other), Op(verb="change", item=WANTED))


def test_older_kind_without_its_program_has_no_rules_of_dockers() -> None:
    assert older_kind("nat\nfilter\n", "/usr/sbin/iptables-legacy")
    assert not older_kind("nat\nfilter\n", None)
    assert not older_kind("nat\n", "/usr/sbin/iptables-legacy")
