"""The network of RUN: a container's, of this host's own addresses, and gone with the build."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent import plans
from model.errors import NotFound
from model.ids import NetworkId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkView
from net.reconciler import NetReconciler
from tests.support.buildlab import HOST, BuildLab, SaidSession, build_lab, run_step
from tests.support.nethosts import ip
from tests.support.ownnetns import own_network_namespace

pytestmark = pytest.mark.kernel
OUTSIDE = "198.18.9.1"


@pytest.fixture
async def networked(tmp_path: Path) -> AsyncIterator[BuildLab]:
    """A host of its own, with an address beyond its containers' bridge."""
    with own_network_namespace():
        ip(lines=("link add out0 type bridge", "link set out0 up", f"address add {OUTSIDE}/24 dev out0"))
        network = NetReconciler(tmp_path / "run")
        (tmp_path / "run").mkdir()
        await network.start()
        async with build_lab(tmp_path, network) as lab:
            context = lab.context
            await network.apply(plans.network_plan(context.view, HOST, context.facts))
            yield lab
            assert lab.left() == []
        await network.remove_all()
        await network.close()


async def test_step_reaches_the_outside_as_a_container_does(networked: BuildLab) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(answer, OUTSIDE, 8080)
    async with server:
        script = (
            f"nc {OUTSIDE} 8080; ip -4 -o address show eth0 | grep -o '10[.]9[.][0-9.]*'; tail -1 /etc/hosts"
        )
        code, said = await networked.run(script, network="default")
    assert code == 0
    greeting, address, own = said.out.decode().splitlines()
    assert greeting == "hello"
    assert own == f"{address}\tbuild"


async def test_steps_one_after_the_other_have_the_same_namespace(networked: BuildLab) -> None:
    session = SaidSession()
    async with networked.runner("security.insecure") as runner:
        with networked.files() as files:
            for insecure in (False, True, False):
                step = run_step("readlink /proc/self/ns/net", network="default", insecure=insecure)
                assert await runner.run(files.root, step, (), session, 1) == 0
            held = set(networked.context.addresses.held().values())
            assert len(held) == 1 and held <= networked.context.builders.keys()
    first, second, third = session.out.split()
    assert first == second != third
    assert networked.context.builders == {}


async def test_steps_at_the_same_time_have_their_own(networked: BuildLab) -> None:
    sessions = [SaidSession(), SaidSession()]
    async with networked.runner() as runner:
        with networked.files() as one, networked.files() as two:
            step = run_step("readlink /proc/self/ns/net; sleep 0.5", network="default")
            async with asyncio.TaskGroup() as group:
                for files, session in zip((one, two), sessions, strict=True):
                    group.create_task(runner.run(files.root, step, (), session, 1))
    assert len({session.out for session in sessions}) == 2


async def test_step_without_network_has_its_loopback_alone(networked: BuildLab) -> None:
    code, said = await networked.run("ip -o link | cut -d: -f2", network="none")
    assert (code, said.out) == (0, b" lo\n")


async def test_network_that_is_not_here_is_refused_before_anything_runs(networked: BuildLab) -> None:
    with pytest.raises(NotFound, match="network 'backend' is not on this host"):
        await networked.run("true", network="backend")


async def test_network_of_the_fleet_gives_an_address_of_the_hosts_block(networked: BuildLab) -> None:
    context = networked.context
    spec = NetworkSpec(name="backend", driver="bridge", subnets=(Subnet(cidr="10.77.0.0/16"),))
    backend = NetworkView(id=NetworkId("be" * 32), spec=spec, vni=0, blocks=("10.77.3.0/24",))
    context.view = replace(context.view, networks={**context.view.networks, backend.id: backend})
    await context.network.apply(plans.network_plan(context.view, HOST, context.facts))
    script = "ip -4 -o address show eth0 | grep -o '10[.]77[.]3[.][0-9]*' | head -1; cat /etc/resolv.conf"
    for name in ("backend", backend.id[:12]):
        code, said = await networked.run(script, network=name)
        address, resolver, *_ = said.out.decode().splitlines()
        assert code == 0 and address.startswith("10.77.3.")
        assert resolver == "nameserver 10.77.0.1"  # the host's own, which knows the fleet's names


async def test_cancelled_while_it_waits_for_its_network_leaves_nothing(networked: BuildLab) -> None:
    for turns in range(0, 40, 4):
        async with networked.runner() as runner, asyncio.TaskGroup() as group:
            with networked.files() as files:
                step = run_step("true", network="default")
                task = group.create_task(runner.run(files.root, step, (), SaidSession(), 1))
                for _ in range(turns):
                    await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait((task,))
        assert networked.left() == []
