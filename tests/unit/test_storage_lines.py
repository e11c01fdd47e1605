"""`flota info` on storage drivers: which, where, why."""

from __future__ import annotations

from controller.queries import storage_drivers
from model.ids import HostId
from model.records import Host
from model.spec import HostSpec
from model.status import HostFacts


def host(name: str, driver: str, why: str = "") -> Host:
    facts = HostFacts(hostname=name, address="192.0.2.1", storage_driver=driver, storage_reason=why)
    return Host(id=HostId(name), spec=HostSpec(name=name), facts=facts)


def test_storage_drivers_are_told_with_their_hosts_and_reasons() -> None:
    hosts = [
        host("n2", "overlay2", "works"),
        host("n1", "overlay2", "works"),
        host("n3", "btrfs", "asked for"),
        host("old", "overlay2"),
        host("older", ""),
    ]
    assert storage_drivers(hosts) == (
        "overlay2 on n1, n2: works",
        "btrfs on n3: asked for",
        "overlay2 on old",
    )


def test_storage_drivers_of_many_hosts_are_told_in_one_line() -> None:
    hosts = [host(f"n{number:02}", "overlay2", "works") for number in range(12)]
    assert storage_drivers(hosts) == ("overlay2 on n00, n01, n02, n03, n04 and 7 more: works",)
