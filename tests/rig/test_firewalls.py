"""Other firewalls beside us, as their packages really write them: what stays closed, and what opens it.

ufw and firewalld run in the host's own namespaces, on copies of their configuration.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.networkrows import HOST, SERVE, TAKEN, THIRD
from tests.rig.networktable import PAGE_SERVER, fetches
from tests.rig.support import background
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
PAGE, SHOP = f"http://{HOST}:8080/", f"http://{HOST}:8090/"
LISTED = f"published=8090,target=80,allow={THIRD}"


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
        "outside": fetches(fleet.rig, "n1", f"http://{THIRD}:{TAKEN}/", *enter),
        "other host": fetches(fleet.rig, "n1", f"http://{inner['there']}/", *enter),
        "same host": fetches(fleet.rig, "n1", f"http://{inner['beside']}/", *enter),
        "names": fleet.attempt("n1", "exec", "near", "nslookup", "there").returncode == 0,
    }
    return pages(fleet) | {name for name, good in found.items() if good}


def pages(fleet: Fleet) -> set[str]:
    asked = {"page from n3": "n3", "page from n2": "n2", "page from the host": "n1"}
    return {name for name, host in asked.items() if fetches(fleet.rig, host, PAGE)}


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


@pytest.mark.slow
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
    wait_until(lambda: works(town) == set(ALL), deadline=10, what="everything without ufw")


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
            stack.callback(_end, daemon)
            wait_until(
                lambda r=ready: fleet.rig.exec("n1", ["sh", "-c", r], check=False).returncode == 0,
                deadline=20,
                what=words[0],
            )
        sh(fleet, "firewall-cmd -q --add-port=7420/tcp")
        yield
    sh(fleet, "nft delete table inet firewalld; umount /etc/firewalld; rm -r /run/firewalld.etc")


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    daemon.wait(20)


def becomes(fleet: Fleet, wanted: set[str]) -> None:
    """Within the second that an agent takes to follow."""
    wait_until(lambda: pages(fleet) == wanted, deadline=3, what=str(wanted))


def test_firewalld_keeps_ports_closed_until_it_or_an_allow_list_opens_them(town: Fleet) -> None:
    """It accepts whatever was translated, so we ask it first; of our links it must be told for the rest."""
    own, everybody = {"page from the host"}, {"page from n3", "page from n2", "page from the host"}
    shop = ("--name", "shop", "-p", "8090:80", "--constraint", "node.name==n1")
    rich = f"rule family=ipv4 source address={THIRD} port port=8080 protocol=tcp accept"
    with firewalld(town):
        becomes(town, own)
        assert not {"outside", "other host", "names"} & works(town)
        sh(town, "firewall-cmd -q --add-port=8080/tcp")
        becomes(town, everybody)
        sh(town, f"firewall-cmd -q --remove-port=8080/tcp; firewall-cmd -q --add-rich-rule='{rich}'")
        becomes(town, own | {"page from n3"})
        sh(town, "firewall-cmd -q --reload")
        becomes(town, own)
        sh(town, f"firewall-cmd -q --zone=trusted --add-source={THIRD}")
        becomes(town, own | {"page from n3"})
        sh(
            town,
            "firewall-cmd -q --add-port=7420/tcp; firewall-cmd -q --zone=trusted --remove-source=" + THIRD,
        )
        change = (f"published=8080,target=80,allow={THIRD},allow={HOST}", "--publish-rm", "80", "web")
        town.flota("n1", "update", "--publish-add", *change)
        assert pages(town) == own | {"page from n3"}
        change = ("published=8080,target=80,allow=0.0.0.0/0", "--publish-rm", "80", "web")
        town.flota("n1", "update", "--publish-add", *change)
        assert pages(town) == everybody
        town.flota("n1", "update", "--publish-add", "8080:80", "--publish-rm", "80", "web")
        assert pages(town) == own
        town.flota("n1", "service", "create", *shop, IMAGE, "sh", "-c", SERVE)
        wait_until(lambda: fetches(town.rig, "n1", SHOP), deadline=10, what="the service's page")
        assert not fetches(town.rig, "n3", SHOP)
        town.flota("n1", "service", "update", "--publish-rm", "80", "--publish-add", LISTED, "shop")
        wait_until(lambda: fetches(town.rig, "n3", SHOP), deadline=5, what="the allow list")
        town.flota("n1", "service", "rm", "shop")
        sh(town, "firewall-cmd -q --add-port=8080/tcp")
        sh(town, "firewall-cmd -q --zone=trusted --add-interface=flb+; firewall-cmd -q --add-port=4789/udp; "
           "firewall-cmd -q --zone=trusted --add-interface=flx+")  # fmt: skip
        wait_until(lambda: works(town) == set(ALL), deadline=10, what="everything")
    wait_until(lambda: works(town) == set(ALL), deadline=10, what="everything without firewalld")


@contextlib.contextmanager
def docker(fleet: Fleet, log: str) -> Iterator[None]:
    """Docker Engine on n1."""
    words = ["dockerd", "--data-root", "/var/lib/flota/docker", "--exec-root", "/run/docker"]
    words += ["-p", "/run/docker.pid", "-H", f"unix://{SOCKET}"]
    daemon = fleet.rig.spawn("n1", words, log=log)
    info = ["docker", "-H", f"unix://{SOCKET}", "info"]
    try:
        wait_until(
            lambda: fleet.rig.exec("n1", info, check=False).returncode == 0, deadline=30, what="dockerd"
        )
        yield
    finally:
        sh(fleet, "kill $(cat /run/docker.pid)")
        daemon.wait(20)


SOCKET = "/run/flota/docker.sock"


def chain(fleet: Fleet) -> list[str]:
    return sh(fleet, "iptables -S DOCKER-USER").splitlines()[1:]


@pytest.mark.slow
def test_docker_beside_us_stops_nothing_of_ours(town: Fleet, tmp_path: Path) -> None:
    log = str(tmp_path / "dockerd.log")
    try:
        with docker(town, log):
            assert chain(town) == ["-A DOCKER-USER -j RETURN"], "it drops nothing where it came second"
            sh(town, "iptables -P FORWARD DROP")  # as it does on a host that it finds without ip_forward
            wait_until(lambda: works(town) == set(ALL), deadline=10, what="all beside Docker")
            assert sum("--comment flota" in line for line in chain(town)) == 9
            sh(town, f"docker -H unix://{SOCKET} network create lan")
            wait_until(
                lambda: len(chain(town)) == 13, deadline=5, what="Docker's new bridge to be left to it"
            )
            sh(town, f"iptables -I DOCKER-USER -s {THIRD} -j DROP")
            wait_until(
                lambda: works(town) == set(ALL) - {"page from n3", "outside"}, deadline=5, what="a drop"
            )
            sh(town, f"iptables -D DOCKER-USER -s {THIRD} -j DROP; iptables -F DOCKER-USER")
            wait_until(lambda: works(town) == set(ALL), deadline=5, what="our rules again")
            sh(town, f"docker -H unix://{SOCKET} network rm lan")
        with docker(town, log):
            wait_until(lambda: works(town) == set(ALL), deadline=10, what="all beside Docker started again")
            with ufw(town):
                wait_until(lambda: not any("flota" in line for line in chain(town)), deadline=5, what="ufw")
                assert works(town) == {"page from the host"}, "what ufw closes stays closed beside Docker too"
    finally:
        sh(town, "for t in iptables ip6tables; do $t -P FORWARD ACCEPT; $t -F; $t -X; done; "
           "for t in filter nat; do nft delete table ip $t || true; done; ip link del docker0")  # fmt: skip
    wait_until(lambda: works(town) == set(ALL), deadline=5, what="all without Docker")
