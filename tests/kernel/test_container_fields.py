"""What reaches the kernel of a container's fields, told by a real container's own files."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.devices import blocks, nodes
from agent.oci import resources
from model.errors import InvalidInput
from model.spec import BlkioDevice, ContainerSpec, DeviceWish, Resources
from tests.support.containers import Lab, network_namespace

pytestmark = pytest.mark.kernel


@pytest.fixture
def netns() -> Iterator[str]:
    with network_namespace() as path:
        yield path


def told(lab: Lab, words: str, **fields: object) -> str:
    async def play() -> str:
        try:
            _, text = await lab.run(words, **fields)
            return text
        finally:
            await lab.close()

    return asyncio.run(play())


def test_process_has_its_score_and_the_hosts_name(tmp_path: Path, netns: str) -> None:
    text = told(
        Lab(tmp_path, netns), "cat /proc/self/oom_score_adj; hostname", oom_score_adj=321, uts_mode="host"
    )
    assert text.split() == ["321", socket.gethostname()]


ABSENT = os.makedev(10, 250)
"""No driver has it: opening gives ENODEV where it may be used, EPERM where not."""


def test_devices_named_are_there_and_may_be_used_as_said(tmp_path: Path, netns: str) -> None:
    os.mknod(tmp_path / "node", 0o20666, ABSENT)
    wishes = nodes((DeviceWish(source=str(tmp_path / "node"), target="/dev/mine", permissions="r"),))
    lines = told(Lab(tmp_path, netns), "cat /dev/mine; : > /dev/mine", devices=wishes).splitlines()
    assert "No such device" in lines[0], "it may be read"
    assert "Operation not permitted" in lines[1], "and not written"


@pytest.mark.parametrize(
    ("rules", "words"), [(("c 10:250 r",), "No such device"), ((), "Operation not permitted")]
)
def test_rule_of_the_user_allows_what_no_other_does(
    tmp_path: Path, netns: str, rules: tuple[str, ...], words: str
) -> None:
    lab = Lab(tmp_path, netns)
    os.mknod(lab.rootfs / "node", 0o20666, ABSENT)
    assert words in told(lab, "cat /node", device_rules=rules)


def test_paths_of_the_user_replace_the_usual_masks(tmp_path: Path, netns: str) -> None:
    words = (
        "ls /proc/acpi /proc/scsi 2>/dev/null | wc -l; cat /proc/version | wc -c; wc -c < /proc/timer_list"
    )
    text = told(Lab(tmp_path, netns), words, masked_paths=("/proc/version",), readonly_paths=())
    assert text.split("\n")[1] == "0", text


def test_limits_change_under_a_process_and_go(tmp_path: Path, netns: str) -> None:
    lab = Lab(tmp_path, netns)

    async def play() -> None:
        first = Resources(memory=64 << 20, pids=50, cpu_shares=512, cpuset_mems="0")
        _, created = await lab.create(ContainerSpec(image="x", args=("sleep", "1000"), resources=first))
        ident = lab.made[-1]
        await lab.runtime.start(ident)
        place = _places(created.pid)
        assert _number(place, "pids", "pids.max") == "50"
        for wish, wanted in (
            (Resources(memory=32 << 20, pids=7, nano_cpus=5 * 10**8), (str(32 << 20), "7", "50000")),
            (Resources(memory=128 << 20), (str(128 << 20), "max", "-1")),
        ):
            await lab.runtime.update(ident, resources.changed(wish, lab.limits))
            assert _limits(place, lab.limits.cgroup_v2) == wanted
        await lab.runtime.update(ident, resources.changed(Resources(), lab.limits))
        limit = _limits(place, lab.limits.cgroup_v2)[0]
        assert limit == "max" or int(limit) > 1 << 60
        await lab.close()

    asyncio.run(play())


def _places(pid: int) -> dict[str, str]:
    """Controller → cgroup directory; of v2 under the empty name."""
    lines = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    return {name: path for _, names, path in lines for name in names.split(",")}


def _number(place: dict[str, str], controller: str, name: str) -> str:
    folder = f"/sys/fs/cgroup/{controller}{place[controller]}" if controller in place else place[""]
    folder = folder if controller in place else f"/sys/fs/cgroup{folder}"
    return Path(folder, name).read_text().strip()


def _limits(place: dict[str, str], unified: bool) -> tuple[str, str, str]:
    """Memory, processes, microseconds of cpu in 100 ms."""
    pids = _number(place, "pids", "pids.max")
    if unified:
        quota = _number(place, "cpu", "cpu.max").split()[0].replace("max", "-1")
        return _number(place, "memory", "memory.max"), pids, quota
    memory = _number(place, "memory", "memory.limit_in_bytes")
    return memory, pids, _number(place, "cpu", "cpu.cfs_quota_us")


def test_device_that_is_none_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="/dev/not-there"):
        nodes((DeviceWish(source="/dev/not-there", target="/dev/x"),))
    with pytest.raises(InvalidInput, match="is no device"):
        nodes((DeviceWish(source=str(tmp_path), target="/dev/x"),))
    with pytest.raises(InvalidInput, match="no block device"):
        blocks((BlkioDevice(path="/dev/null", read_bps=1),))


def test_directory_of_devices_gives_each_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mknod(tmp_path / "in/n", 0o20600, os.makedev(1, 3))
    (tmp_path / "text").touch()
    os.symlink("/dev/zero", tmp_path / "in/led")
    os.symlink("gone", tmp_path / "dangling")
    found = nodes((DeviceWish(source=str(tmp_path), target="/dev/many", permissions="r"),))
    assert [(d.path, d.type, d.major, d.minor, d.permissions) for d in found] == [
        ("/dev/many/in/n", "c", 1, 3, "r")
    ], "no link is followed"
    whole = {device.path for device in nodes((DeviceWish(source="/dev", target="/dev"),))}
    assert "/dev/null" in whole and not any(path.startswith("/dev/pts") for path in whole)
