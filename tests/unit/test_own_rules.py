"""What may be made on a host's own socket, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agent import ownrules
from agent.ownrules import Here
from agent.wanted import Own
from model.api import CreateInstance
from model.errors import (
    AlreadyExists,
    FlotaError,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
    WrongState,
)
from model.ids import HostId, InstanceId, NetworkId
from model.records import Desired, Instance
from model.spec import Attachment, ContainerSpec, Placement
from model.view import NetworkView, View
from net.host import PREDEFINED_BRIDGE, predefined_bridge

HERE = Here(id=HostId("a" * 64), name="n1")
IDENT = InstanceId("c" * 64)
BRIDGE = NetworkView(
    id=NetworkId(PREDEFINED_BRIDGE), spec=predefined_bridge("10.9.0.0/24"), vni=0, blocks=("10.9.0.0/24",)
)


def _fleets(name: str = "web", number: int = 1, service: str = "") -> Instance:
    ident = InstanceId(f"{number:064x}")
    return Instance(id=ident, name=name, spec=ContainerSpec(image="app:1"), service_name=service)


def _view(*instances: Instance) -> View:
    return View(instances={i.id: i for i in instances}, networks={BRIDGE.id: BRIDGE})


def _made(view: View | None = None, own: Own | None = None, **words: Any) -> Instance:
    networks = tuple(Attachment(network=name) for name in words.pop("networks", ()))
    spec = words.pop("spec", None) or ContainerSpec(image="app:1", networks=networks)
    request = CreateInstance(spec=spec, **words)
    return ownrules.created(view or _view(), own or {}, request, HERE, now=7.0, ident=IDENT)


def test_own_container_is_this_hosts_on_the_bridge_and_waits_for_its_start() -> None:
    made = _made(name="box")
    assert (made.id, made.name, made.host, made.created_at, made.revision) == (IDENT, "box", HERE.id, 7.0, 1)
    assert made.desired is Desired.CREATED and made.pinned
    assert [attachment.network for attachment in made.attachments] == [PREDEFINED_BRIDGE]


def test_own_container_without_a_name_gets_one_that_nobody_here_has() -> None:
    first = _made()
    assert _made(_view(_fleets(first.name))).name not in ("", first.name)


@pytest.mark.parametrize("mode", ["host", "none"])
def test_own_container_in_a_mode_needs_no_network(mode: str) -> None:
    assert _made(View(), networks=(mode,)).attachments == ()


def test_own_container_that_shares_a_network_names_the_other_by_its_id() -> None:
    other = _fleets("web")
    made = _made(_view(other), networks=("container:web",))
    assert made.spec.networks[0].network == f"container:{other.id}"


@pytest.mark.parametrize(
    "words, error, said",
    [
        ({"name": "web"}, AlreadyExists, "which the fleet made"),
        ({"name": "a b"}, InvalidInput, "invalid container"),
        ({"host": "n2"}, InvalidInput, "this is the socket of host n1"),
        ({"placement": Placement(constraints=("node.id==x",))}, InvalidInput, "constraints choose among"),
        ({"networks": ("blue",)}, Unsupported, "network blue"),
        ({"networks": ("host", "bridge")}, InvalidInput, "host"),
        ({"networks": ("container:nobody",)}, NotFound, "nobody"),
        (
            {"spec": ContainerSpec(image="a", networks=(Attachment(network="bridge", aliases=("x",)),))},
            InvalidInput,
            "has no names",
        ),
        (
            {"spec": ContainerSpec(image="a", networks=(Attachment(network="bridge", ipv4="10.8.0.9"),))},
            FlotaError,
            "10.8.0.9",
        ),
    ],
)
def test_own_container_that_cannot_be_is_refused_with_why(
    words: dict[str, Any], error: type[FlotaError], said: str
) -> None:
    with pytest.raises(error, match=said):
        _made(_view(_fleets("web")), **words)


def test_own_container_on_the_bridge_of_a_host_that_heard_nothing_is_refused_with_the_way_out() -> None:
    with pytest.raises(Unavailable, match="--network host or none"):
        _made(View())


def test_own_name_that_an_own_container_has_is_taken() -> None:
    box = _made(name="box")
    with pytest.raises(AlreadyExists, match=r"in use by container cccccccccccc\Z"):
        ownrules.check_free(_view(), {box.id: box}, "box")


def test_change_of_a_fleets_container_is_refused_with_whose_it_is() -> None:
    view = _view(_fleets("web"), _fleets("api.1", 2, service="api"))
    with pytest.raises(WrongState, match="can't stop web here: it belongs to the fleet"):
        ownrules.mine(view, {}, "web", "stop")
    with pytest.raises(WrongState, match="it belongs to service api"):
        ownrules.mine(view, {}, "api.1", "stop")


def test_revision_rises_with_what_is_another_and_only_then() -> None:
    box = _made(name="box")
    assert ownrules.revised(box, box) is box
    assert ownrules.revised(box, replace(box, name="crate")).revision == 2
