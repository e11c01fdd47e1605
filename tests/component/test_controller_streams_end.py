"""Streams and certificates of hosts that are lost, removed or joined again."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from agent.join import signing_request
from aio.clock import VirtualClock
from api.channels import Dropped
from controller.pki import fingerprint
from controller.plan import Plan, put
from controller.snapshot import Cluster
from controller.store.base import ChangeLog, Txn
from controller.store.memory import MemoryStore
from model.api import CreateInstance
from model.errors import Forbidden
from model.ids import HostId
from model.renewal import RenewRequest
from model.spec import ContainerSpec
from model.status import HostState, Phase
from tests.component.test_controller_liveness import state
from tests.support.agents import FakeAgent, MemoryChannel, make_host
from tests.support.fleet import Fleet, fleet
from tests.support.pipes import Offered


async def in_use(f: Fleet, name: str, certificate: str = "") -> tuple[Offered, asyncio.Task[bytes]]:
    """A connection that the host offered, and somebody who reads from it."""
    host = f.controller.locate_host(name)
    made = Offered()
    f._spawn(f.controller.accept_pipe(host, certificate, made))
    await asyncio.sleep(0)
    assert await f.controller.open_pipe(host) is made
    reading = asyncio.create_task(made.reader.read())
    await asyncio.sleep(0)
    return made, reading


async def test_streams_of_a_host_end_once_it_is_lost_and_not_before() -> None:
    clock = VirtualClock()
    async with fleet(*(make_host(n) for n in (1, 2, 3)), clock=clock) as f:
        await clock.advance(1)
        pipe, reading = await in_use(f, "host3")
        elsewhere, other = await in_use(f, "host2")
        f.agents[f.controller.locate_host("host3")].channel.sever()
        await clock.advance(2.2)
        assert state(f, 3) is HostState.UNKNOWN and not reading.done()
        await clock.advance(2.8)
        assert state(f, 3) is HostState.LOST
        with pytest.raises(Dropped, match="host host3 was lost"):
            await asyncio.wait_for(reading, 5)
        assert pipe.writer.is_closing() and not other.done()
        elsewhere.transport.close()
        assert await other == b""


async def test_streams_of_a_host_whose_agent_comes_back_go_on() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), make_host(2), clock=clock) as f:
        await clock.advance(1)
        pipe, reading = await in_use(f, "host2")
        host = f.controller.locate_host("host2")
        f.disconnect(host)
        await clock.advance(2.0)
        assert state(f, 2) is HostState.UNKNOWN
        await f.connect(host)
        await clock.advance(5.0)
        await f.connect(host)
        await clock.advance(5.0)
        assert state(f, 2) is HostState.READY
        assert not reading.done() and not pipe.writer.is_closing()
        pipe.transport.close()
        assert await reading == b""


async def test_streams_of_a_removed_host_end_in_words() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), clock=clock) as f:
        await clock.advance(1)
        _, reading = await in_use(f, "host1")
        await f.controller.remove_host("host1", force=True)
        with pytest.raises(Dropped, match="host host1 was removed from the fleet"):
            await asyncio.wait_for(reading, 5)


async def joined_again(f: Fleet, host: HostId, certificate: str) -> None:
    def decide(cluster: Cluster) -> Plan:
        return Plan(items=(put(replace(cluster.hosts[host], certificate=certificate), "it joined again"),))

    await f.controller.committer.run(decide)


async def test_older_certificate_of_a_host_that_joined_again_opens_nothing() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), clock=clock) as f:
        await clock.advance(1)
        [(host, older)] = f.agents.items()
        _, reading = await in_use(f, "host1")
        await joined_again(f, host, "newest")
        with pytest.raises(Dropped, match="host host1 joined again"):
            await asyncio.wait_for(reading, 5)
        await clock.advance(0.5)
        assert older.goodbye is not None
        offered = Offered()
        with pytest.raises(Forbidden, match="joined again or renewed its certificate since this one"):
            await f.controller.accept_pipe(host, "older", offered)
        offered.transport.close()
        thief = await f.connect(host, "older")
        await clock.advance(0.5)
        assert thief.goodbye is not None and not thief.goodbye.retry
        own = await f.connect(host, "newest")
        await clock.advance(0.5)
        assert own.welcomed.is_set() and own.goodbye is None
        again = await f.connect(host, "older")
        await clock.advance(0.5)
        assert again.goodbye is not None and own.goodbye is None, "it ends no session of the host's own"
        f.agents[host] = own


async def test_renewal_ends_no_session_and_no_call_and_then_the_older_certificate_opens_nothing() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), clock=clock, connect=False) as f:
        [host] = f.hosts
        await joined_again(f, host, "older")
        older = await f.connect(host, "older")
        await clock.advance(1)
        pipe, reading = await in_use(f, "host1", "older")
        idle = Offered()
        f._spawn(f.controller.accept_pipe(host, "older", idle))
        key = ec.generate_private_key(ec.SECP256R1())
        request = RenewRequest(csr=signing_request(key, "host1"))
        reply = await f.controller.renew(host, "older", request)
        made = fingerprint(reply.certificate.encode())
        await clock.advance(1)
        assert older.goodbye is None and f.controller.sessions.connected(host)
        assert not idle.transport.is_closing()
        older_again = await f.connect(host, "older")  # its agent started anew, and never saw the reply
        await clock.advance(1)
        assert older_again.welcomed.is_set() and f.controller.snapshot().hosts[host].certificate == "older"
        new = await f.connect(host, made)
        await clock.advance(1)
        assert new.welcomed.is_set() and new.goodbye is None
        record = f.controller.snapshot().hosts[host]
        assert (record.certificate, record.renewal) == (made, "")
        assert idle.transport.is_closing() and not reading.done(), "calls under way go on"
        late = Offered()
        for call in (
            f.controller.renew(host, "older", request),
            f.controller.accept_pipe(host, "older", late),
        ):
            with pytest.raises(Forbidden, match="renewed its certificate since this one"):
                await call
        late.transport.close()
        thief = await f.connect(host, "older")
        await clock.advance(1)
        assert thief.goodbye is not None and not thief.goodbye.retry and new.goodbye is None
        f.agents[host] = new
        pipe.transport.close()
        await reading


async def test_older_certificate_that_came_in_before_the_host_joined_again_opens_nothing() -> None:
    clock = VirtualClock()
    async with fleet(make_host(1), clock=clock, connect=False) as f:
        [(host, facts)] = f.hosts.items()
        await joined_again(f, host, "older")
        near, far = MemoryChannel.pair()
        f._spawn(f.controller.serve_session(host, "older", far))
        await clock.advance(0.5)
        await joined_again(f, host, "newest")
        await clock.advance(0.5)
        thief = FakeAgent(facts, near)
        f._spawn(thief.run())
        await clock.advance(0.5)
        assert thief.goodbye is not None and not thief.goodbye.retry
        assert "joined again or renewed its certificate since this one" in thief.goodbye.reason
        assert not thief.welcomed.is_set() and not f.controller.sessions.connected(host)


class Forgetful(MemoryStore):
    """Whoever watches it misses all but the last of several commits."""

    def __init__(self) -> None:
        super().__init__()
        self._log = ChangeLog(0, limit=1)

    async def write(self, f: Fleet, *txns: Txn) -> None:
        for txn in txns:
            assert isinstance(await self.commit(replace(txn, epoch=f.controller.committer._epoch)), int)


async def test_hosts_that_left_or_joined_again_unseen_keep_no_connection() -> None:
    clock, store = VirtualClock(), Forgetful()
    async with fleet(make_host(1), make_host(2), make_host(3), clock=clock, store=store) as f:
        await clock.advance(1)
        left, again, stays = [await in_use(f, f"host{number}") for number in (1, 2, 3)]
        one, two, three = (f.controller.get_host(f"host{number}").host for number in (1, 2, 3))
        newest = replace(two, certificate="newest")
        await store.write(f, Txn(deletes=(one,)), Txn(puts=(newest,)), Txn(puts=(three,)))
        await clock.advance(0.5)
        for (_, reading), words in ((left, "was removed from the fleet"), (again, "joined again")):
            with pytest.raises(Dropped, match=words):
                await asyncio.wait_for(reading, 5)
        said = {host: agent.goodbye.reason if agent.goodbye else "" for host, agent in f.agents.items()}
        assert said[one.id] == "this host was removed from the fleet"
        assert (said[two.id], said[three.id]) == ("this host joined again", "")
        assert f.controller.sessions.hosts() == [three.id] and not stays[1].done()
        stays[0].transport.close()


async def test_removal_that_was_not_seen_ends_the_wait_for_it() -> None:
    clock, store = VirtualClock(), Forgetful()
    async with fleet(make_host(1), clock=clock, store=store) as f:
        await f.controller.create_instance(
            CreateInstance(spec=ContainerSpec(image="x"), name="a", start=True)
        )
        await asyncio.wait_for(f.controller.wait_instance("a", "running"), 5)
        record = f.controller.snapshot().instances[f.controller.get_instance("a").instance.id]
        waits = asyncio.create_task(f.controller.wait_instance("a", "removed"))
        await clock.advance(0.5)
        [host] = f.controller.snapshot().hosts.values()
        await store.write(f, Txn(deletes=(record,)), Txn(puts=(host,)))
        await clock.advance(0.5)
        assert (await asyncio.wait_for(waits, 5)).phase is Phase.REMOVED
        assert record.id not in f.controller.statuses.by_id
