"""A host with a second link on a site's network: a router that answers there, and what the host has on it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from net.nic.state import Wish
from tests.support.ownnetns import own_network_namespace

PARENT, BRIDGE = "eth1", "fln0123456789ab"
BESIDE = "eth2"
"""Another link, with routes that name addresses of the first one as their source."""
LINKS = ((PARENT, "lan0"), (BESIDE, "lan1"))
ROUTER, ROUTER6 = "198.18.9.1", "fd18:9::1"
HOST, HOST6 = "198.18.9.11", "fd18:9::11"
WISH = Wish(network="lan", parent=PARENT, bridge=BRIDGE, mtu=1500)
_VOLATILE = re.compile(r"(valid_lft|preferred_lft|expires) \d+sec")
SWITCHES = ("disable_ipv6", "addr_gen_mode", "accept_ra", "forwarding")

SERVER = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    listener.accept()[0].close()
"""


def run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def batch(lines: Iterable[str], *words: str) -> None:
    """Commands of ip(8)."""
    done = subprocess.run(
        ["ip", *words, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


class Site:
    """The calling thread stands in the host's namespace; the router is in one of its own. `doubted`: the host
    looks for others that have its IPv6 addresses before it uses them (RFC 4862 5.4), which takes seconds."""

    def __init__(self, *, doubted: bool = False) -> None:
        self.first = ""
        """The first `listing`, once `equip` made all that there is."""
        defaults = Path("/proc/sys/net/ipv6/conf/default")
        (defaults / "dad_transmits").write_text("1" if doubted else "0")
        if not doubted:  # it would wait up to a second before it asks nobody
            (defaults / "router_solicitation_delay").write_text("0")
        self.router = f"hnic{os.getpid() % 100000}"
        run("ip", "netns", "add", self.router)
        batch(f"link add {link} type veth peer name {peer} netns {self.router}" for link, peer in LINKS)
        batch(
            (
                "link set lan0 up",
                f"address add {ROUTER}/24 dev lan0",
                f"address add {ROUTER6}/64 dev lan0 nodad",
                "address add 203.0.113.1/32 dev lo",
                "link set lan1 up",
            ),
            "-n",
            self.router,
        )
        batch((f"link set {PARENT} up", f"address add 198.18.20.11/24 dev {BESIDE}", f"link set {BESIDE} up"))

    def equip(self) -> None:
        """Addresses, routes and neighbours of all sorts."""
        words = (
            f"-4 address add {HOST}/24 broadcast 198.18.9.255 dev {PARENT} valid_lft 5000 preferred_lft 4000",
            f"-4 address add 198.18.9.12/24 dev {PARENT} label {PARENT}:1",
            f"-4 address add 198.18.8.12/24 dev {PARENT} noprefixroute",
            f"-4 address add 198.18.9.13/24 dev {PARENT} metric 300",
            f"-6 address add {HOST6}/64 dev {PARENT}",
            f"-6 address add fd18:9::12/64 dev {PARENT} nodad valid_lft 6000 preferred_lft 0",
            f"-4 route add default via {ROUTER} dev {PARENT} src {HOST} metric 100 mtu 1400",
            f"-4 route add default via 198.18.9.2 dev {PARENT} metric 200",
            f"-4 route add 203.0.113.0/24 via 203.0.113.99 dev {PARENT} onlink proto static",
            f"-4 route add 198.18.8.0/24 dev {PARENT} proto kernel scope link src 198.18.8.12 metric 700",
            f"-4 route add 203.0.112.0/24 nexthop via {ROUTER} dev {PARENT} weight 2 "
            f"nexthop via 198.18.9.3 dev {PARENT}",
            f"-4 route add 203.0.111.0/24 via {ROUTER} dev {PARENT} table 77",
            f"-4 route add 198.51.100.0/24 dev {BESIDE} src {HOST} metric 50",
            f"-4 route add 198.51.101.0/24 via 198.18.20.1 dev {BESIDE} src 198.18.9.12 mtu 1300",
            f"-4 route add 198.51.102.0/24 via 198.18.20.1 dev {BESIDE} src {HOST} table 78",
            f"-6 route add default via {ROUTER6} dev {PARENT} metric 1024 pref high",
            f"-6 route add 2001:db8:5::/48 via {ROUTER6} dev {PARENT} expires 500",
            f"-4 neigh add 198.18.9.77 lladdr 02:00:00:00:00:77 nud permanent dev {PARENT}",
            f"-6 neigh add fd18:9::77 lladdr 02:00:00:00:00:77 nud permanent dev {PARENT}",
        )
        for family in ("-4", "-6"):
            batch((line.removeprefix(family) for line in words if line.startswith(family)), family)

    def bridge(self) -> None:
        run("ip", "link", "add", BRIDGE, "mtu", "1500", "type", "bridge", "mcast_snooping", "0")
        run("ip", "link", "set", BRIDGE, "alias", "flota:network:x", "up")

    def at_router(self, *argv: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.router, *argv, check=check)

    @contextlib.contextmanager
    def serving(self, port: int) -> Iterator[None]:
        """The router takes connections there."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.router, sys.executable, "-c", SERVER, str(port)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def listing(self, link: str = PARENT) -> str:
        """All that the host has on a link, and beside it, as `ip` says it, without lifetimes, links' names
        alike."""
        parts = [
            run("ip", "-d", "address", "show", "dev", link).partition("\n")[2],
            *(run("ip", "-d", f, "route", "show", "table", "all", "dev", link) for f in ("-4", "-6")),
            run("ip", "-d", "-4", "route", "show", "table", "all", "dev", BESIDE),
            run("ip", "neigh", "show", "nud", "permanent", "dev", link),
            *(Path(f"/proc/sys/net/ipv6/conf/{link}/{name}").read_text() for name in SWITCHES),
        ]
        text = re.sub(r"\n.*(veth|bridge|promiscuity|alias).*", "", "\n" + "".join(parts))
        return _VOLATILE.sub(r"\1 N", text).replace(link, "LINK")

    def pings(self, target: str) -> bool:
        """The host a machine of the site's."""
        words = ("busybox", "ping6" if ":" in target else "ping", "-c1", "-W2", target)
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def pinged(self) -> bool:
        """The host by the router."""
        words = ("ip", "netns", "exec", self.router, "busybox", "ping", "-c1", "-W2", HOST)
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def close(self) -> None:
        run("ip", "netns", "del", self.router, check=False)


@contextlib.contextmanager
def nic_site(*, doubted: bool = False) -> Iterator[Site]:
    with own_network_namespace():
        site = Site(doubted=doubted)
        try:
            yield site
        finally:
            site.close()
