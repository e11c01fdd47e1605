"""Guests before flota: what their kernel has of what flota uses, and who is not let in to make members."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.rig.base import KeepingRig
from deploy.rig.programs import checked
from deploy.vmfleet import VmFleet
from tests.vm.support import on, tried

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]
MODULES = (
    "overlay", "bridge", "veth", "vxlan", "wireguard", "macvlan", "ipvlan", "8021q", "sctp", "nf_tables",
    "nft_ct", "nft_masq", "nft_fib", "nft_numgen", "nft_hash", "nf_conntrack", "sch_netem", "dummy",
)  # fmt: skip
PLACES = "/opt/flota /var/lib/flota /usr/local/bin/flota /etc/systemd/system/flota*"
TRACES = f"ls -d {PLACES} 2>/dev/null || true; dpkg -l | wc -l"


def test_guests_have_the_kernel_and_the_cgroups_that_flota_uses(bare: KeepingRig) -> None:
    said = on(bare, "n1", f"for m in {' '.join(MODULES)}; do modprobe $m 2>/dev/null || echo $m; done")
    assert said.split() == []
    assert on(bare, "n1", "stat -fc %T /sys/fs/cgroup; cat /proc/1/comm").split() == ["cgroup2fs", "systemd"]
    controllers = on(bare, "n1", "cat /sys/fs/cgroup/cgroup.controllers").split()
    assert {"cpu", "memory", "io", "pids", "cpuset"} <= set(controllers)


@pytest.mark.slow
def test_a_guest_taken_back_has_its_files_and_its_monotonic_clock_of_then(bare: KeepingRig) -> None:
    uptime = "cut -d. -f1 /proc/uptime"
    kept = int(on(bare, "n1", uptime))
    on(bare, "n1", "touch /root/later; sleep 20")
    bare.reset()
    assert tried(bare, "n1", "test -e /root/later").returncode == 1
    assert int(on(bare, "n1", uptime)) < kept + 15
    assert abs(float(on(bare, "n1", "date +%s")) - float(checked(bare.outside(["date", "+%s"])).stdout)) < 5


def test_a_guest_cut_off_reaches_no_other_and_is_still_managed(bare: KeepingRig) -> None:
    ping = "ping -c1 -W2 10.78.0.12"
    on(bare, "n1", ping)
    bare.cut("n2")
    assert tried(bare, "n1", ping).returncode == 1
    assert on(bare, "n2", "hostname").strip() == "n2"
    bare.heal("n2")
    on(bare, "n1", ping)


@pytest.mark.parametrize("case", [
    "no sudo",
    pytest.param("wrong host key", marks=pytest.mark.slow),
    pytest.param("wrong key", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_host_that_lets_nobody_in_is_named_and_left_as_it_was(
    bare: KeepingRig, tmp_path: Path, case: str
) -> None:
    before = on(bare, "n1", TRACES)
    fleet = VmFleet(bare, folder=tmp_path)
    key, user, pin = bare.key, "root", bare.host_key
    if case == "wrong host key":
        pin = f"SHA256:{'A' * 43}"
    elif case == "no sudo":
        user = "plain"
    else:
        key = tmp_path / "other"
        checked(fleet.rig.outside(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]))
    target = f"{user}@{bare.management('n1')}"
    done = fleet.operator("host", "add", "--controller", target, "-i", str(key), "--host-key", pin)
    said = done.stderr.decode() + done.stdout.decode()
    assert done.returncode and "Traceback" not in said
    assert target in said and {"wrong host key": "key", "no sudo": "sudo", "wrong key": "key"}[case] in said
    assert on(bare, "n1", TRACES) == before
