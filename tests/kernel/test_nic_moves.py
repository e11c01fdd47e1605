"""A link that becomes a port of a bridge and is a link by itself again, on the real kernel."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.codec import encode_json
from net.nic import files, shift, transaction
from net.nic.reach import PATIENCE, Gateway, answering
from net.nic.shift import Links
from net.nic.state import FAILED, KEPT, MOVING, RETURNING, Journal
from tests.support.nicsite import BRIDGE, HOST, PARENT, ROUTER, ROUTER6, WISH, Site, nic_site, run
from tests.support.talkers import Talker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel
ASKED = 0.3
"""Seconds in which gateways are asked before a move, some of which never answer."""


DOUBTED = pytest.mark.parametrize("site", [True], ids=["doubted"], indirect=True)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with nic_site(doubted=getattr(request, "param", False)) as made:
        made.equip()
        made.bridge()
        wait_until(lambda: "tentative" not in run("ip", "address"), deadline=5)
        yield made


@pytest.fixture
def links(site: Site) -> Iterator[Links]:
    made = Links()
    yield made
    made.close()


@DOUBTED
def test_a_moved_link_takes_all_along_and_gives_it_back(site: Site, links: Links, tmp_path: Path) -> None:
    before, mac = site.listing(), _mac(PARENT)
    transaction.move(links, str(tmp_path), WISH, patience=3, asked=ASKED)
    journal = files.read(str(tmp_path), BRIDGE)
    assert journal is not None and journal.phase == KEPT, journal
    assert _mac(BRIDGE) == mac == _mac(PARENT)
    assert site.listing(BRIDGE) == before.replace("LINK:1", "LINK")
    assert "inet" not in run("ip", "address", "show", "dev", PARENT)
    assert run("ip", "route", "get", "203.0.113.5").split()[4] == BRIDGE
    assert site.pinged()
    assert site.pings(ROUTER6)
    transaction.give_back(str(tmp_path), BRIDGE)
    assert site.listing() == before
    assert "inet" not in run("ip", "address", "show", "dev", BRIDGE)
    assert files.read(str(tmp_path), BRIDGE) is None
    assert site.pings(ROUTER)


@pytest.mark.parametrize("count", range(6))
def test_a_move_that_died_after_any_step_is_set_back(
    site: Site, links: Links, tmp_path: Path, count: int
) -> None:
    before, folder = site.listing(), str(tmp_path)
    standing = links.standing(PARENT)
    journal = Journal(wish=WISH, phase=MOVING, before=standing, boot=files.boot_id())
    files.write(folder, journal)
    for _, step in shift.forth(links, WISH, standing)[:count]:
        step()
    assert transaction.recover(folder, BRIDGE)
    assert site.listing() == before
    after = files.read(folder, BRIDGE)
    assert after is not None and after.phase == FAILED and "interrupted" in after.why
    assert not transaction.recover(folder, BRIDGE)


@pytest.mark.parametrize("count", range(5))
def test_a_return_that_died_after_any_step_is_finished(
    site: Site, links: Links, tmp_path: Path, count: int
) -> None:
    before, folder = site.listing(), str(tmp_path)
    transaction.move(links, folder, WISH, patience=3, asked=ASKED)
    journal = files.read(folder, BRIDGE)
    assert journal is not None
    files.write(folder, replace(journal, phase=RETURNING))
    for _, step in shift.back(links, WISH, journal.before)[:count]:
        step()
    assert transaction.recover(folder, BRIDGE)
    assert site.listing() == before
    assert files.read(folder, BRIDGE) is None


@pytest.mark.parametrize(
    ("lost", "told"),
    [("arp operation reply", f"the gateway {ROUTER} "), ("tcp sport 7700", f"the controller {ROUTER}:7700 ")],
)
def test_a_move_that_loses_gateway_or_controller_is_set_back(
    site: Site, links: Links, tmp_path: Path, lost: str, told: str
) -> None:
    """As of a switch that shuts a port on which it sees a bridge: this rule knows ports of bridges only."""
    before = site.listing()
    run(
        "nft",
        "add table bridge strange; add chain bridge strange in { type filter hook prerouting priority 0; }",
    )
    run("nft", f'add rule bridge strange in iifname "{PARENT}" {lost} drop')
    wish = replace(WISH, controllers=(f"{ROUTER}:7700",))
    with site.serving(7700):
        began = time.monotonic()
        transaction.move(links, str(tmp_path), wish, patience=1.5)
        took = time.monotonic() - began
    journal = files.read(str(tmp_path), BRIDGE)
    assert journal is not None and journal.phase == FAILED
    assert told in journal.why and "set back" in journal.why
    assert site.listing() == before
    assert took < 6
    assert site.pings(ROUTER)


def test_a_controller_that_was_away_before_is_no_reason(site: Site, links: Links, tmp_path: Path) -> None:
    wish = replace(WISH, controllers=(f"{ROUTER}:7701",))
    transaction.move(links, str(tmp_path), wish, patience=1)
    journal = files.read(str(tmp_path), BRIDGE)
    assert journal is not None and journal.phase == KEPT


def test_silent_gateways_take_no_time_of_each_other(site: Site) -> None:
    addresses = [socket.inet_aton(f"198.18.9.{number}") for number in range(50, 56)]
    silent = [Gateway(family=socket.AF_INET, address=address) for address in addresses]
    router = Gateway(family=socket.AF_INET, address=socket.inet_aton(ROUTER))
    began = time.monotonic()
    assert answering([*silent, router], PARENT, socket.inet_aton(HOST), 0) == {router}
    assert time.monotonic() - began < 4 * PATIENCE


def test_a_bridge_that_others_deleted_gets_all_back(site: Site, links: Links, tmp_path: Path) -> None:
    before = site.listing()
    transaction.move(links, str(tmp_path), WISH, patience=3, asked=ASKED)
    run("ip", "link", "del", BRIDGE)
    site.bridge()
    transaction.move(links, str(tmp_path), WISH, patience=3, asked=ASKED)
    assert site.listing(BRIDGE) == before.replace("LINK:1", "LINK")
    transaction.give_back(str(tmp_path), BRIDGE)
    assert site.listing() == before


def test_a_link_that_others_took_out_is_put_in_again(site: Site, links: Links, tmp_path: Path) -> None:
    before = site.listing()
    transaction.move(links, str(tmp_path), WISH, patience=3, asked=ASKED)
    run("ip", "link", "set", PARENT, "nomaster")
    transaction.move(links, str(tmp_path), WISH, patience=3, asked=ASKED)
    assert site.listing(BRIDGE) == before.replace("LINK:1", "LINK")
    assert site.pinged()


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.3, 0.45, 0.6])
def test_a_process_killed_at_any_time_leaves_the_link_whole(site: Site, tmp_path: Path, delay: float) -> None:
    """Its child dies and it puts things right; both die and the next does."""
    before, folder = site.listing(), str(tmp_path)
    process = subprocess.Popen([sys.executable, "-P", "-m", "net.nic", folder, "move", _words()])
    wait_until(lambda: _child_of(process.pid) or process.poll() is not None, deadline=30, pause=0.005)
    time.sleep(delay)  # whenever: this is about any moment
    (child,) = _child_of(process.pid) or (0,)
    if child:
        _kill(child)
    if delay > 0.2:
        process.kill()
    process.wait(60)
    subprocess.run([sys.executable, "-P", "-m", "net.nic", folder, "recover", BRIDGE], check=True)
    journal = files.read(folder, BRIDGE)
    if journal is not None and journal.phase == KEPT:
        transaction.give_back(folder, BRIDGE)
    assert site.listing() == before
    assert site.pings(ROUTER)


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3])
def test_a_return_whose_process_is_killed_at_any_time_is_finished(
    site: Site, links: Links, tmp_path: Path, delay: float
) -> None:
    """By who watched it, in the cgroup of what outlives the agent."""
    before, folder = site.listing(), str(tmp_path / "nic")
    transaction.move(links, folder, WISH, patience=3, asked=ASKED)
    process = subprocess.Popen([sys.executable, "-P", "-m", "net.nic", folder, "return", BRIDGE])
    wait_until(lambda: _child_of(process.pid) or process.poll() is not None, deadline=10, pause=0.001)
    time.sleep(delay)  # whenever: this is about any moment
    for child in _child_of(process.pid):
        _kill(child)
    assert process.wait(60) == 0
    if files.read(folder, BRIDGE) is not None:  # it was killed before it began
        transaction.give_back(folder, BRIDGE)
    assert site.listing() == before
    assert files.read(folder, BRIDGE) is None
    assert site.pings(ROUTER)


MOMENT = 0.25
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9900))
print("up", flush=True)
while True:
    data, who = s.recvfrom(99)
    try: s.sendto(data, who)
    except OSError: pass
"""
ASK = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.005)
print("up", flush=True)
worst, last, end = 0.0, time.monotonic(), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    s.sendto(b"?", (sys.argv[1], 9900))
    try: s.recv(99)
    except OSError: continue
    now = time.monotonic()
    worst, last = max(worst, now - last), now
print(max(worst, time.monotonic() - last), flush=True)
"""


@DOUBTED
def test_a_move_costs_the_host_a_moment_only(site: Site, links: Links, tmp_path: Path) -> None:
    """A question each 5 ms at least: the longest time without an answer. A machine that stands still makes it
    longer, never shorter: one good turn out of some is enough."""
    with contextlib.closing(Talker("/proc/thread-self/ns/net", ECHO)):
        turns: list[float] = []
        while not turns or (min(turns) >= MOMENT and len(turns) < 4):
            with contextlib.closing(Talker(f"/run/netns/{site.router}", ASK, HOST, "2.5")) as ask:
                transaction.move(links, str(tmp_path), WISH, patience=3)
                transaction.give_back(str(tmp_path), BRIDGE)
                turns.append(float(ask.say("")))
    print(f"a move and a return: {min(turns) * 1000:.0f} ms without an answer at worst")
    assert min(turns) < MOMENT, turns


def _words() -> str:
    return encode_json(WISH).decode()


def _child_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    """It may just have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _mac(link: str) -> str:
    return run("ip", "-br", "link", "show", "dev", link).split()[2]
