"""A bridged network's tunnel: what it learned of a peer goes with the peer's address."""

from __future__ import annotations

import subprocess

import pytest

from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkPeer, NetworkView, Peer
from net.diff import diff
from net.host import NetworkPlan
from net.kernel.linux import LinuxKernel
from net.naming import vxlan_name
from net.plan import desired
from tests.support.ownnetns import own_network_namespace

pytestmark = pytest.mark.kernel
NETWORK = NetworkId("a" * 64)
MOVES, STAYS = HostId("2" * 64), HostId("3" * 64)


def plan(moving: str) -> NetworkPlan:
    spec = NetworkSpec(
        name="n", driver="overlay", subnets=(Subnet(cidr="10.1.0.0/16"),), options={"mode": "bridged"}
    )
    peers = {
        MOVES: Peer(host=MOVES, name="h2", address=moving),
        STAYS: Peer(host=STAYS, name="h3", address="198.18.7.13"),
    }
    on = tuple(NetworkPeer(host=h, blocks=(f"10.1.{i}.0/24",)) for i, h in enumerate(peers, start=2))
    view = NetworkView(id=NETWORK, spec=spec, vni=4096, blocks=("10.1.1.0/24",), peers=on)
    return NetworkPlan(
        host=HostId("1" * 64),
        address="198.18.7.11",
        mtu=1500,
        vxlan_port=4789,
        networks={NETWORK: view},
        peers=peers,
    )


def learn(mac: str, remote: str) -> None:
    words = ["bridge", "fdb", "append", mac, "dev", vxlan_name(NETWORK), "dst", remote, "dynamic"]
    subprocess.run(words, check=True)


def learned() -> set[str]:
    text = subprocess.run(
        ["bridge", "fdb", "show", "dev", vxlan_name(NETWORK)], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[0] for line in text.splitlines() if "dst" in line and "permanent" not in line}


async def test_tunnel_forgets_what_it_learned_of_an_address_that_a_peer_left() -> None:
    with own_network_namespace():
        kernel = LinuxKernel()
        await kernel.start(lambda: None)
        try:
            want = desired(plan("198.18.7.12"), ())
            await kernel.apply(diff(want, await kernel.observe(want.sysctls)))
            learn("02:00:00:00:00:12", "198.18.7.12")
            learn("02:00:00:00:00:13", "198.18.7.13")
            assert learned() == {"02:00:00:00:00:12", "02:00:00:00:00:13"}
            moved = desired(plan("198.18.7.77"), ())
            await kernel.apply(diff(moved, await kernel.observe(moved.sysctls)))
            assert learned() == {"02:00:00:00:00:13"}
            assert diff(moved, await kernel.observe(moved.sysctls)) == ()
        finally:
            await kernel.close()
