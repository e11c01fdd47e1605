"""Hosts as namespaces of this machine: network, mount, pid, uts and ipc, joined by one bridge.

As in a real fleet, every process, link, route, mount and packet is real. Unlike there, all share one kernel
(no clock of their own, no reboot of it) and one cgroup tree. All that it makes carries the rig's name; `down`
removes it, also after a crash of the process that called `up` (state is re-found by name).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from deploy.rig.base import RigHost
from deploy.rig.programs import as_fresh, checked, ip, read_pid, wait_gone

INIT = Path(__file__).with_name("init.py")
NETNS_FOLDER = "/run/netns"
MADE_FOLDER = "made-netns-folder"
"""Marks that iproute2's folder of namespaces was not there before us, so that `down` takes it away again."""
OUTSIDE_ADDRESS = "198.18.0.1"
OUTSIDE_ADDRESS6 = "fd18:0:0:1::1"
ROUTES = "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding"
FLOW_TABLE = Path("/proc/sys/net/core/rps_sock_flow_entries")
SITE_ROUTER, SITE_ROUTER6 = "198.18.64.1", "fd18:64::1"
MADE_FLOW_TABLE = "made-flow-table"
"""Marks that flow steering was off before us. It is the machine's kernel's, so an agent in a namespace can't
see it; on a machine of its own an agent switches it on."""


class NetnsRig:
    """`name` marks everything (at most 8 characters). `disk` holds the hosts' /var/lib/flota, `run` their
    /run/flota. With `reachable`, this machine itself is on the hosts' network, at 198.18.0.1. Hosts that are
    `remote` are on a subnet of their own, behind a router (the switch's namespace); of those that are `nat`
    too, it lets through what they began, with an address of its own (IPv4). Of `family` 6 they have IPv6
    addresses alone. With `site`, each has a second link, eth1, to a network of the site's."""

    def __init__(
        self,
        name: str,
        *,
        disk: Path,
        run: Path,
        reachable: bool = False,
        mtu: int = 1500,
        remote: Collection[str] = (),
        family: int = 4,
        nat: Collection[str] = (),
        site: bool = False,
    ) -> None:
        if not name.isalnum() or len(name) > 8:
            raise ValueError(f"rig name {name!r}: letters and digits, 8 at most")
        self.name = name
        self._disk = disk
        self._run = run
        self._reachable = reachable
        self._mtu = mtu
        self._remote = remote
        self._family = family
        self.nat = nat
        self._site = site
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        """Ours to reap, where this process started the host."""

    @property
    def hosts(self) -> Sequence[RigHost]:
        names = sorted(p.name for p in self._run.glob("n*") if p.is_dir()) if self._run.is_dir() else []
        return [RigHost(name=n, address=self._address_of(n)) for n in names]

    def _address_of(self, host: str) -> str:
        remote = host in self._remote
        return address6_of(host, remote=remote) if self._family == 6 else address_of(host, remote=remote)

    # -- life ---------------------------------------------------------------------------------------
    def up(self, count: int) -> Sequence[RigHost]:
        self._disk.mkdir(parents=True, exist_ok=True)
        self._run.mkdir(parents=True, exist_ok=True)
        self._switch()
        self._flow_steering()
        for index in range(1, count + 1):
            self.boot(f"n{index}")
        return self.hosts

    def boot(self, host: str) -> None:
        lib, run = self._disk / host, self._run / host
        lib.mkdir(mode=0o711, exist_ok=True)
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(mode=0o755)
        self._plug(host)
        ready = run / "ready"
        os.mkfifo(ready)
        log = open(run / "init.log", "ab")  # noqa: SIM115 - handed to the child
        argv = ["nsenter", f"--net=/run/netns/{self._netns(host)}"]
        argv += ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        argv += [sys.executable, "-S", "-E", str(INIT), host, str(lib), str(run)]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
        log.close()
        self._holders[host] = process
        self._await_ready(host, ready, process)
        (run / "pid").write_text(str(_only_child(process.pid)))
        ready.unlink()

    def _await_ready(self, host: str, ready: Path, process: subprocess.Popen[bytes]) -> None:
        fd = os.open(ready, os.O_RDONLY | os.O_NONBLOCK)
        end = time.monotonic() + 20
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    if os.read(fd, 16):
                        return
                if process.poll() is not None or time.monotonic() > end:
                    words = (self._run / host / "init.log").read_text()[-500:]
                    raise RuntimeError(f"host {host} did not start: {words}")
                time.sleep(0.01)
        finally:
            os.close(fd)

    def crash(self, host: str) -> None:
        pid = self._pid(host)
        if pid:
            os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        if (holder := self._holders.pop(host, None)) is not None:
            holder.wait(10)
        self._unplug(host)
        (self._run / host / "pid").unlink(missing_ok=True)

    def reset(self) -> None:
        for host in self.hosts:
            self.crash(host.name)
            shutil.rmtree(self._disk / host.name)
            self.boot(host.name)

    def down(self) -> None:
        for host in self.hosts:
            with contextlib.suppress(ProcessLookupError):
                self.crash(host.name)
        ip("link", "del", f"{self.name}0", check=False)
        ip("netns", "del", self._netns("sw"), check=False)
        remove_cgroups(self.name)
        if (self._run / MADE_FLOW_TABLE).exists():
            FLOW_TABLE.write_text("0")
        if (self._run / MADE_FOLDER).exists() and not os.listdir(NETNS_FOLDER):
            subprocess.run(["umount", NETNS_FOLDER], check=True)
            os.rmdir(NETNS_FOLDER)
        shutil.rmtree(self._run, ignore_errors=True)
        shutil.rmtree(self._disk, ignore_errors=True)

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
        done = subprocess.run(
            [*self.enter(host), *argv],
            capture_output=True,
            timeout=timeout,
            input=stdin if stdin is not None else b"",
            env={**os.environ, **(env or {})},
            check=False,
        )
        return checked(done) if check else done

    def spawn(self, host: str, argv: Sequence[str], *, log: str) -> subprocess.Popen[bytes]:
        with open(log, "ab") as output:
            return subprocess.Popen(
                # nsenter(1) waits for the program, and would leave it behind
                [*self.enter(host), "setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def enter(self, host: str) -> list[str]:
        """The words before a command that put it on the host."""
        pid = self._pid(host)
        if not pid:
            raise RuntimeError(f"host {host} is not running")
        return ["nsenter", "-t", str(pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--"]

    def outside(self, argv: Sequence[str], *, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        words = list(argv) if self._reachable else ["nsenter", f"--net=/run/netns/{self._netns('sw')}", *argv]
        return subprocess.run(words, capture_output=True, timeout=timeout, check=False)

    def run_folder(self, host: str) -> Path:
        """The host's /run/flota, as this machine sees it."""
        return self._run / host

    def put(self, host: str, source: str, target: str) -> None:
        with open(source, "rb") as file:
            subprocess.run(
                [*self.enter(host), "sh", "-c", 'cat > "$1"', "sh", target], stdin=file, check=True
            )

    # -- faults -------------------------------------------------------------------------------------
    def cut(self, host: str) -> None:
        ip("-n", self._netns("sw"), "link", "set", host, "down")

    def heal(self, host: str) -> None:
        ip("-n", self._netns("sw"), "link", "set", host, "up")

    def freeze(self, host: str) -> None:
        for pid in self.processes(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self, host: str) -> None:
        for pid in self.processes(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # -- parts --------------------------------------------------------------------------------------
    def _netns(self, host: str) -> str:
        return f"{self.name}-{host}"

    def _switch(self) -> None:
        switch = self._netns("sw")
        if not os.path.ismount(NETNS_FOLDER):
            (self._run / MADE_FOLDER).touch()
        ip("netns", "add", switch)
        as_fresh(switch)
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        ip("-n", switch, "link", "set", "lo", "up")
        if self._site:
            ip("-n", switch, "link", "add", "br1", "type", "bridge")
            ip("-n", switch, "link", "set", "br1", "up")
            ip("-n", switch, "address", "add", f"{SITE_ROUTER}/24", "dev", "br1")
            ip("-n", switch, "address", "add", f"{SITE_ROUTER6}/64", "dev", "br1", "nodad")
        if self._reachable:
            port = f"{self.name}0"
            ip("link", "add", port, "type", "veth", "peer", "name", "up0", "netns", switch)
            ip("-n", switch, "link", "set", "up0", "master", "br0", "up")
            ip("address", "add", f"{OUTSIDE_ADDRESS}/24", "dev", port)
            ip("link", "set", port, "up")
        else:
            self._own(switch, OUTSIDE_ADDRESS6 if self._family == 6 else OUTSIDE_ADDRESS, "br0")

    def _flow_steering(self) -> None:
        if FLOW_TABLE.exists() and FLOW_TABLE.read_text().strip() == "0":
            (self._run / MADE_FLOW_TABLE).touch()
            FLOW_TABLE.write_text("32768")

    def _plug(self, host: str) -> None:
        netns, switch = self._netns(host), self._netns("sw")
        ip("netns", "add", netns)
        as_fresh(netns)
        ip("-n", switch, "link", "add", host, "mtu", str(self._mtu), "type", "veth",
            "peer", "name", "eth0", "mtu", str(self._mtu), "netns", netns)  # fmt: skip
        gateway = OUTSIDE_ADDRESS6 if self._family == 6 else OUTSIDE_ADDRESS
        if host in self._remote:
            gateway = gateway6_of(host) if self._family == 6 else gateway_of(host)
            self._own(switch, gateway, host)
            ip("-n", switch, "link", "set", host, "up")
            ip("netns", "exec", switch, "sh", "-ec", ROUTES)
            if host in self.nat:
                ip("netns", "exec", switch, "nft", _translation(host))
        else:
            ip("-n", switch, "link", "set", host, "master", "br0", "up")
        self._own(netns, self._address_of(host), "eth0")
        ip("-n", netns, "link", "set", "eth0", "up")
        ip("-n", netns, "route", "add", "default", "via", gateway)
        if self._site:
            port, (four, six) = f"{host}s", site_addresses_of(host)
            ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth1", "netns", netns)
            ip("-n", switch, "link", "set", port, "master", "br1", "up")
            ip("-n", netns, "address", "add", f"{four}/24", "dev", "eth1")
            ip("-n", netns, "address", "add", f"{six}/64", "dev", "eth1", "nodad")
            ip("-n", netns, "link", "set", "eth1", "up")

    @staticmethod
    def _own(netns: str, address: str, link: str) -> None:
        words = (f"{address}/64", "nodad") if ":" in address else (f"{address}/24",)
        ip("-n", netns, "address", "add", *words, "dev", link)

    def _unplug(self, host: str) -> None:
        ip("-n", self._netns("sw"), "link", "del", host, check=False)
        ip("-n", self._netns("sw"), "link", "del", f"{host}s", check=False)
        ip("netns", "del", self._netns(host), check=False)

    def _pid(self, host: str) -> int:
        return read_pid(self._run / host / "pid")

    def processes(self, host: str) -> list[int]:
        """All of the host's processes but its init, by their pid namespace or one below it."""
        init = self._pid(host)
        below = [int(p) for p in os.listdir("/proc") if p.isdigit() and _descends(int(p), init)]
        return [pid for pid in below if pid != init]


def address_of(host: str, *, remote: bool = False) -> str:
    """n1 → 198.18.0.11, n4 if it is remote → 198.18.4.14; the range is RFC 2544's, so that it meets nobody's
    network."""
    number = int(host.removeprefix("n"))
    return f"198.18.{number if remote else 0}.{10 + number}"


def address6_of(host: str, *, remote: bool = False) -> str:
    """n1 → fd18:0:0:1::11, n4 if it is remote → fd18:0:0:14::14."""
    number = int(host.removeprefix("n"))
    return f"fd18:0:0:{10 + number if remote else 1}::{10 + number}"


def gateway6_of(host: str) -> str:
    return f"fd18:0:0:{10 + int(host.removeprefix('n'))}::1"


def site_addresses_of(host: str) -> tuple[str, str]:
    """Of its second link: n1 → 198.18.64.11 and fd18:64::11."""
    number = 10 + int(host.removeprefix("n"))
    return f"198.18.64.{number}", f"fd18:64::{number}"


def gateway_of(host: str) -> str:
    """A remote host's router."""
    return f"198.18.{int(host.removeprefix('n'))}.1"


def _translation(host: str) -> str:
    """nft's words for a router that translates what this host of its port sends, and lets nobody begin."""
    return (
        f"table ip nat_{host} {{ chain out {{ type nat hook postrouting priority 100; "
        f'iifname "{host}" masquerade; }}; chain in {{ type filter hook forward priority 0; '
        f'oifname "{host}" ct state new drop; }}; }}'
    )


def remove_cgroups(name: str) -> None:
    """Remove the cgroups that a killed fleet of this name left, leaves first."""
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        for base in hierarchy.glob(f"flota-{name}-*"):
            for path, _, _ in os.walk(base, topdown=False):
                os.rmdir(path)


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _descends(pid: int, ancestor: int) -> bool:
    """True when `pid` is `ancestor` or below it."""
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(stat.rpartition(")")[2].split()[1])
    return False
