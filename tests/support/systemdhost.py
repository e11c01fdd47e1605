"""A real systemd as the init of a host in namespaces of this machine: pure cgroup v2, a network, folders of
its own; what it has of flota is the tree under test.

The kernel's v2 hierarchy may have no controllers here: then units' and containers' limits are not seen.
Invariant: nothing of it is left after `down`; the machine's own init is never spoken to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.waiting import wait_until

SYSTEMD = "/usr/lib/systemd/systemd"
HIERARCHIES = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
ADDRESS = "198.18.32.1"
_BOOT = r"""set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/made/lib
for unit in $UNITS; do cp "/usr/lib/systemd/system/$unit" /run/made/lib/; done
mount --bind /run/made/lib /usr/lib/systemd/system
mount -t tmpfs tmpfs /usr/lib/systemd/system-generators
mount --bind "$DISK/lib" /var/lib/flota
mount --bind "$DISK/units" /etc/systemd/system
for folder in /var/log /var/tmp /var/lib/systemd /tmp; do mount -t tmpfs tmpfs $folder; done
mount -o remount,bind,ro /
if touch /var/lib/probe 2>/dev/null; then echo "the machine's files are not safe" >&2; exit 1; fi
ip link set lo up
ip link add uplink type bridge
ip address add 198.18.32.1/24 dev uplink
ip link set uplink up
ip route add default via 198.18.32.2
hostname sdhost
exec env -i container=flota PATH="$PATH" /usr/lib/systemd/systemd --unit=multi-user.target \
  --show-status=no --default-standard-output=journal
"""
"""The machine's own files can't be written, and no unit of its own is there but those that are named."""
_UNITS = (
    "systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket"
    " basic.target sysinit.target shutdown.target umount.target final.target network-online.target"
)
_TARGET = """[Unit]
Description=Nothing but journald and flota
Requires=systemd-journald.socket
Wants=systemd-journald.service
AllowIsolate=yes
"""
_DROPIN = """[Service]
Environment=PYTHONPATH={tree} FLOTA_TREE={mark} PYTHONDONTWRITEBYTECODE=1
LimitNOFILE={files}
"""
"""The tree under test; and as many files as this machine lets anybody have."""


class SystemdHost:
    """`name` is of its cgroup; `disk` what outlives a reboot."""

    def __init__(self, name: str, disk: Path) -> None:
        self._name, self._disk = name, disk
        self._cgroup = cgroup_of_host(name)
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def boot(self) -> None:
        """Until systemd has started all that it should."""
        os.makedirs("/var/lib/flota", exist_ok=True)
        for folder in ("lib", "units", "units/flota-.service.d"):
            (self._disk / folder).mkdir(mode=0o755, parents=True, exist_ok=True)
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        tree, mark = Path(__file__).parents[2], os.environ.get("FLOTA_TREE", "")
        (self._disk / "units/flota-.service.d/tree.conf").write_text(
            _DROPIN.format(tree=tree, mark=mark, files=files)
        )
        (self._disk / "units/multi-user.target").write_text(_TARGET)
        end_left(self._name)
        self._cgroup.mkdir()
        script = (
            f"echo $$ >{self._cgroup}/cgroup.procs; exec unshare --mount --pid --uts --ipc --net --cgroup"
        )
        script += ' --fork --kill-child --propagation private sh -c "$BOOT"'
        with (self._disk / "boot.log").open("wb") as said:
            self._process = subprocess.Popen(
                ["sh", "-ec", script],
                env={**os.environ, "BOOT": _BOOT, "UNITS": _UNITS, "DISK": str(self._disk)},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        self._init = wait_until(lambda: _only_child(self._process), deadline=20, what="the init's pid")
        wait_until(self._started, deadline=60, what="systemd's start")

    def crash(self) -> None:
        """Power loss: all that ran is gone, /run too."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)
        self._process.wait(20)
        self._process = None
        end_left(self._name)

    def run(self, *argv: str, check: bool = True, timeout: float = 120.0) -> str:
        """A program's output on the host."""
        words = ["nsenter", "-t", str(self._init), "-m", "-p", "-u", "-i", "-n", "-C", *argv]
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.stdout}{done.stderr}\n{self.journal()}")
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def flota(self, *words: str, check: bool = True) -> str:
        return self.run(str(Path(sys.executable).with_name("flota")), *words, check=check)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def cgroup_of(self, pid: int) -> str:
        """On the host's v2 hierarchy, as it sees it."""
        lines = self.run("cat", f"/proc/{pid}/cgroup").splitlines()
        return next(line[3:] for line in lines if line.startswith("0::"))

    def journal(self, unit: str = "flota-*") -> str:
        words = [
            "nsenter",
            "-t",
            str(self._init),
            "-m",
            "-p",
            "journalctl",
            "--no-pager",
            "-n",
            "400",
            "-u",
            unit,
        ]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout

    def _started(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self._disk / "boot.log").read_text()[-2000:]
            hint = "it needs inotify instances: fs.inotify.max_user_instances may be used up"
            raise AssertionError(f"systemd ended: {said or hint}")
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")


@contextlib.contextmanager
def systemd_host(name: str, disk: Path) -> Iterator[SystemdHost]:
    assert os.path.exists(SYSTEMD), "these tests need systemd: sudo deploy/test installs it"
    host = SystemdHost(name, disk)
    try:
        host.boot()
        yield host
    finally:
        host.crash()


def cgroup_of_host(name: str) -> Path:
    top = next(path for path in HIERARCHIES if os.path.exists(f"{path}/cgroup.procs"))
    return Path(top, f"flota-{name}-init")


def end_left(name: str) -> None:
    """What is left of a host, of this run or one that was stopped: all its processes, and their cgroups."""
    cgroup = cgroup_of_host(name)
    if not cgroup.exists():
        return
    (cgroup / "cgroup.kill").write_text("1")

    def gone() -> bool:
        for path, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        return not cgroup.exists()

    wait_until(gone, deadline=20, what="the end of its cgroups")


def _only_child(process: subprocess.Popen[bytes] | None) -> int:
    """The pid of systemd, the only child of unshare."""
    assert process is not None
    for pid in _children(process.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return pid
    if process.poll() is not None:
        raise AssertionError("the host did not boot")
    return 0


def _children(pid: int) -> Sequence[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
