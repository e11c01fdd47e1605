"""Hosts taken out of a fleet in memory: what must be elsewhere first, what stays, cuts at every call."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.hostfacts import Facts
from deploy.inventory import Target
from deploy.provision import Provisioner
from deploy.removal import Removed, Wishes, remove
from deploy.roster import KnownHost
from deploy.software import removal
from deploy.steps import FleetView, Node
from model.errors import DeadlineExceeded, InUse, NotFound, Unavailable, Unsupported, WrongState
from tests.component.test_provision import Told, no_founding, wish
from tests.support.fakehosts import FakeConnections, FakeFleet, FakeHost, FakeSource


async def member(fleet: FakeFleet | None = None) -> FakeHost:
    host = FakeHost("web", fleet or FakeFleet())
    await Provisioner(FakeConnections(host), FakeSource(), Told()).add([wish("web")], host.fleet, no_founding)
    host.calls.clear()
    return host


def known(host: FakeHost) -> KnownHost:
    return KnownHost(name=host.name, host_id=host.ident, target=Target(host=host.name))


async def out(host: FakeHost, who: KnownHost | None = None, **wishes: object) -> Removed:
    said = Wishes(**{"drain_timeout": 0.0, **wishes})  # type: ignore[arg-type]
    return await remove(host, who, host.fleet, FakeSource(), said, Told())


async def test_a_host_is_drained_emptied_and_forgotten_and_its_packages_are_named() -> None:
    host = await member()
    removed = await out(host, known(host))
    assert (removed.name, removed.packages) == ("web", ("runc",))
    assert host.fleet.drained == [host.ident] and host.fleet.nodes == {}
    assert not host.member and not host.current and host.installed == {"runc"}


async def test_packages_go_where_that_was_asked_for() -> None:
    host = await member()
    assert (await out(host, packages=True)).packages == () and host.installed == set()


def test_packages_that_others_need_by_now_stay(tmp_path: Path) -> None:
    for name in ("info", "updates"):
        (tmp_path / name).mkdir()
    about = "Status: install ok installed\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: a\n"
    (tmp_path / "status").write_text(
        f"Package: runc\n{about}\nPackage: conmon\n{about}\nPackage: docker.io\nDepends: runc\n{about}"
    )
    first, *rest = removal(Facts(os_id="debian"), ("runc", "conmon"))
    done = subprocess.run(
        [first, "--simulate", *rest],
        env={**os.environ, "DPKG_ADMINDIR": str(tmp_path), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode and "docker.io depends on runc" in done.stderr
    assert removal(Facts(os_id="fedora"), ("runc",))[0] == "rpm", "dnf takes what needs it along, too"


async def test_services_are_waited_for_and_after_the_deadline_named() -> None:
    host = await member()
    host.fleet.services = ["api.1"]
    await out(host, drain_timeout=30.0)
    host = await member()
    host.fleet.services = ["stuck"]
    with pytest.raises(DeadlineExceeded, match="1 containers of services are there still \\(stuck\\)"):
        await out(host)
    assert host.member and host.fleet.nodes
    await out(host, force=True)
    assert not host.member


async def test_a_host_with_containers_of_its_own_is_neither_drained_nor_touched() -> None:
    host = await member()
    host.fleet.others = ("db",)
    with pytest.raises(InUse, match=r"1 containers that are no service's \(db\)"):
        await out(host)
    assert host.fleet.drained == [] and host.member
    await out(host, force=True)
    assert not host.member


async def test_volumes_stay_unless_they_are_given_up_and_are_named() -> None:
    host = await member()
    host.volumes = ["data", "db"]
    removed = await out(host, known(host), force=True)
    assert removed.volumes == ("data", "db") and host.volumes == ["data", "db"] and not host.member
    host = await member()
    host.volumes = ["data"]
    assert (await out(host, known(host), volumes=True)).volumes == () and host.volumes == []


async def test_host_whose_flota_would_take_volumes_along_is_left_as_it_is() -> None:
    host = await member()
    host.volumes, host.keeps = ["data"], False
    with pytest.raises(Unsupported, match=r"would remove its 1 volumes too \(data\)") as refused:
        await out(host, known(host))
    assert "--volumes" in refused.value.hint and host.member and host.fleet.drained == []
    await out(host, known(host), volumes=True)
    assert not host.member
    host = await member()
    host.keeps = False
    await out(host, known(host))
    assert not host.member, "one without volumes has none to lose"


async def test_a_removal_that_is_cut_at_any_call_is_continued_by_the_next() -> None:
    whole = await member()
    await out(whole, known(whole))
    for number in range(1, len(whole.calls) + 1):
        for side in ("before", "after"):
            host = await member()
            host.cut = lambda n, s, at=(number, side): (n, s) == at  # type: ignore[misc]
            with pytest.raises(Unavailable):
                await out(host, known(host))
            host.cut = lambda number, side: False
            await out(host, known(host))
            assert (host.member, host.current, host.fleet.nodes) == (False, "", {}), (number, side)


async def test_a_host_that_claims_to_be_another_is_not_believed() -> None:
    host = await member()
    other = KnownHost(name="db", host_id="b" * 64, target=Target(host="web"))
    host.fleet.nodes["db"] = Node(id="b" * 64, name="db", state="ready")
    with pytest.raises(WrongState, match="it says that it is web, not db"):
        await out(host, other)
    assert host.fleet.drained == [] and len(host.fleet.nodes) == 2


async def test_a_member_without_the_program_that_empties_it_is_left_as_it_is() -> None:
    host = await member()
    host.current = ""  # its Python is gone, or flota runs from elsewhere there
    with pytest.raises(WrongState, match=r"no whole flota in /opt/flota"):
        await out(host, known(host), force=True)
    assert host.fleet.drained == [] and "web" in host.fleet.nodes and host.member


async def test_the_controller_of_another_fleet_is_not_ended_as_ours() -> None:
    host = await member()
    host.controls, host.member = True, False
    other = FakeFleet()
    other.view = elsewhere  # type: ignore[method-assign]
    with pytest.raises(WrongState, match="the controller of another fleet"):
        await remove(host, None, other, FakeSource(), Wishes(force=True), Told())
    assert host.current


async def elsewhere() -> FleetView:
    return FleetView(fleet_id="e" * 32)


async def test_a_host_that_has_nothing_of_flota_is_told_so() -> None:
    with pytest.raises(NotFound, match="has nothing of flota"):
        await out(FakeHost("bare", FakeFleet()))
