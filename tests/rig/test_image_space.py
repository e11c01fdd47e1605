"""Hosts whose disks count as full: what services may go back to stays, the rest goes, and it is said why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.busybox import root_tar
from deploy.fleet import Fleet
from tests.rig.conftest import running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
NOT_BY_ITSELF = ("--image-gc-high", "100", "--image-gc-low", "75", "--image-keep", "3")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("disk"), count=2) as fleet:
        yield fleet


@pytest.fixture
def versions(two: Fleet) -> Iterator[Fleet]:
    """Four images on either host, of which a service has had the first three."""
    for number in range(1, 5):
        two.load_everywhere(f"app:{number}", root_tar({"etc/version": str(number).encode()}))
    two.flota("n1", "service", "create", "--name", "web", "app:1", "sleep", "1000")
    for number in (2, 3):
        wait_until(lambda n=number: runs(two, f"app:{n - 1}"), deadline=20)  # type: ignore[misc]
        two.flota("n1", "service", "update", "--image", f"app:{number}", "--update-monitor", "0s", "web")
    wait_until(lambda: runs(two, "app:3"), deadline=20)
    yield two
    two.flota("n1", "fleet", "update", *NOT_BY_ITSELF)
    two.flota("n1", "service", "rm", "web")
    wait_until(lambda: not two.json("service", "ls"), deadline=20)


def runs(fleet: Fleet, image: str) -> bool:
    found = fleet.json("ps", "-a", "-f", "service=web")
    return [i["instance"]["spec"]["image"] for i in found if i["status"]["phase"] == "running"] == [image]


def full(fleet: Fleet, host: str) -> bool:
    """Whether the host says that its disk is and stays full."""
    [found] = [one for one in fleet.json("node", "ls") if one["host"]["spec"]["name"] == host]
    return any("no image may go" in words for words in found.get("conditions", ()))


def reason(fleet: Fleet, image: str) -> str:
    """Why it went, by the last event of that; it is told once the room is made."""
    past = ("events", "--since", "5m", "--until", "0s", "-f", "type=image", "-f", "event=delete")
    told = [event["attributes"].get("reason", "") for event in fleet.json(*past) if event["name"] == image]
    return str(told[-1]) if told else ""


def images(fleet: Fleet) -> dict[str, set[str]]:
    """Names of images, by host."""
    found: dict[str, set[str]] = {"n1": set(), "n2": set()}
    for row in fleet.json("images"):
        for host in row["hosts"]:
            found[host].add(row["name"])
    return found


def test_full_disk_takes_what_no_service_may_go_back_to(versions: Fleet) -> None:
    setting = ("--image-gc-high", "1", "--image-gc-low", "0", "--image-gc-min-age", "0s", "--image-keep", "2")
    versions.flota("n1", "fleet", "update", *setting)
    kept = {"app:2", "app:3"}
    wait_until(lambda: images(versions) == {"n1": kept, "n2": kept}, deadline=15, what="room made")
    gone = ("app:1", "app:4")
    wait_until(lambda: all(" % full" in reason(versions, name) for name in gone), deadline=20, what="events")
    wait_until(lambda: all(full(versions, host) for host in ("n1", "n2")), deadline=10, what="it is said")
    versions.flota("n1", "service", "rollback", "web")
    wait_until(lambda: runs(versions, "app:2"), deadline=20)


def test_prune_by_hand_over_all_hosts_says_what_it_keeps_and_why(versions: Fleet) -> None:
    said = versions.flota("n1", "image", "prune", "-af")
    assert "n1: kept: app:1: service web may go back to it" in said
    assert said.count("kept: app:3: service web is made of it") == 1  # elsewhere its container has it
    assert images(versions) == {host: {"app:1", "app:2", "app:3"} for host in ("n1", "n2")}
    rows = [line.split() for line in versions.flota("n1", "df").splitlines()[1:]]
    assert [row[2] for row in rows if row[1] == "Images"] == ["3", "3"]
    versions.flota("n1", "service", "rollback", "web")
    wait_until(lambda: runs(versions, "app:2"), deadline=20)
