"""Hosts that have something already: others' things stay, other fleets' hosts are refused, operators take
turns."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.hostlock import LOCK_FILE
from tests.provision.barehosts import BareHosts
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig

IN_USE = r"""set -e
nft -f - <<EOF
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy accept; }
  chain DOCKER-USER { counter return; }
}
table inet theirs {
  chain in { type filter hook input priority 5; policy accept; tcp dport 9 drop; }
}
EOF
ip link add docker0 type bridge
ip address add 172.17.0.1/16 dev docker0
ip link set docker0 up
ip link add vx9 type vxlan id 99 dev eth0 dstport 4789
sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.ip_forward=1
mkdir -p /run/docker /var/lib/docker-like
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/run/docker.sock")'
printf '#!/bin/sh\necho theirs\n' >/usr/local/bin/flota
chmod +x /usr/local/bin/flota
echo 'net.core.somaxconn = 512' >/etc/sysctl.d/10-theirs.conf
"""
THEIRS = r"""nft list table ip filter; nft list table inet theirs
ip -4 -o address show docker0; ip -d -o link show vx9 | cut -d: -f3-
sysctl net.ipv4.conf.all.rp_filter net.ipv4.ip_forward net.core.somaxconn
cat /usr/local/bin/flota; ls -l /run/docker.sock
cd /etc; find . -xdev -type f -exec sha256sum {} + | sort -k2"""


def test_add_and_rm_of_a_host_in_use_leave_everything_that_is_others(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    fleet.sh(host, IN_USE)
    before = fleet.sh(host, THEIRS)
    done = fleet.flota("host", "add", fleet.root(host))
    assert done.returncode == 0, done.stderr
    assert "/usr/local/bin/flota is somebody else's and stays" in done.stderr
    assert "Docker runs there and stays as it is" in done.stderr
    assert fleet.nodes()[host]["host"]["state"] == "ready"
    assert fleet.sh(host, THEIRS) == before
    fleet.ok("host", "rm", host)
    assert host not in fleet.nodes()
    assert fleet.sh(host, THEIRS) == before
    assert "inet flota" not in fleet.sh(host, "nft list tables")


def test_add_of_another_fleets_host_is_refused_and_it_stays_there(fleet: BareHosts, tmp_path: Path) -> None:
    (host,) = fleet.another()
    elsewhere = {"XDG_CONFIG_HOME": str(tmp_path)}
    done = fleet.flota("host", "add", "--controller", fleet.root(host), env=elsewhere)
    assert done.returncode == 0, done.stderr
    pids = "cat /run/flota/agent.pid /run/flota/controller.pid"
    before = fleet.sh(host, pids)
    done = fleet.flota("host", "add", fleet.root(host))
    assert done.returncode == 1 and "belongs to another fleet" in done.stderr
    assert "flota down --purge" in done.stderr
    assert fleet.sh(host, pids) == before
    done = fleet.flota("host", "rm", f"root@{fleet.address(host)}")
    assert done.returncode == 1 and "the controller of another fleet" in done.stderr
    done = fleet.flota("host", "rm", host, env=elsewhere)
    assert done.returncode == 1 and "the fleet ends with it" in done.stderr
    assert fleet.sh(host, pids) == before
    done = fleet.flota("host", "rm", "--force", host, env=elsewhere)
    assert done.returncode == 0, done.stderr
    assert fleet.sh(host, "ls -A /opt").strip() == "" and not (tmp_path / "flota" / "current").exists()


def test_add_while_another_operator_is_at_it_is_refused_with_his_name(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    script = f'exec 9>>{LOCK_FILE}; flock -n 9; echo "ana@laptop" >{LOCK_FILE}; echo held; exec sleep 60'
    argv = [*fleet.rig.enter(host), "setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        wait_until(holder.stdout.readline, deadline=10, what="the lock")
        try:
            done = fleet.flota("host", "add", fleet.root(host))
        finally:
            holder.kill()
    assert done.returncode == 1 and "ana@laptop is provisioning this host now" in done.stderr
    assert fleet.sh(host, "ls -A /opt").strip() == ""
