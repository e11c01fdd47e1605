"""One host among many in the namespace that this program is in; told line by line, it prints seconds and the
number of changes that the kernel was asked for.

`sync COUNT` from no peers to so many, `change` gives one of them another address, and back the next time,
`look` compares everything. What the host looks through behind a change (the kernel rings for our own too) is
over before the clock starts.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkPeer, NetworkView, Peer
from net.host import NetworkPlan
from net.reconciler import NetReconciler

HERE, NETWORK = HostId("f" * 64), NetworkId("a" * 64)
OWN = "198.19.255.1"
REST = 0.5


def peers_of(count: int) -> list[tuple[Peer, str]]:
    """Each with a block of four addresses."""
    return [
        (
            Peer(host=HostId(f"{n:064x}"), name=f"h{n}", address=f"198.18.{n // 250}.{n % 250 + 1}"),
            f"10.64.{n // 64}.{n % 64 * 4}/30",
        )
        for n in range(1, count + 1)
    ]


def plan_of(count: int, moved: str = "") -> NetworkPlan:
    """`moved`: another address of the seventh peer."""
    found = peers_of(count)
    if moved:
        found[6] = (replace(found[6][0], address=moved), found[6][1])
    view = NetworkView(
        id=NETWORK,
        spec=NetworkSpec(name="app", subnets=(Subnet(cidr="10.64.0.0/16"),)),
        vni=4242,
        blocks=("10.64.255.0/24",),
        peers=tuple(NetworkPeer(host=peer.host, blocks=(block,)) for peer, block in found),
    )
    return NetworkPlan(
        host=HERE,
        address=OWN,
        mtu=1500,
        vxlan_port=4789,
        networks={NETWORK: view},
        peers={peer.host: peer for peer, _ in found},
    )


async def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        network = NetReconciler(Path(folder))
        await network.start()
        count, turn = 0, 0
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            verb, *words = line.split()
            if verb == "sync":
                count = int(words[0])
                await network.apply(plan_of(0))
            turn += verb == "change"
            wanted = plan_of(count, "198.19.0.9" if verb == "change" and turn % 2 else "")
            await asyncio.sleep(REST)
            gc.collect()
            before, began = network.mutations, time.perf_counter()
            if verb == "look":
                await network.examine()
            else:
                await network.apply(wanted)
            print(time.perf_counter() - began, network.mutations - before, flush=True)
        await network.remove_all()
        await network.close()


if __name__ == "__main__":
    asyncio.run(main())
