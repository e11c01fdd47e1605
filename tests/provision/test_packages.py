"""Packages by the host's real apt and dpkg, from an archive of its own."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.provision.barehosts import BareHosts

pytestmark = pytest.mark.rig
PACKAGE = "tini"
ARCHIVE = """set -e
apt-get -q -y remove tini >/dev/null
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists
mkdir -p /var/lib/apt/lists/partial /run/own/archive
echo 'deb [trusted=yes] file:/run/own/archive ./' >/etc/apt/sources.list
printf '%s\\n' "$1" >/run/own/archive/Packages"""


def status(hosts: BareHosts, host: str) -> str:
    return hosts.sh(host, "dpkg-query -W -f '${Status}' tini", check=False)


def test_add_installs_what_is_lacking_by_the_hosts_own_package_manager_and_rm_takes_it_back(
    fleet: BareHosts, tmp_path: Path
) -> None:
    subprocess.run(["chmod", "777", tmp_path], check=True)
    subprocess.run(["apt-get", "-q", "download", PACKAGE], cwd=tmp_path, check=True, capture_output=True)
    (deb,) = tmp_path.glob("*.deb")
    control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    entry = f"{control.strip()}\nFilename: ./tini.deb\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
    (host,) = fleet.another()
    fleet.sh(host, ARCHIVE, entry)
    fleet.rig.put(host, str(deb), "/run/own/archive/tini.deb")
    assert "ok installed" not in status(fleet, host)

    fleet.ok("host", "add", fleet.root(host))
    assert status(fleet, host) == "install ok installed"
    assert fleet.sh(host, "cat /opt/flota/packages").split() == [PACKAGE]
    assert fleet.nodes()[host]["host"]["state"] == "ready"

    done = fleet.flota("host", "rm", "--packages", host)
    assert done.returncode == 0 and "stay" not in done.stderr, done.stderr
    assert "ok installed" not in status(fleet, host)
    assert fleet.sh(host, "dpkg-query -W -f '${Status}' runc") == "install ok installed"
