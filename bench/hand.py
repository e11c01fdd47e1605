"""VXLAN made by hand between two hosts: a bridge and a VXLAN device in each, a namespace behind; plain `ip`.

Two pairs of guests on it: one as the kernel makes its links, one whose links and tunnel are steered as
flota's are (Linux networking/scaling), so that what is compared is what else flota does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lanes import Lane
from bench.stage import RIG
from deploy.rig.netns import NetnsRig
from net.kernel.steering import FLOWS, OTHER_FLOWS, mask

KINDS = ("plain", "steered")


@contextmanager
def lanes(folder: Path, processors: int) -> Iterator[dict[str, Lane]]:
    """By kind, each on hosts of its own."""
    rig = NetnsRig(f"{RIG}h", disk=folder, run=Path(f"/run/flota-{RIG}h"))
    rig.down()
    try:
        rig.up(2 * len(KINDS))
        found = {}
        for order, kind in enumerate(KINDS):
            pair = rig.hosts[2 * order : 2 * order + 2]
            for index, host in enumerate(pair, 1):
                space, guest = f"{rig.name}-{host.name}", _guest(kind, index)
                _ip("netns", "add", guest)
                _host(space, guest, index, host.address, pair[2 - index].address)
                if kind == "steered":
                    _steer(space, processors)
            spaces = [f"/run/netns/{_guest(kind, index)}" for index in (1, 2)]
            found[kind] = Lane(client=spaces[0], server=spaces[1], address="10.55.0.2")
        yield found
    finally:
        for kind in KINDS:
            for index in (1, 2):
                subprocess.run(["ip", "netns", "del", _guest(kind, index)], check=False, capture_output=True)
        rig.down()


def _guest(kind: str, index: int) -> str:
    return f"{RIG}-{kind}{index}"


def _host(host: str, guest: str, index: int, own: str, peer: str) -> None:
    _ip("-n", host, "link", "add", "vx0", "mtu", "1450", "type", "vxlan", "id", "77", "dstport", "4789",
        "local", own, "nolearning")  # fmt: skip
    _ip("-n", host, "link", "add", "br0", "type", "bridge")
    _ip("-n", host, "link", "set", "vx0", "master", "br0", "up")
    _ip("-n", host, "link", "set", "br0", "up")
    subprocess.run(
        ["bridge", "-n", host, "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", peer], check=True
    )
    _ip("-n", host, "link", "add", "v0", "mtu", "1450", "type", "veth", "peer", "name", "eth0", "mtu", "1450",
        "netns", guest)  # fmt: skip
    _ip("-n", host, "link", "set", "v0", "master", "br0", "up")
    _ip("-n", guest, "address", "add", f"10.55.0.{index}/24", "dev", "eth0")
    _ip("-n", guest, "link", "set", "eth0", "up")


def _steer(host: str, processors: int) -> None:
    """`ip netns exec` shows the namespace's own links in /sys."""
    for link, flows in (("v0", OTHER_FLOWS), ("vx0", FLOWS["vxlan"])):
        queue = f"/sys/class/net/{link}/queues/rx-0"
        script = f"echo {mask(processors)} > {queue}/rps_cpus && echo {flows} > {queue}/rps_flow_cnt"
        _ip("netns", "exec", host, "sh", "-c", script)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
