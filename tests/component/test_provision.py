"""Provisioning of hosts in memory: order, cuts at every call, what is told of failures, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from deploy.inventory import HostWish, Target
from deploy.provision import Outcome, Provisioner
from deploy.transport import Finished, Transport
from model.errors import CommandFailed
from tests.support.fakehosts import RELEASE, FakeConnections, FakeFleet, FakeHost, FakeSource


def wish(name: str, *, controller: bool = False) -> HostWish:
    return HostWish(target=Target(host=name, user="root"), controller=controller)


class Told:
    """What a run reported."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def __call__(self, host: str, state: str, text: str) -> None:
        self.lines.append((host, state, text))


async def no_founding(controller: Transport) -> None:
    raise AssertionError(controller)


async def add(
    *hosts: FakeHost, wishes: Sequence[HostWish] = (), dry: bool = False, told: Told | None = None
) -> list[Outcome]:
    run = Provisioner(FakeConnections(*hosts), FakeSource(), told or Told(), dry=dry)
    asked = wishes or [wish(host.name) for host in hosts]
    return await run.add(asked, hosts[0].fleet, no_founding)


def state(host: FakeHost) -> tuple[object, ...]:
    return host.installed, host.current, host.incoming, host.member, host.running, host.fleet.nodes


async def test_a_bare_host_is_added_step_by_step_and_is_a_member_then() -> None:
    host, told = FakeHost("web", FakeFleet()), Told()
    (outcome,) = await add(host, told=told)
    assert outcome.result == "added" and outcome.name == "web" and outcome.host_id == host.ident
    assert host.installed == {"runc", RELEASE} and host.member and host.closed == 1
    steps = [text for _, kind, text in told.lines if kind == "working"]
    assert [text.split()[0] for text in steps] == ["install", "install", "join", "wait"]
    (again,) = await add(host)
    assert again.result == "already" and again.plan.steps == ()


async def test_a_dry_run_changes_nothing_and_tells_the_steps() -> None:
    host = FakeHost("web", FakeFleet())
    (outcome,) = await add(host, dry=True)
    assert outcome.result == "planned" and len(outcome.plan.steps) == 4
    assert len(host.calls) == 1 and host.installed == set() and host.fleet.made == 0


async def test_a_run_that_is_cut_at_any_call_is_continued_by_the_next_to_the_same_end() -> None:
    whole = FakeHost("web", FakeFleet())
    await add(whole)
    for number in range(1, len(whole.calls) + 1):
        for side in ("before", "after"):
            host = FakeHost("web", FakeFleet(), cut=lambda n, s, at=(number, side): (n, s) == at)  # type: ignore[misc]
            (cut,) = await add(host)
            if cut.result == "added":  # the call's outcome was not needed
                continue
            assert cut.error == "root@web: the connection broke", (number, side)
            host.cut = lambda number, side: False
            (outcome,) = await add(host)
            assert outcome.result in ("added", "already"), (number, side, outcome.error)
            assert state(host) == state(whole), (number, side)


async def test_a_host_that_fails_leaves_the_others_alone_and_is_told_in_a_paragraph_of_its_own() -> None:
    fleet = FakeFleet()
    good, bad = FakeHost("good", fleet), FakeHost("bad", fleet)
    bad.fails["install"] = Finished(code=100, err=b"noise\nE: Unable to locate package runc\n")
    told = Told()
    asked = [wish("good"), wish("bad"), wish("away")]
    first, second, third = await add(good, bad, wishes=asked, told=told)
    assert ("root@away", "failed", "nobody answers there") in told.lines
    assert first.result == "added"
    assert second.error == "root@bad: install packages runc failed: E: Unable to locate package runc"
    assert third.error == "root@away: nobody answers there"
    assert not bad.member and bad.closed == 1


async def test_a_full_disk_is_told_as_one_with_what_to_do() -> None:
    host = FakeHost("web", FakeFleet())
    host.fails["join"] = Finished(code=1, err=b"flota: /var/lib/flota: No space left on device\n")
    (outcome,) = await add(host)
    assert "no space left" in outcome.error and "Make room" in outcome.error


async def test_lists_of_packages_that_cannot_be_fetched_are_not_a_failure_by_themselves() -> None:
    host = FakeHost("web", FakeFleet())
    host.fails["update"] = Finished(code=100, err=b"E: no network")
    (outcome,) = await add(host)
    assert outcome.result == "added"


async def test_a_host_that_another_operator_is_at_is_refused_with_his_name() -> None:
    host = FakeHost("web", FakeFleet(), lock="busy ana@laptop")
    (outcome,) = await add(host)
    assert "ana@laptop is provisioning this host now" in outcome.error and host.calls == []


@pytest.mark.parametrize(
    "targets",
    [
        (Target(host="a"), Target(host="b")),
        (Target(host="192.0.2.1", jump="site1"), Target(host="192.0.2.1", jump="site2")),
    ],
    ids=["addresses", "sites"],
)
async def test_hosts_of_one_name_are_not_both_added(targets: tuple[Target, Target]) -> None:
    fleet = FakeFleet()
    connections = {target: FakeHost("web", fleet) for target in targets}

    async def connect(target: Target) -> FakeHost:
        return connections[target]

    run = Provisioner(connect, FakeSource(), Told())
    outcomes = await run.add([HostWish(target=target) for target in targets], fleet, no_founding)
    assert sorted(one.result for one in outcomes) == ["added", "failed"]
    (failed,) = (one for one in outcomes if one.result == "failed")
    assert "its name would be web" in failed.error and "--name" in failed.error


async def test_a_host_that_does_not_become_ready_is_told_with_its_agents_last_words() -> None:
    host = FakeHost("web", FakeFleet(), ready=False)
    run = Provisioner(FakeConnections(host), FakeSource(), Told(), patience=0.05)
    (outcome,) = await run.add([wish("web")], host.fleet, no_founding)
    assert "web is not ready after 0.05 s (joining)" in outcome.error
    assert "the agent: no such thing" in outcome.error


async def test_hosts_that_wait_for_a_controller_that_fails_are_told_so() -> None:
    host = FakeHost("b", FakeFleet())
    run = Provisioner(FakeConnections(host), FakeSource(), Told())
    first, second = await run.add([wish("b"), wish("a", controller=True)], None, no_founding)
    assert first.host == "root@a" and "nobody answers" in first.error
    assert "not tried" in second.error and host.calls == []


async def test_no_more_hosts_than_asked_for_are_worked_on_at_once() -> None:
    fleet = FakeFleet()
    hosts = [FakeHost(f"h{number}", fleet) for number in range(20)]
    connections = FakeConnections(*hosts)

    async def connect(target: Target) -> FakeHost:
        connections.open += 1
        connections.most = max(connections.most, connections.open)
        await asyncio.sleep(0)
        host = await connections(target)
        close = host.close

        async def closing() -> None:
            connections.open -= 1
            await close()

        host.close = closing  # type: ignore[method-assign]
        return host

    run = Provisioner(connect, FakeSource(), Told(), parallel=3)
    outcomes = await run.add([wish(host.name) for host in hosts], fleet, no_founding)
    assert {one.result for one in outcomes} == {"added"} and connections.most == 3


class Founding:
    """A controller and two hosts, and what is done once the first runs."""

    def __init__(self) -> None:
        fleet = FakeFleet()
        self.hosts = [FakeHost(name, fleet) for name in ("one", "two", "three")]
        self.founded: list[str] = []

    async def run(self, *, dry: bool = False) -> list[Outcome]:
        async def founded(controller: Transport) -> None:
            self.founded.append(controller.host)

        run = Provisioner(FakeConnections(*self.hosts), FakeSource(), Told(), dry=dry)
        wishes = [wish("two"), wish("one", controller=True), wish("three")]
        return await run.add(wishes, None, founded)

    @property
    def state(self) -> list[tuple[object, ...]]:
        return [state(host) for host in self.hosts]


async def test_a_founded_fleet_has_its_controller_first_and_the_others_join_it() -> None:
    founding = Founding()
    outcomes = await founding.run()
    assert [(one.name, one.result) for one in outcomes] == [
        ("one", "added"), ("two", "added"), ("three", "added"),
    ]  # fmt: skip
    assert founding.founded == ["root@one"] and founding.hosts[0].fleet.tokens == set()
    again = await founding.run()
    assert {one.result for one in again} == {"already"}
    founding.founded.clear()
    assert {one.result for one in await founding.run(dry=True)} == {"already"} and founding.founded == []


async def test_a_dry_run_of_a_founding_plans_every_host_and_founds_nothing() -> None:
    founding = Founding()
    assert {one.result for one in await founding.run(dry=True)} == {"planned"}
    assert founding.founded == [] and all(len(host.calls) == 1 for host in founding.hosts)


async def test_a_founding_that_is_cut_at_any_call_of_the_controllers_is_continued_to_the_same_end() -> None:
    whole = Founding()
    await whole.run()
    for number in range(1, len(whole.hosts[0].calls) + 1):
        for side in ("before", "after"):
            founding = Founding()
            first = founding.hosts[0]
            first.cut = lambda n, s, at=(number, side): (n, s) == at  # type: ignore[misc]
            await founding.run()
            first.cut = lambda number, side: False
            outcomes = await founding.run()
            assert {one.result for one in outcomes} <= {"added", "already"}, (number, side, outcomes)
            assert founding.state == whole.state, (number, side)


class OneOfFewSessions(FakeHost):
    """Its sshd opens 10 sessions on a connection, as OpenSSH's does unless told otherwise."""

    sessions = 0

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, root: bool = True
    ) -> Finished:
        if self.sessions == 10:
            raise CommandFailed(f"{self.host}: sshd opens no session: open failed")
        self.sessions += 1
        try:
            await asyncio.sleep(0.001)
            return await super().run(argv, stdin=stdin, timeout=timeout, root=root)
        finally:
            self.sessions -= 1


async def test_many_hosts_at_once_ask_a_new_controller_over_no_more_sessions_than_sshd_opens() -> None:
    fleet = FakeFleet()
    hosts = [OneOfFewSessions("one", fleet), *(FakeHost(f"h{number}", fleet) for number in range(30))]
    run = Provisioner(FakeConnections(*hosts), FakeSource(), Told(), parallel=30)

    async def founded(controller: Transport) -> None: ...

    wishes = [wish(host.name, controller=host is hosts[0]) for host in hosts]
    assert {one.result: one.error for one in await run.add(wishes, None, founded)} == {"added": ""}
