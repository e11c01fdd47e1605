"""First process of a namespace host: makes the host's own mounts, then reaps orphans until it is killed.

Run inside fresh network, mount, pid, uts and ipc namespaces: `init.py NAME LIB RUN`. LIB and RUN become
/var/lib/flota and /run/flota; RUN/ready, a fifo, is written to once the host is usable. Its end is the host's
power loss: the kernel kills every process of the pid namespace with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid

READY = "/run/flota/ready"


def mount(*argv: str) -> None:
    subprocess.run(["mount", *argv], check=True)


def prepare(name: str, lib: str, run: str) -> None:
    """Own /proc, /run, flota folders and boot id; nothing propagates to the machine."""
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    boot_id = os.path.join(run, "boot_id")
    with open(boot_id, "w") as file:
        file.write(f"{uuid.uuid4()}\n")
    mount("--bind", boot_id, "/proc/sys/kernel/random/boot_id")
    os.makedirs("/var/lib/flota", exist_ok=True)
    mount("--bind", lib, "/var/lib/flota")
    mount("--bind", run, "/mnt")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    os.makedirs("/run/flota")
    os.makedirs("/run/lock")
    mount("--move", "/mnt", "/run/flota")
    own_sysfs()
    socket.sethostname(name)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def own_sysfs() -> None:
    """A /sys that shows this network namespace's links, with the machine's cgroups below it as before."""
    aside = tempfile.mkdtemp()
    mount("--rbind", "/sys/fs/cgroup", aside)
    mount("-t", "sysfs", "sysfs", "/sys")
    mount("--move", aside, "/sys/fs/cgroup")
    os.rmdir(aside)


def reap_for_ever() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


def main() -> None:
    name, lib, run = sys.argv[1:]
    prepare(name, lib, run)
    fd = os.open(READY, os.O_WRONLY)
    os.write(fd, b"ready\n")
    os.close(fd)
    reap_for_ever()


if __name__ == "__main__":
    main()
