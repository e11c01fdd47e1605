"""What a container sees and may do, asked from inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.oci.capabilities import KERNEL
from model.errors import CommandFailed
from model.spec import ContainerSpec, Mount, Resources, Ulimit
from tests.support.containers import Lab, bind

pytestmark = pytest.mark.kernel


def mask(*names: str) -> str:
    return f"{sum(1 << KERNEL.index(f'CAP_{name}') for name in names):016x}"


STRICT = mask("CHOWN", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
DEFAULT = mask(
    *("CHOWN", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"),
    *("DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETPCAP", "SYS_CHROOT"),
)


def status(text: str) -> dict[str, str]:
    return {k: v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}


async def test_container_default_is_pid_one_alone_in_its_namespaces(lab: Lab) -> None:
    ended, text = await lab.run(
        "echo $$; hostname; ls /proc | grep -c '^[0-9]'; "
        "for n in pid mnt uts ipc net; do readlink /proc/1/ns/$n; done; ls /sys/class/net"
    )
    lines = text.splitlines()
    assert ended.code == 0
    assert lines[0] == "1"
    assert len(lines[1]) == 12
    assert int(lines[2]) <= 3
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "mnt", "uts", "ipc", "net")]
    assert not set(ours) & set(lines[3:8])
    assert lines[8:] == ["lo"]


async def test_container_default_has_no_descriptor_but_its_streams(lab: Lab) -> None:
    _, text = await lab.run("ls", "-l", "/proc/self/fd")
    numbers = sorted(
        int(line.split(" -> ")[0].rsplit(" ", 1)[1]) for line in text.splitlines() if " -> " in line
    )
    assert numbers[:3] == [0, 1, 2]
    assert numbers[3:] in ([3], [])  # ls's own look at the directory
    assert str(lab.directory) not in text


async def test_container_default_capabilities_and_seccomp_are_the_profile(lab: Lab) -> None:
    _, text = await lab.run("cat /proc/self/status")
    seen = status(text)
    assert [seen[f"Cap{k}"] for k in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [
        "0" * 16, DEFAULT, DEFAULT, DEFAULT, "0" * 16,
    ]  # fmt: skip
    assert (seen["Seccomp"], seen["Seccomp_filters"], seen["NoNewPrivs"]) == ("2", "1", "0")
    assert seen["Groups"] == "0"


async def test_container_strict_has_fewer_rights_and_no_new_ones(lab: Lab) -> None:
    ended, text = await lab.run(
        "cat /proc/self/status; touch /x 2>/dev/null && echo written", profile="strict"
    )
    seen = status(text)
    assert seen["CapEff"] == STRICT
    assert seen["NoNewPrivs"] == "1"
    assert "written" not in text
    assert ended.code == 1


async def test_container_as_user_has_its_groups_and_no_capability(lab: Lab) -> None:
    _, text = await lab.run("id -u; id -G; echo $HOME; cat /proc/self/status", user="app")
    lines = text.splitlines()
    assert lines[0] == "1000"
    assert set(lines[1].split()) == {"1001", "29"}
    assert lines[2] == "/home/app"
    assert status(text)["CapEff"] == "0" * 16


@pytest.mark.parametrize(
    "attempt",
    [
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs x /tmp",
        "umount /dev/shm",
        "chroot / unshare -n true",
    ],
)
async def test_container_default_making_namespaces_or_mounts_is_refused(lab: Lab, attempt: str) -> None:
    ended, _ = await lab.run(f"{attempt} 2>/dev/null")
    assert ended.code not in (0, None)


async def test_container_default_sees_masked_and_read_only_paths(lab: Lab) -> None:
    ended, text = await lab.run(
        "cat /proc/interrupts | wc -c; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; "
        "for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/x; "
        "do (echo x >$p) 2>/dev/null && echo written; done; "
        "ls /dev | grep -E '^(vda|sda|kvm|mem|kmsg)$'"
    )
    assert ended.code == 1
    assert text.split() == ["0", "0", "0"]


async def test_container_default_standard_mounts_are_there(lab: Lab) -> None:
    _, text = await lab.run("cat /proc/mounts", shm_size=1 << 20)
    table = {line.split()[1]: line.split() for line in text.splitlines()}
    assert table["/dev/shm"][3].split(",")[:4] == ["rw", "nosuid", "nodev", "noexec"]
    assert "size=1024k" in table["/dev/shm"][3]
    assert table["/sys"][3].startswith("ro,")
    assert {"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys/fs/cgroup"} <= set(table)


async def test_container_read_only_root_writes_only_to_mounts(lab: Lab, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    wanted = (bind(data, "/data"), bind(data, "/ro", read_only=True), Mount(type="tmpfs", target="/run"))
    ended, _ = await lab.run(
        "touch /x; touch /ro/x; touch /data/kept /run/y && ! touch /x /ro/x", read_only=True, mounts=wanted
    )
    assert ended.code == 0
    assert [p.name for p in data.iterdir()] == ["kept"]


async def test_container_memory_above_its_limit_is_killed_as_oom(lab: Lab) -> None:
    limits = Resources(memory=16 << 20, memory_swap=16 << 20)
    words = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    ended, _ = await lab.run(*words, resources=limits)
    assert ended.oom_killed
    assert ended.code == 137


async def test_container_processes_above_its_limit_are_refused(lab: Lab) -> None:
    ended, text = await lab.run(
        "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo done", resources=Resources(pids=4)
    )
    assert ended.code not in (0, None)
    assert "can't fork" in text


async def test_container_limits_stand_in_its_cgroup(lab: Lab) -> None:
    limits = Resources(nano_cpus=500_000_000, memory=64 << 20, pids=50, cpu_shares=512, cpuset_cpus="0")
    bundle, _ = await lab.create(ContainerSpec(image="x", args=("sleep", "100"), resources=limits))
    files = lab.runtime.cgroups
    assert files.number(bundle.id, "pids", "pids.max") == 50
    if files.unified:
        assert files.read(bundle.id, "cpu", "cpu.max") == "50000 100000\n"
        assert files.number(bundle.id, "memory", "memory.max") == 64 << 20
    else:
        assert files.number(bundle.id, "cpu", "cpu.cfs_quota_us") == 50_000
        assert files.number(bundle.id, "cpu", "cpu.shares") == 512
        assert files.number(bundle.id, "memory", "memory.limit_in_bytes") == 64 << 20
    assert files.read(bundle.id, "cpuset", "cpuset.cpus") == "0\n"


async def test_container_ulimit_is_felt(lab: Lab) -> None:
    _, text = await lab.run("ulimit -n; ulimit -Hn", ulimits=(Ulimit(name="nofile", soft=123, hard=456),))
    assert text.split() == ["123", "456"]


async def test_container_ping_group_range_is_open(lab: Lab) -> None:
    _, text = await lab.run(
        "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start"
    )
    assert text.split() == ["0", "2147483647", "0"]


async def test_container_with_init_runs_it_as_pid_one(lab: Lab) -> None:
    assert lab.limits.init_path, "needs tini-static or catatonit"
    ended, text = await lab.run("cat /proc/1/cmdline; exit 5", init=True)
    assert ended.code == 5
    assert text.startswith("/sbin/docker-init")


async def test_container_privileged_has_devices_and_every_right(lab: Lab) -> None:
    ended, text = await lab.run("ls /dev/kmsg; cat /proc/self/status", privileged=True)
    assert ended.code == 0
    assert status(text)["Seccomp"] == "0"
    assert int(status(text)["CapEff"], 16) == lab.limits.capabilities


async def test_container_missing_program_is_named(lab: Lab) -> None:
    with pytest.raises(CommandFailed, match='"nothere": executable file not found'):
        await lab.run("nothere", "x")
