"""Hosts as virtual machines of QEMU: kernels, clocks, systemd and disks of their own, without KVM too.

Each guest has two links: eth0, by which it is managed (10.77.0.1N), and eth1, the cluster's (10.78.0.1N),
which alone `cut` takes away. Both end in bridges of one namespace, NAME-vm, where QEMU runs and where a
machine outside of the fleet stands (10.77.0.1 and 10.78.0.1). All that a rig makes is found again by its name
and its folder: `down` removes it, also after the end of the process that called `up`.

`keep` stores a state that `back_to` goes back to, memory and disks of all guests at one time, so that
connections between guests go on. A guest's clock must come from a device whose time the kept state holds.
The processor's counter never goes back in QEMU (cpu_get_ticks of softmmu/cpu-timers.c): afterwards it is
ahead by all the time since, watchdogs and leases run out at once. Hence HPET.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from deploy.rig import qmp
from deploy.rig.base import RigHost
from deploy.rig.guestshell import GuestShell, in_namespace
from deploy.rig.image import Image
from deploy.rig.programs import as_fresh, ip, read_pid, wait_gone

ROOT = Path("/var/tmp/flota-vm")  # noqa: S108 - a folder of root's, for disks that a reboot may take
MANAGER = "10.77.0.1"
OUTSIDE = "10.78.0.1"
CLEAN = "clean"
BOOT_DEADLINE = 300.0
"""Seconds from power to SSH: 25 for one guest on an idle machine, minutes for three on a busy one."""
KERNEL_WORDS = (
    "root=LABEL=rigroot rw rootfstype=ext4 console=ttyS0 quiet net.ifnames=0 mitigations=off nokaslr "
    "random.trust_cpu=on audit=0 apparmor=0 clocksource=hpet tsc=unstable no_timer_check"
)


class QemuRig:
    """`name` marks everything (at most 8 characters). `memory`: MiB of a guest."""

    def __init__(self, name: str, *, image: Image | None, root: Path = ROOT, memory: int = 768) -> None:
        if not name.isalnum() or len(name) > 8:
            raise ValueError(f"rig name {name!r}: letters and digits, 8 at most")
        self.name = name
        self._folder = root / name
        self._image = image
        self._memory = memory
        self._netns = f"{name}-vm"
        self._shell = GuestShell(
            enter=in_namespace(self._netns), key=self._folder / "key", folder=self._folder
        )

    @property
    def hosts(self) -> Sequence[RigHost]:
        found = [int(path.name[1:]) for path in self._folder.glob("n*") if path.name[1:].isdigit()]
        return [RigHost(name=f"n{n}", address=cluster_address(f"n{n}")) for n in sorted(found)]

    @property
    def key(self) -> Path:
        """Private SSH key that root and the guests' users accept."""
        return self._folder / "key"

    @property
    def host_key(self) -> str:
        return (self._folder / "host_key").read_text()

    def management(self, host: str) -> str:
        return management_address(host)

    # -- life ---------------------------------------------------------------------------------------
    def up(self, count: int) -> Sequence[RigHost]:
        if self._image is None:
            raise RuntimeError("a rig without an image can only be taken down")
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._image.key, self.key)
        self.key.chmod(0o600)
        (self._folder / "host_key").write_text(self._image.host_key)
        self._switch()
        names = [f"n{number}" for number in range(1, count + 1)]
        for name in names:
            self._disk(name)
            self._start(name)
        _each(lambda name: self._shell.wait(management_address(name), BOOT_DEADLINE), names)
        self.keep(CLEAN)
        return self.hosts

    def boot(self, host: str) -> None:
        self._start(host)
        self._shell.wait(management_address(host), BOOT_DEADLINE)

    def crash(self, host: str) -> None:
        self._kill(host)
        self._shell.forget(management_address(host))

    def down(self) -> None:
        for host in self.hosts:
            self.crash(host.name)
        ip("netns", "del", self._netns, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            self._folder.parent.rmdir()

    def keep(self, state: str) -> None:
        names = self._names()
        _each(lambda name: self.exec(name, ["sync"]), names)
        for name in names:
            self._shell.forget(management_address(name))
        try:
            self._all("stop")
            _each(lambda name: qmp.human(self._monitor(name), f"savevm {state}"), names)
        finally:
            self._all("cont")

    def reset(self) -> None:
        self.back_to(CLEAN)

    def back_to(self, state: str) -> None:
        """Raises RuntimeError when a guest doesn't go back; the others do then."""
        names = self._names()
        for name in names:
            self._shell.forget(management_address(name))
            self.heal(name)
            if not self._running(name):
                self._start(name, paused=True)
        try:
            self._all("stop")
            _each(lambda name: qmp.human(self._monitor(name), f"loadvm {state}"), names)
        finally:
            self._all("cont")
        _each(self._set_clock, names)

    def _set_clock(self, host: str) -> None:
        self._shell.wait(management_address(host), 60)
        self.exec(host, ["date", "-s", f"@{time.time():.3f}"])

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
        return self._shell.exec(
            management_address(host), argv, timeout=timeout, check=check, stdin=stdin, env=env
        )

    def spawn(self, host: str, argv: Sequence[str], *, log: str) -> subprocess.Popen[bytes]:
        return self._shell.spawn(management_address(host), argv, log=log)

    def put(self, host: str, source: str, target: str) -> None:
        self._shell.put(management_address(host), source, target)

    def outside(self, argv: Sequence[str], *, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        words = [*in_namespace(self._netns), *argv]
        return subprocess.run(words, capture_output=True, timeout=timeout, check=False)

    # -- faults -------------------------------------------------------------------------------------
    def cut(self, host: str) -> None:
        ip("-n", self._netns, "link", "set", f"{host}c", "nomaster")

    def heal(self, host: str) -> None:
        ip("-n", self._netns, "link", "set", f"{host}c", "master", "cluster")

    def freeze(self, host: str) -> None:
        qmp.command(self._monitor(host), "stop")

    def thaw(self, host: str) -> None:
        qmp.command(self._monitor(host), "cont")

    # -- parts --------------------------------------------------------------------------------------
    def _names(self) -> list[str]:
        return [host.name for host in self.hosts]

    def _monitor(self, host: str) -> Path:
        return self._folder / host / "qmp"

    def _all(self, word: str) -> None:
        """Every guest hears it, whoever fails."""
        _each(lambda name: qmp.command(self._monitor(name), word), self._names())

    def _switch(self) -> None:
        ip("netns", "add", self._netns)
        as_fresh(self._netns)
        ip("-n", self._netns, "link", "set", "lo", "up")
        for bridge, address in (("manage", MANAGER), ("cluster", OUTSIDE)):
            ip("-n", self._netns, "link", "add", bridge, "type", "bridge", "stp_state", "0")
            ip("-n", self._netns, "address", "add", f"{address}/24", "dev", bridge)
            ip("-n", self._netns, "link", "set", bridge, "up")

    def _tap(self, name: str, bridge: str) -> None:
        if f": {name}:" not in ip("-n", self._netns, "-o", "link", "show"):
            ip("-n", self._netns, "tuntap", "add", "dev", name, "mode", "tap")
        ip("-n", self._netns, "link", "set", name, "master", bridge, "up")

    def _disk(self, host: str) -> None:
        assert self._image is not None
        (self._folder / host).mkdir()
        backing = ("-b", str(self._image.disk), "-F", "qcow2")
        words = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self._folder / host / "disk")]
        subprocess.run(words, check=True, capture_output=True, timeout=60)

    def _start(self, host: str, *, paused: bool = False) -> None:
        if self._image is None:
            raise RuntimeError("a rig without an image can only be taken down")
        for end, bridge in (("m", "manage"), ("c", "cluster")):
            self._tap(f"{host}{end}", bridge)
        folder = self._folder / host
        (folder / "qmp").unlink(missing_ok=True)
        words = [*in_namespace(self._netns), *self._machine(host, self._image)]
        words += ["-S"] if paused else []
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"guest {host} did not start: {done.stderr.strip()}")

    def _machine(self, host: str, image: Image) -> list[str]:
        folder, number = self._folder / host, number_of(host)
        links = [
            word
            for index, end in enumerate("mc")
            for word in (
                "-netdev", f"tap,id=e{index},ifname={host}{end},script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=e{index},romfile=,mac={_mac(index, number)}",
            )
        ]  # fmt: skip
        addresses = (
            f"ip={management_address(host)}:::255.255.255.0:{host}:eth0:off "
            f"ip={cluster_address(host)}::{OUTSIDE}:255.255.255.0::eth1:off systemd.hostname={host}"
        )
        return [
            "qemu-system-x86_64", "-name", f"{self.name}-{host}", "-nodefaults", "-no-user-config",
            "-display", "none", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max",
            "-M", "pc,vmport=off,hpet=on,graphics=off", "-m", str(self._memory), "-smp", "1",
            "-kernel", str(image.kernel), "-initrd", str(image.initrd),
            "-append", f"{KERNEL_WORDS} {addresses}",
            "-drive", f"if=none,id=d0,file={folder}/disk,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=d0", *links, "-device", "virtio-rng-pci",
            "-serial", f"file:{folder}/console", "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
            "-pidfile", str(folder / "pid"), "-daemonize",
        ]  # fmt: skip

    def _running(self, host: str) -> int:
        """Pid of the guest's QEMU, and of nobody who has got its number since; 0 if it is gone."""
        pid = read_pid(self._folder / host / "pid")
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if pid and os.fsencode(self._folder / host / "pid") in words:
                return pid
        return 0

    def _kill(self, host: str) -> None:
        if pid := self._running(host):
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
        (self._folder / host / "pid").unlink(missing_ok=True)


def number_of(host: str) -> int:
    return int(host.removeprefix("n"))


def management_address(host: str) -> str:
    """n1 → 10.77.0.11."""
    return f"10.77.0.{10 + number_of(host)}"


def cluster_address(host: str) -> str:
    """n1 → 10.78.0.11."""
    return f"10.78.0.{10 + number_of(host)}"


def _mac(link: int, number: int) -> str:
    return f"52:54:00:77:{link:02x}:{number:02x}"


def _each(do: Callable[[str], object], names: Iterable[str]) -> None:
    """On all of them at the same time; all have ended when the first failure is raised."""
    asked = list(names)
    if asked:
        with ThreadPoolExecutor(len(asked)) as pool:
            outcomes = [pool.submit(do, name) for name in asked]
        for outcome in outcomes:
            outcome.result()
