"""Every network driver keeps to the contract that a third party's is asked for; the documented one too."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.plans import network_plan, without_driver
from controller.commands.networks import create
from controller.snapshot import Cluster
from model.errors import InvalidInput
from model.ids import HostId, InstanceId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.status import HostFacts
from model.view import NetworkView, View
from net import backend
from net.backend import BACKENDS
from net.backend.base import Features
from net.backend.contract import violations
from net.drivers import load
from net.host import EndpointRequest
from net.kernel.fake import FakeKernel
from net.naming import bridge_name
from net.reconciler import NetReconciler
from net.state import Link, NetState

DOCS = Path(__file__).resolve().parents[2] / "docs" / "drivers.md"
NETWORK = NetworkId("b" * 64)
OPTIONS = {"router": "198.18.0.1", "router6": "fe80::1"}


def example() -> str:
    """The code of the documented driver."""
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[0]


def documented() -> Any:
    found: dict[str, Any] = {}
    exec(example(), found)
    return found["SiteRouter"]()


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """An installed distribution with the documented driver, as `pip` leaves one; and the table as it was."""
    (tmp_path / "acme_networks.py").write_text(example())
    about = tmp_path / "acme_networks-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-networks\nVersion: 1.0\n")
    lines = (
        "site-router = acme_networks:SiteRouter",
        "broken = acme_networks:Nothing",
        "odd = builtins:object",
    )
    (about / "entry_points.txt").write_text("[flota.backends]\n" + "\n".join(lines) + "\n")
    before = dict(BACKENDS)
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    sys.modules.pop("acme_networks", None)
    backend._TABLE.clear()
    backend._TABLE.update(before)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("overlay", {}),
        ("overlay", {"mode": "bridged"}),
        ("overlay", {"direct": "on"}),
        ("host-gw", {}),
        ("bridge", {}),
    ],
)
def test_driver_of_flota_keeps_to_the_contract(name: str, options: dict[str, str]) -> None:
    assert violations(BACKENDS[name], options) == []


def test_documented_driver_keeps_to_the_contract() -> None:
    assert violations(documented(), OPTIONS) == []


class Careless:
    """What a driver may get wrong."""

    features = Features()

    def __init__(self) -> None:
        self._good, self._asked = documented(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._good, name)

    def fragment(self, view: NetworkView, scene: Any) -> NetState:
        good: NetState = self._good.fragment(view, scene)
        self._asked += 1
        stray = Link(name=f"br{len(view.peers)}", kind="bridge", alias="", mtu=self._asked)
        return msgspec.structs.replace(good, links={**good.links, stray.name: stray})


def test_driver_that_breaks_the_contract_is_told_how() -> None:
    told = " | ".join(violations(Careless(), OPTIONS))
    for words in ("two answers", "not named as ours", "no alias of ours", "a peer that goes changes links"):
        assert words in told


async def test_driver_of_a_package_is_loaded_by_name_and_carries_networks(
    package: Path, tmp_path: Path
) -> None:
    spec = NetworkSpec(name="site", driver="site-router", subnets=(Subnet(cidr="10.9.0.0/16"),))
    view = View(networks={NETWORK: NetworkView(id=NETWORK, spec=spec, vni=5, blocks=("10.9.1.0/24",))})
    facts = HostFacts(hostname="h", address="198.18.0.11", link="eth0", onlink=("198.18.0.0/24",))
    host = HostId("1" * 64)
    assert network_plan(view, host, facts).networks == {} and "--network-driver" in without_driver(view)[0]
    with pytest.raises(InvalidInput, match="unknown network driver"):
        create(Cluster(), spec, now=1.0, ident=NETWORK)
    backend.add(load(["site-router"]))
    assert without_driver(view) == ()
    create(Cluster(), msgspec.structs.replace(spec, options=OPTIONS), now=1.0, ident=NETWORK)
    with pytest.raises(InvalidInput, match="unknown option 'gate'"):
        create(Cluster(), msgspec.structs.replace(spec, options={"gate": "x"}), now=1.0, ident=NETWORK)
    kernel = FakeKernel()
    network = NetReconciler(tmp_path / "run", kernel=kernel)
    (tmp_path / "run").mkdir()
    await network.start()
    await network.apply(network_plan(view, host, facts))
    instance = InstanceId("7" * 64)
    await network.open_namespace(instance)
    await network.attach(EndpointRequest(instance=instance, network=NETWORK, ifname="eth0", ipv4="10.9.1.9"))
    assert bridge_name(NETWORK) in kernel.state.links and len(kernel.state.links) == 2
    await network.drop_namespace(instance)
    await network.close()


def test_only_what_is_named_is_loaded_and_only_what_is_a_driver(package: Path) -> None:
    assert load([]) == {} and "acme_networks" not in sys.modules
    for name, says in (
        ("absent", "no package has it"),
        ("broken", "can't be loaded"),
        ("odd", "has no validate"),
    ):
        with pytest.raises(InvalidInput, match=says):
            load([name])


def test_names_of_drivers_are_not_taken_over() -> None:
    for name, says in (("overlay", "already"), ("../x", "a name has")):
        with pytest.raises(InvalidInput, match=says):
            backend.add({name: documented()})
    assert "../x" not in BACKENDS
