"""Hosts as Vagrant's machines in libvirt: what `deploy/vagrant` gives people, behind the rig's seam.

Where no libvirtd answers, as on machines without systemd, one is started in a network namespace of the rig's,
so that libvirt's bridges, leases and NAT rules never touch the machine's own network; it ends with `down`.
eth0 is libvirt's management link, eth1 the cluster's (10.78.0.1N). Vagrant's folders are the rig's own: a
fleet that somebody has up in deploy/vagrant is another.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deploy.rig.base import RigHost
from deploy.rig.guestshell import GuestShell, in_namespace
from deploy.rig.image import Image
from deploy.rig.programs import checked, ip, read_pid, wait_gone

FILES = Path(__file__).parents[1] / "vagrant"
ROOT = Path("/var/tmp/flota-vagrant")  # noqa: S108 - a folder of root's, for disks that a reboot may take
URI = "qemu:///system"
CLEAN = "clean"
BOX = "flota-rig"
BRIDGE = re.compile(rb"bridge name='([^']+)'")
QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
"""
"""Of a libvirtd with neither udev nor D-Bus nor systemd beside it."""
DAEMONS = ("virtlogd", "libvirtd")
PRIVATE_CONF = 'mount --bind "$1" /etc/libvirt/qemu.conf && shift && exec "$@"'


class VagrantRig:
    """`image`: whose key the box accepts. `box`: the file that deploy/vagrant/box made of it. Without them a
    rig can only be taken down. `driver`: kvm, or qemu where /dev/kvm boots no guests."""

    def __init__(
        self,
        name: str,
        *,
        image: Image | None,
        box: Path | None,
        root: Path = ROOT,
        driver: str = "qemu",
    ) -> None:
        if not name.isalnum() or len(name) > 8:
            raise ValueError(f"rig name {name!r}: letters and digits, 8 at most")
        self.name = name
        self._folder = root / name
        self._image = image
        self._box = box
        self._driver = driver
        self._netns = f"{name}-vg"
        self._addresses: dict[str, str] = {}

    @property
    def hosts(self) -> Sequence[RigHost]:
        found = sorted(path.name for path in (self._folder / "dot/machines").glob("n*"))
        return [RigHost(name=name, address=f"10.78.0.{10 + int(name[1:])}") for name in found]

    @property
    def key(self) -> Path:
        return self._folder / "key"

    @property
    def host_key(self) -> str:
        return (self._folder / "host_key").read_text()

    def management(self, host: str) -> str:
        """What libvirt leased to the host's first link."""
        if host not in self._addresses:
            said = self._virsh("domifaddr", self._domain(host)).decode()
            found = re.search(r"ipv4\s+([\d.]+)/", said)
            if found is None:
                raise RuntimeError(f"libvirt knows no address of {host}: {said.strip() or 'no lease'}")
            self._addresses[host] = found[1]
        return self._addresses[host]

    # -- life ---------------------------------------------------------------------------------------
    def up(self, count: int) -> Sequence[RigHost]:
        if self._image is None or self._box is None:
            raise RuntimeError("a rig without a box can only be taken down")
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._image.key, self.key)
        self.key.chmod(0o600)
        (self._folder / "host_key").write_text(self._image.host_key)
        if not self._answers(()):
            self._libvirtd()
        self._vagrant("box", "add", "--force", "--name", BOX, str(self._box), timeout=300)
        self._vagrant("up", *(f"n{number}" for number in range(1, count + 1)), timeout=1200)
        self.keep(CLEAN)
        return self.hosts

    def members(self, env: Mapping[str, str]) -> None:
        """`vagrant up` as people do it, whose trigger makes a fleet of the machines. `env`: FLOTA, and where
        that keeps its settings. Raises RuntimeError with its last words."""
        self._vagrant("up", timeout=1800, env={**env, "FLOTA_BARE": None})

    def boot(self, host: str) -> None:
        self._virsh("start", self._domain(host))
        self._shell().wait(self.management(host), 300)

    def crash(self, host: str) -> None:
        self._virsh("destroy", self._domain(host))
        self._shell().forget(self.management(host))

    def down(self) -> None:
        if not self._folder.is_dir():
            return
        if self._answers(self._enter()):
            self._vagrant("destroy", "-f", timeout=300)
            for volume in self._virsh("vol-list", "default").decode().split():
                if volume.startswith(f"{BOX}_vagrant_box_image"):
                    self._virsh("vol-delete", "--pool", "default", volume)
            if self._enter():
                for network in self._virsh("net-list", "--name").decode().split():
                    self._virsh("net-destroy", network)
        for daemon in reversed(DAEMONS):
            pid = read_pid(self._folder / f"{daemon}.pid")
            with suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGTERM)
                    wait_gone(pid)
        if self._enter():
            ip("netns", "del", self._netns)
        shutil.rmtree(self._folder)
        with suppress(OSError):
            self._folder.parent.rmdir()

    def keep(self, state: str) -> None:
        names = [host.name for host in self.hosts]
        for name in names:
            self.exec(name, ["sync"])
            self._shell().forget(self.management(name))
            self._virsh("suspend", self._domain(name))
        try:
            for name in names:
                if state in self._virsh("snapshot-list", self._domain(name), "--name").decode().split():
                    self._virsh("snapshot-delete", self._domain(name), state)
                self._virsh("snapshot-create-as", self._domain(name), state)
        finally:
            for name in names:
                self.thaw(name)

    def reset(self) -> None:
        self.back_to(CLEAN)

    def back_to(self, state: str) -> None:
        names = [host.name for host in self.hosts]
        for name in names:
            self._shell().forget(self.management(name))
        for name in names:
            self._virsh("snapshot-revert", self._domain(name), state, "--paused", "--force")
            self.heal(name)
        for name in names:
            self.thaw(name)
        for name in names:
            self._shell().wait(self.management(name), 60)
            self.exec(name, ["date", "-s", f"@{time.time():.3f}"])

    # -- work ---------------------------------------------------------------------------------------
    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        check: bool = True,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        address = self.management(host)
        return self._shell().exec(address, argv, timeout=timeout, check=check, stdin=stdin, env=env)

    def spawn(self, host: str, argv: Sequence[str], *, log: str) -> subprocess.Popen[bytes]:
        return self._shell().spawn(self.management(host), argv, log=log)

    def put(self, host: str, source: str, target: str) -> None:
        self._shell().put(self.management(host), source, target)

    def outside(self, argv: Sequence[str], *, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self._enter(), *argv], capture_output=True, timeout=timeout, check=False)

    # -- faults -------------------------------------------------------------------------------------
    def cut(self, host: str) -> None:
        self._ip("link", "set", self._cluster_end(host), "nomaster")

    def heal(self, host: str) -> None:
        found = BRIDGE.search(self._virsh("net-dumpxml", "flota-cluster"))
        if found is None:
            raise RuntimeError("libvirt's network flota-cluster has no bridge")
        self._ip("link", "set", self._cluster_end(host), "master", found[1].decode())

    def freeze(self, host: str) -> None:
        self._virsh("suspend", self._domain(host))

    def thaw(self, host: str) -> None:
        self._virsh("resume", self._domain(host))

    # -- parts --------------------------------------------------------------------------------------
    def _domain(self, host: str) -> str:
        return f"{self.name}-{host}"

    def _cluster_end(self, host: str) -> str:
        """The host's second link, as this machine sees it."""
        ends = self._virsh("domiflist", self._domain(host)).decode().split()
        return next(end for end, after in zip(ends, ends[2:], strict=False) if after == "flota-cluster")

    def _enter(self) -> list[str]:
        return in_namespace(self._netns) if os.path.exists(f"/run/netns/{self._netns}") else []

    def _ip(self, *argv: str) -> None:
        ip(*(("-n", self._netns) if self._enter() else ()), *argv)

    def _shell(self) -> GuestShell:
        return GuestShell(enter=self._enter(), key=self.key, folder=self._folder)

    def _virsh(self, *words: str) -> bytes:
        argv = [*self._enter(), "virsh", "-q", "-c", URI, *words]
        return checked(subprocess.run(argv, capture_output=True, timeout=120, check=False)).stdout

    def _answers(self, enter: Sequence[str]) -> bool:
        argv = [*enter, "virsh", "-q", "-c", URI, "version"]
        return subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode == 0

    def _libvirtd(self) -> None:
        ip("netns", "add", self._netns)
        ip("-n", self._netns, "link", "set", "lo", "up")
        conf = self._folder / "qemu.conf"
        conf.write_text(QEMU_CONF)
        for daemon in DAEMONS:
            words = [f"/usr/sbin/{daemon}", "-d", "-p", str(self._folder / f"{daemon}.pid")]
            private = ["unshare", "--mount", "--", "sh", "-ec", PRIVATE_CONF, "sh", str(conf)]
            argv = [*self._enter(), *private, *words]
            checked(subprocess.run(argv, capture_output=True, timeout=60, check=False))
        end = time.monotonic() + 30
        while not self._answers(self._enter()):
            if time.monotonic() > end:
                raise RuntimeError("libvirtd was started and doesn't answer after 30 s")
            time.sleep(0.1)

    def _vagrant(self, *words: str, timeout: float, env: Mapping[str, str | None] | None = None) -> None:
        """Its thousands of lines of progress go to a file; an error tells the last of them."""
        log = self._folder / "vagrant.log"
        settings: dict[str, str | None] = {
            "VAGRANT_HOME": str(self._folder / "home"),
            "VAGRANT_DOTFILE_PATH": str(self._folder / "dot"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
            "FLOTA_BARE": "1",
            "FLOTA_VM_DRIVER": self._driver,
            "FLOTA_VM_KEY": str(self.key),
            "FLOTA_VM_PREFIX": f"{self.name}-",
            **(env or {}),
        }
        with open(log, "ab") as output:
            done = subprocess.run(
                [*self._enter(), "vagrant", *words],
                cwd=FILES,
                env={name: value for name, value in {**os.environ, **settings}.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"vagrant {words[0]}: {log.read_text(errors='replace')[-1500:]}")
