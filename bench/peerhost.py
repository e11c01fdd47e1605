"""A host that gives namespaces an interface as others do, in the namespace that this program is in; told line
by line, it prints seconds.

`cni` is a new network namespace and CNI's bridge plugin with host-local addresses, run as a container engine
runs it; `bare` the least that the kernel must be asked for: namespace, pair, address and routes, by the same
packed messages that ours uses and nothing else.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from net.kernel import netns, rtnl

PLUGINS = "/usr/lib/cni"
BRIDGE = "bare0"
CONFIG = {
    "cniVersion": "0.4.0",
    "name": "bench",
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "mtu": 1450,
}


class PeerHost:
    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count(1)
        ranges = [[{"subnet": "10.88.0.0/16"}]]
        ipam = {"type": "host-local", "ranges": ranges, "dataDir": str(folder / "addresses")}
        self._config = json.dumps({**CONFIG, "ipam": ipam}).encode()
        self._made: list[Path] = []
        self._link = rtnl.connect()
        subprocess.run(["ip", "link", "add", BRIDGE, "up", "type", "bridge"], check=True)

    def cni(self) -> float:
        path, name = self._space()
        words = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_NETNS": str(path), "CNI_IFNAME": "eth0"}
        environment = {**os.environ, **words, "CNI_PATH": PLUGINS}
        began = time.perf_counter()
        netns.make(path)
        subprocess.run(
            [f"{PLUGINS}/bridge"], input=self._config, env=environment, check=True, capture_output=True
        )
        return time.perf_counter() - began

    def bare(self) -> float:
        path, name = self._space()
        began = time.perf_counter()
        netns.make(path)
        handle = os.open(path, os.O_RDONLY)
        master, mac = socket.if_nametoindex(BRIDGE), "02:00:00:00:00:01"
        pair = rtnl.veth(name, 1450, master, peer="eth0", mac=mac, namespace=handle)
        rtnl.check(rtnl.transact(self._link, [pair]))
        os.close(handle)
        netns.inside(path, lambda: _stand(f"10.89.{len(self._made) >> 8}.{len(self._made) & 255}/32"))
        return time.perf_counter() - began

    def close(self) -> None:
        for path in self._made:
            netns.drop(path)

    def _space(self) -> tuple[Path, str]:
        name = f"bench{next(self._numbers)}"
        self._made.append(self._folder / name)
        return self._made[-1], name


def _stand(address: str) -> None:
    index = socket.if_nametoindex("eth0")
    ways = [rtnl.route("10.89.0.1/32", index, ""), rtnl.route("0.0.0.0/0", index, "10.89.0.1")]
    with rtnl.connect() as link:
        rtnl.check(rtnl.transact(link, [rtnl.address(index, address), rtnl.link_up(index), *ways]))


def main() -> None:
    host = PeerHost(Path(sys.argv[1]))
    try:
        print("ready", flush=True)
        for line in sys.stdin:
            print(host.cni() if line.strip() == "cni" else host.bare(), flush=True)
    finally:
        host.close()


if __name__ == "__main__":
    main()
