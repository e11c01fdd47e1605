"""The rows of the table of networks: modes, facts, paths and published forms, and where Docker differs.

They are observed by `tests.rig.networktable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy.rig.netns import address_of

HOST, THIRD = address_of("n1"), address_of("n3")
HOST6, THIRD6 = "fd99::11", "fd99::13"
"""Of n1 and n3, given by `furnished`."""
SERVE = "echo page > /www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www"
"""Of a container: a page on 80 and 81."""
TAKEN = 9099
"""Of a foreign program on n1."""


@dataclass(frozen=True)
class Mode:
    """`docker` holds what differs there: field → value; `refused`: it can't be had."""

    name: str
    flags: Sequence[str]
    links: Sequence[str] = ("eth0", "lo")
    out: bool = True
    """It reaches the outside."""
    host: bool = True
    """Its host reaches it by its address."""
    third: bool = False
    """Another host does."""
    then: Sequence[Sequence[str]] = ()
    """Commands once it runs."""
    docker: Mapping[str, object] = field(default_factory=dict)


def connect(network: str) -> Sequence[str]:
    return ("network", "connect", network, "box")


def disconnect(network: str) -> Sequence[str]:
    return ("network", "disconnect", network, "box")


MODES = (
    Mode("default bridge", ()),
    Mode("none", ("--network", "none"), links=("lo",), out=False, host=False),
    Mode("another bridge", ("--network", "lan")),
    Mode("two networks", ("--network", "lan", "--network", "wan"), links=("eth0", "eth1", "lo"),
         docker={"refused": True}),
    Mode("internal", ("--network", "inner"), out=False),
    Mode("a container's", ("--network", "container:peer"), host=False),
    Mode("without each other", ("--network", "apart")),
    Mode("both families", ("--network", "six")),
    Mode("none, then connected", ("--network", "none"), then=(connect("lan"),),
         docker={"then": False, "links": ("lo",), "out": False, "host": False}),
    Mode("connected to a second", ("--network", "lan"), then=(connect("wan"),), links=("eth0", "eth1", "lo")),
    Mode("moved to another", ("--network", "lan"), then=(connect("wan"), disconnect("lan")),
         links=("eth1", "lo")),
    Mode("taken off and put back", ("--network", "lan"), then=(disconnect("lan"), connect("lan")),
         docker={"links": ("eth1", "lo")}),
    Mode("taken off its only one", ("--network", "lan"), then=(disconnect("lan"),), links=("lo",), out=False,
         host=False),
)  # fmt: skip
NETWORKS: Mapping[str, Sequence[str]] = {
    "lan": ("-d", "bridge", "--subnet", "10.211.0.0/24"),
    "wan": ("-d", "bridge", "--subnet", "10.212.0.0/24"),
    "inner": ("-d", "bridge", "--subnet", "10.213.0.0/24", "--internal"),
    "apart": ("-d", "bridge", "--subnet", "10.214.0.0/24",
              "--opt", "com.docker.network.bridge.enable_icc=false"),
    "six": ("-d", "bridge", "--ipv6", "--subnet", "10.215.0.0/24", "--subnet", "fd15::/64"),
}  # fmt: skip


REFUSED = "refused"
"""What Docker says to flags that it does not have, or that its present client asks only of newer engines."""


@dataclass(frozen=True)
class Fact:
    """What a script prints inside a container with these flags; `docker` where it says something else."""

    name: str
    flags: Sequence[str]
    script: str
    says: str
    docker: str | None = None


_ADDRESS = "ip -o {} address show eth0 scope global | awk '{{print $4}}'"
_RESOLV = "sort /etc/resolv.conf | grep -v '^#'"
_DNS = ("--dns", "192.0.2.53", "--dns-search", "a.example", "--dns-search", "b.example", "--dns-option",
        "timeout:1")  # fmt: skip
_OWN = "tail -n1 /etc/hosts | cut -f2"
_FOUND = "do nslookup $n >/dev/null 2>&1 && echo $n; done; true"
_PORTS = "net.ipv4.ip_unprivileged_port_start"
FACTS = (
    Fact("host name", ("--hostname", "h1"), f"hostname; {_OWN}", "h1 h1"),
    Fact("domain", ("--hostname", "h1", "--domainname", "a.example"), f"hostname -f; {_OWN}",
         "h1.a.example h1.a.example h1"),
    Fact("hosts entries", ("--add-host", "db:192.0.2.9", "--add-host", "six:fd00::9"),
         "grep -wE 'db|six' /etc/hosts", "192.0.2.9 db fd00::9 six"),
    Fact("name servers", _DNS, _RESOLV, "nameserver 192.0.2.53 options timeout:1 search a.example b.example"),
    Fact("name servers on a network", ("--network", "lan", *_DNS), _RESOLV,
         "nameserver 10.211.0.1 options timeout:1 ndots:0 search a.example b.example",
         docker="nameserver 127.0.0.11 options timeout:1 ndots:0 search a.example b.example"),
    Fact("fixed address", ("--network", "lan", "--ip", "10.211.0.99"), _ADDRESS.format("-4"),
         "10.211.0.99/24"),
    Fact("fixed address of IPv6", ("--network", "six", "--ip6", "fd15::99"), _ADDRESS.format("-6"),
         "fd15::99/64"),
    Fact("fixed MAC", ("--mac-address", "02:00:00:00:00:42"), "cat /sys/class/net/eth0/address",
         "02:00:00:00:00:42", docker=REFUSED),
    Fact("switch of the namespace", ("--sysctl", f"{_PORTS}=1000"), f"sysctl -n {_PORTS}", "1000"),
    Fact("way out", ("--network", "lan"),
         "ip route | grep -c default; ip route | awk '/default/ {print $3}'", "1 10.211.0.1"),
    Fact("no way out", ("--network", "inner"), "ip route | grep -c default; true", "0", docker="1"),
    Fact("alias", ("--network", "lan", "--network-alias", "a1", "--network-alias", "a2"),
         f"for n in a1 a2 box besidelan; {_FOUND}", "a1 a2 box besidelan"),
    Fact("names of another network", ("--network", "wan"), f"for n in besidelan box; {_FOUND}", "box"),
)  # fmt: skip


@dataclass(frozen=True)
class Path:
    """Whether the neighbour on one network reaches the address of the one on another ("" is the default)."""

    from_: str
    to: str
    reaches: bool


PATHS = (
    *(Path(net, net, True) for net in ("", "lan", "six", "inner")),
    Path("apart", "apart", False),
    *(
        Path(a, b, False)
        for a, b in (("lan", "six"), ("six", "lan"), ("lan", ""), ("", "lan"), ("apart", "lan"))
    ),
    *(Path(a, b, False) for a, b in (("lan", "apart"), ("inner", "lan"), ("lan", "inner"))),
)
BESIDE = ("", "lan", "apart", "six", "inner")
"""Networks on which `beside…` and `twin…` stand."""


@dataclass(frozen=True)
class Form:
    """A published port and who gets an answer at which address. `port` 0: the one that was chosen."""

    name: str
    flags: Sequence[str]
    port: int
    loopback: bool = True
    """The host at 127.0.0.1."""
    host: bool = True
    """The host at its own address."""
    third: bool = True
    beside: bool = True
    """A container of the same host and network, at the host's address."""
    itself: bool = True
    direct: bool = False
    """n3 at the container's own address and port, sent by way of n1, as an enemy on the link would."""
    trick: bool = False
    """n3 at 127.0.0.1, sent by way of n1, which takes such packets from the link (route_localnet)."""
    at: str = HOST
    """The host's own address that is asked."""
    protocol: str = "tcp"
    docker: Mapping[str, object] = field(default_factory=dict)
    """Besides that whoever sends to a container's address, or to 127.0.0.1, by way of its host reaches what
    it publishes, on whatever address (Docker Engine 28 ended that)."""


_NOBODY = {"loopback": False, "host": False, "third": False, "beside": False, "itself": False}
_LOOPBACK = {"host": False, "third": False, "beside": False, "itself": False}
FORMS = (
    Form("a port", ("-p", "8080:80"), 8080),
    Form("of the host's choice", ("-p", "80"), 0),
    Form("on loopback", ("-p", "127.0.0.1:8081:80"), 8081, **_LOOPBACK),
    Form("on loopback, of the host's choice", ("-p", "127.0.0.1::80"), 0, **_LOOPBACK),
    Form("on the host's address", ("-p", f"{HOST}:8082:80"), 8082, loopback=False),
    Form("on all IPv4 addresses", ("-p", "0.0.0.0:8083:80"), 8083),
    Form("the first of a range", ("-p", "8084-8085:80-81"), 8084),
    Form("the last of a range", ("-p", "8084-8085:80-81"), 8085),
    Form("one out of a range", ("-p", f"{TAKEN}-{TAKEN + 1}:80"), TAKEN + 1, docker={"refused": True}),
    Form("exposed ones", ("-P", "--expose", "80"), 0),
    Form("on a bridge of its own", ("-p", "8086:80", "--network", "lan"), 8086),
    Form("where containers are apart", ("-p", "8087:80", "--network", "apart"), 8087),
    Form("of UDP only", ("-p", "8088:80/udp"), 8088, **_NOBODY, docker={"direct": False}),
    Form("of UDP", ("-p", "8089:53/udp"), 8089, protocol="udp", docker={"beside": False, "itself": False}),
    Form("by IPv6", ("-p", "8090:80", "--network", "six"), 8090, at=HOST6),
    Form(
        "on an IPv6 address",
        ("-p", f"[{HOST6}]:8091:80", "--network", "six"),
        8091,
        at=HOST6,
        loopback=False,
        docker={"direct": False},
    ),
    Form(
        "on all IPv6 addresses",
        ("-p", "[::]:8092:80", "--network", "six"),
        8092,
        at=HOST6,
        loopback=False,
        docker={"direct": False},
    ),
)


def wanted(row: Mode | Form, *, docker: bool) -> dict[str, object]:
    """What is to be observed of a row."""
    fields = ("links", "out", "host", "third") if isinstance(row, Mode) else (*_PEOPLE, "direct", "trick")
    found: dict[str, object] = {name: getattr(row, name) for name in fields}
    if isinstance(row, Mode):
        found |= {"links": tuple(row.links), "then": True}
    if not docker:
        return found
    if isinstance(row, Form):
        found |= {"direct": True, "trick": row.loopback}
    return {**found, **row.docker}


_PEOPLE = ("loopback", "host", "third", "beside", "itself")
