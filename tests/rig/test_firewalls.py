"""Other firewalls beside us, as their packages really write them: what stays closed, and what opens it.

ufw and firewalld run in the host's own namespaces, on copies of their configuration.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.networkrows import HOST, SERVE, TAKEN, THIRD
from tests.rig.networktable import PAGE_SERVER, fetches
from tests.rig.support import background
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
PAGE = f"http://{HOST}:8080/"


def sh(fleet: Fleet, script: str) -> str:
    return fleet.rig.exec("n1", ["sh", "-ec", script]).stdout.decode()


@pytest.fixture(scope="module")
def town(fleet: Fleet) -> Iterator[Fleet]:
    """A page on a published port of n1; a container of n1 and one of n2 on an overlay."""
    fleet.flota("n1", "network", "create", "far")
    far = ("--network", "far")
    made = {
        "web": ("n1", ("-p", "8080:80")),
        "near": ("n1", far),
        "beside": ("n1", far),
        "there": ("n2", far),
    }
    for name, (node, flags) in made.items():
        fleet.flota("n1", "run", "-d", "--name", name, "--node", node, *flags, IMAGE, "sh", "-c", SERVE)
    with background(fleet, "n3", sys.executable, "-S", "-c", PAGE_SERVER) as outside:
        wait_until(lambda: works(fleet) == set(ALL), deadline=10, what="everything to work")
        yield fleet
        outside.kill()


ALL = ("page from n3", "page from n2", "page from the host", "outside", "other host", "same host", "names")


def works(fleet: Fleet) -> set[str]:
    """Which of `ALL` do."""
    pid = fleet.json("inspect", "near")[0]["status"]["pid"]
    enter = ("nsenter", "-t", str(pid), "-n")
    inner = {n: fleet.json("inspect", n)[0]["status"]["endpoints"][0]["ipv4"] for n in ("there", "beside")}
    found = {
        "page from n3": fetches(fleet.rig, "n3", PAGE),
        "page from n2": fetches(fleet.rig, "n2", PAGE),
        "page from the host": fetches(fleet.rig, "n1", PAGE),
        "outside": fetches(fleet.rig, "n1", f"http://{THIRD}:{TAKEN}/", *enter),
        "other host": fetches(fleet.rig, "n1", f"http://{inner['there']}/", *enter),
        "same host": fetches(fleet.rig, "n1", f"http://{inner['beside']}/", *enter),
        "names": fleet.attempt("n1", "exec", "near", "nslookup", "there").returncode == 0,
    }
    return {name for name, good in found.items() if good}


@contextlib.contextmanager
def ufw(fleet: Fleet) -> Iterator[None]:
    sh(fleet, "cp -a /etc/ufw /run/ufw; mount --bind /run/ufw /etc/ufw")
    sh(fleet, "cp /etc/default/ufw /run/ufw.default; mount --bind /run/ufw.default /etc/default/ufw")
    sh(fleet, "ufw allow 7420/tcp; ufw --force enable")
    try:
        yield
    finally:
        sh(fleet, "ufw --force disable; umount /etc/default/ufw /etc/ufw; rm -r /run/ufw /run/ufw.default; "
           "for t in iptables ip6tables; do $t -F; $t -X; done; "
           "nft delete table ip filter; nft delete table ip6 filter")  # fmt: skip


def test_ufw_keeps_ports_closed_until_its_own_rules_open_them(town: Fleet) -> None:
    """The commands are those of docs/networking.md."""
    with ufw(town):
        assert works(town) == {"page from the host"}
        sh(town, f"ufw route allow proto tcp from {THIRD} to any port 80")
        assert works(town) == {"page from the host", "page from n3"}
        sh(town, "ufw allow proto udp from 198.18.0.0/24 to any port 4789")
        sh(
            town,
            "ufw allow in on flb+ to any port 53; ufw route allow in on flb+; ufw route allow in on flx+",
        )
        wait_until(lambda: works(town) == set(ALL) - {"page from n2"}, deadline=5, what="all but n2's page")
        sh(town, "ufw route allow out on flb+")
        assert works(town) == set(ALL)
    assert works(town) == set(ALL)


@contextlib.contextmanager
def firewalld(fleet: Fleet) -> Iterator[None]:
    sh(fleet, "cp -a /etc/firewalld /run/firewalld.etc && mount --bind /run/firewalld.etc /etc/firewalld; "
       "mkdir -p /run/dbus")  # fmt: skip
    daemons = (("dbus-daemon", "--system", "--nofork", "--nopidfile"), ("firewalld", "--nofork", "--nopid"))
    with contextlib.ExitStack() as stack:
        for words, ready in zip(
            daemons, ("test -S /run/dbus/system_bus_socket", "firewall-cmd --state"), strict=True
        ):
            daemon = stack.enter_context(background(fleet, "n1", *words))
            stack.callback(daemon.terminate)
            wait_until(
                lambda r=ready: fleet.rig.exec("n1", ["sh", "-c", r], check=False).returncode == 0,
                deadline=20,
                what=words[0],
            )
        sh(fleet, "firewall-cmd -q --add-port=7420/tcp")
        yield
    sh(fleet, "umount /etc/firewalld; rm -r /run/firewalld.etc")


def test_firewalld_lets_published_ports_through_and_allow_lists_narrow_them(town: Fleet) -> None:
    """It accepts whatever was translated; it must be told of our links for the rest."""
    with firewalld(town):
        assert {"page from n3", "page from n2", "page from the host"} <= works(town)
        assert not {"outside", "other host", "names"} & works(town)
        change = (f"published=8080,target=80,allow={THIRD},allow={HOST}", "--publish-rm", "80", "web")
        town.flota("n1", "update", "--publish-add", *change)
        assert works(town) & {"page from n3", "page from n2"} == {"page from n3"}
        town.flota("n1", "update", "--publish-add", "8080:80", "--publish-rm", "80", "web")
        sh(town, "firewall-cmd -q --zone=trusted --add-interface=flb+; firewall-cmd -q --add-port=4789/udp; "
           "firewall-cmd -q --zone=trusted --add-interface=flx+")  # fmt: skip
        wait_until(lambda: works(town) == set(ALL), deadline=5, what="everything")
    assert works(town) == set(ALL)
