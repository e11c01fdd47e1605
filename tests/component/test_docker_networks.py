"""Networks by the stock docker command, against a real controller with hosts in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model.api import CreateInstance
from model.spec import Attachment, ContainerSpec, NetworkSpec
from tests.support.dockerfleet import DockerFleet, docker_fleet

BOX = ContainerSpec(image="busybox")


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[DockerFleet]:
    async with docker_fleet(tmp_path) as made:
        yield made


async def running(docker: DockerFleet, name: str, *networks: str) -> str:
    spec = ContainerSpec(image="busybox", networks=tuple(Attachment(network=n) for n in networks))
    info = await docker.controller.create_instance(CreateInstance(spec=spec, name=name, start=True))
    await docker.controller.wait_instance(name, "running")
    ident: str = info.instance.id
    return ident


async def test_network_made_by_docker_is_a_bridge_to_it_and_spans_the_fleet(docker: DockerFleet) -> None:
    ident = await docker(
        "network", "create", "--label", "a=b", "--subnet", "10.90.0.0/24", "--ip-range", "10.90.0.128/25",
        "--gateway", "10.90.0.1", "--aux-address", "printer=10.90.0.5", "--opt",
        "com.docker.network.driver.mtu=1400", "front",
    )  # fmt: skip
    spec = docker.controller.get_network("front").network.spec
    assert (spec.driver, spec.options) == ("overlay", {"mtu": "1400"})
    seen = await docker.inspect("network", "front")
    assert seen["Id"] == ident and seen["Driver"] == "bridge" and seen["Scope"] == "local"
    assert seen["Labels"] == {"a": "b"} and seen["Options"] == {"mtu": "1400"}
    pool = {
        "Subnet": "10.90.0.0/24",
        "IPRange": "10.90.0.128/25",
        "Gateway": "10.90.0.1",
        "AuxiliaryAddresses": {"printer": "10.90.0.5"},
    }
    assert seen["IPAM"] == {"Driver": "default", "Options": None, "Config": [pool]}
    lines = await docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
    assert lines.splitlines() == [
        "bridge bridge local", "front bridge local", "host host local", "none null local"
    ]  # fmt: skip


async def test_networks_are_found_by_every_filter_of_docker(docker: DockerFleet) -> None:
    await docker("network", "create", "--label", "tier=web", "front")
    await docker("network", "create", "-d", "overlay", "--internal", "--attachable", "back")
    await running(docker, "one", "front")
    wanted = {
        "name=ront": "front",
        "driver=overlay": "back",
        "scope=swarm": "back",
        "label=tier": "front",
        "label=tier=web": "front",
        "type=builtin": "bridge host none",
        "dangling=true": "back",
    }
    for wish, names in wanted.items():
        found = await docker("network", "ls", "-f", wish, "--format", "{{.Name}}")
        assert found.split() == names.split(), wish
    assert "invalid filter 'colour'" in await docker.refusal("network", "ls", "-f", "colour=red")
    back = await docker.inspect("network", "back")
    assert back["Internal"] and back["Attachable"] and back["Driver"] == "overlay"


async def test_container_is_put_on_a_network_and_taken_off_it(docker: DockerFleet) -> None:
    await docker("network", "create", "front")
    ident = await running(docker, "web")
    await docker("network", "connect", "--alias", "www", "front", "web")
    seen = await docker.inspect("network", "front")
    assert list(seen["Containers"]) == [ident]
    foot = seen["Containers"][ident]
    assert foot["Name"] == "web" and foot["IPv4Address"].endswith("/16")
    attached = docker.controller.get_instance("web").instance.attachments
    assert attached[-1].aliases == ("www",)
    again = await docker.refusal("network", "connect", "front", "web")
    assert "endpoint with name web already exists in network front" in again
    await docker("network", "disconnect", "front", "web")
    assert (await docker.inspect("network", "front"))["Containers"] == {}
    gone = await docker.refusal("network", "disconnect", "front", "web")
    assert f"container {ident} is not connected to network front" in gone
    assert "No such container: nobody" in await docker.refusal("network", "connect", "front", "nobody")


async def test_networks_in_use_and_predefined_ones_stay(docker: DockerFleet) -> None:
    await docker("network", "create", "used")
    await docker("network", "create", "--label", "keep=1", "kept")
    await docker("network", "create", "loose")
    await running(docker, "web", "used")
    assert "has active endpoints" in await docker.refusal("network", "rm", "used")
    for name in ("bridge", "host", "none"):
        words = f"{name} is a pre-defined network and cannot be removed"
        assert words in await docker.refusal("network", "rm", name)
    gone = await docker("network", "prune", "-f", "--filter", "label!=keep")
    assert gone.split() == ["Deleted", "Networks:", "loose"]
    names = await docker("network", "ls", "-q", "-f", "type=custom", "--format", "{{.Name}}")
    assert names.split() == ["kept", "used"]
    await docker("network", "rm", "kept")


async def test_mistakes_with_networks_are_told_in_dockers_words(docker: DockerFleet) -> None:
    await docker("network", "create", "front")
    cases = {
        ("network", "create", "front"): "network with name front already exists",
        ("network", "create", "-d", "host", "x"): 'only one instance of "host" network is allowed',
        ("network", "create", "bridge"): "operation is not permitted on predefined bridge network",
        ("network", "create", "-d", "nothing", "x"): "unknown network driver 'nothing'",
        ("network", "create", "--ipam-driver", "x", "y"): "IPAM.Driver: 'x' is not supported",
        ("network", "create", "--ipam-opt", "a=b", "y"): "IPAM.Options: is not supported",
        ("network", "create", "--ingress", "y"): "Ingress: is not supported",
        ("network", "create", "-o", "colour=red", "y"): "colour: unknown option",
        ("network", "rm", "nobody"): "No such network: nobody",
        ("network", "inspect", "nobody"): "No such network: nobody",
    }
    for words, told in cases.items():
        assert told in await docker.refusal(*words), words
    status, reply = await docker.call("POST", "/v1.41/networks/create", {"Driver": "bridge"})
    assert (status, reply["message"]) == (400, "network name is required (field Name)")
    status, reply = await docker.call("GET", "/v1.41/networks/nobody")
    assert (status, reply) == (404, {"message": "network nobody not found"})


async def test_network_of_flotas_own_command_is_shown_as_it_is(docker: DockerFleet) -> None:
    await docker.controller.create_network(NetworkSpec(name="own", driver="bridge", labels={"a": "b"}))
    seen = await docker.inspect("network", "own")
    assert (seen["Driver"], seen["Scope"], seen["Labels"]) == ("bridge", "local", {"a": "b"})
    hidden = {"Name": "x", "Labels": {"flota.docker.driver": "host"}}
    status, reply = await docker.call("POST", "/networks/create", hidden)
    assert status == 400 and "one of flota's own" in reply["message"]
