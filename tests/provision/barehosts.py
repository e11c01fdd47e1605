"""Bare hosts with a real sshd, and an operator who can do nothing but log in to them.

Each is a host of the namespace rig with an /etc, /opt, /usr, /root and /home of its own, so that nothing of
this machine's flota, packages or accounts is there; programs can be taken from it. Packages come by a program
in apt-get's place that gives them back.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.bundle import default_cache
from deploy.fleet import FLOTA
from deploy.rig.netns import NetnsRig, address_of
from tests.support.waiting import wait_until

OPERATORS_CACHE = default_cache().parents[1]
"""Of whoever runs the tests: dependencies are fetched once."""
LACKED = ("sbin/runc", "bin/conmon", "bin/tini", "bin/tini-static", "share/containers/seccomp.json")
"""Below /usr: what a bare host does not have."""

OWN = r"""set -e
mkdir -p /run/own /run/sshd
mount -t tmpfs -o mode=755 own /run/own
mkdir /run/own/usr
mount --bind /usr /run/own/usr
for dir in etc usr var/lib/dpkg var/lib/apt var/cache var/log; do
  mkdir -p "/run/own/upper/$dir" "/run/own/work/$dir"
  mount -t overlay -o "lowerdir=/$dir,upperdir=/run/own/upper/$dir,workdir=/run/own/work/$dir" own "/$dir"
done
mount -t tmpfs -o mode=755,size=1g opt /opt
mount -t tmpfs -o mode=700 root /root
mount -t tmpfs -o mode=755 home /home
rm -rf /usr/local/bin/flota /etc/ssh /etc/resolv.conf /etc/sudoers.d/*
echo "127.0.0.1 localhost $(hostname)" >/etc/hosts
echo "$(hostname)" >/etc/hostname
mkdir -p /etc/ssh /root/.ssh
ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key
cat >/etc/ssh/sshd_config <<EOF
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
UsePAM no
PidFile none
MaxStartups 100
EOF
echo "$1" >/root/.ssh/authorized_keys
useradd --create-home --shell /bin/sh --password '*' deploy
mkdir /home/deploy/.ssh
echo "$1" >/home/deploy/.ssh/authorized_keys
chown -R deploy:deploy /home/deploy
echo 'deploy ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/deploy
chmod 440 /etc/sudoers.d/deploy
"""
APT_GET = r"""#!/bin/sh
# Packages are what this host's own /usr lost: they come back from the machine's.
echo "$*" >>/run/own/apt-get.log
[ -e /run/own/apt-fails ] && { echo "E: Unable to locate package" >&2; exit 100; }
case " $* " in *" install "*) ;; *) exit 0 ;; esac
while [ -e /run/own/apt-hangs ]; do sleep 0.1; done
while read -r path; do cp -a "/run/own/usr/$path" "/usr/$path"; done </run/own/lacked
"""


class BareHosts:
    """`folder` holds what the operator has: keys, known_hosts, what flota remembers."""

    def __init__(self, rig: NetnsRig, folder: Path) -> None:
        self.rig = rig
        self.home = folder
        self._sshds: dict[str, subprocess.Popen[bytes]] = {}

    # -- life ---------------------------------------------------------------------------------------
    def up(self, count: int) -> None:
        key = self.home / ".ssh" / "id_ed25519"
        key.parent.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.rig.up(count)
        names = [host.name for host in self.rig.hosts]
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(self._bare, names))
        self.know(*names)

    def another(self, count: int = 1) -> list[str]:
        """Boot further bare hosts; their names."""
        first = len(self.rig.hosts) + 1
        names = [f"n{number}" for number in range(first, first + count)]
        for name in names:
            self.rig.boot(name)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(self._bare, names))
        self.know(*names)
        return names

    def know(self, *names: str) -> None:
        """The operator has logged in to them before."""
        with open(self.home / ".ssh" / "known_hosts", "a") as known:
            known.writelines(f"{self.address(name)} {self.host_key(name)}\n" for name in names)

    def _bare(self, host: str) -> None:
        public = (self.home / ".ssh" / "id_ed25519.pub").read_text().strip()
        self.sh(host, OWN, public)
        self.settings(host)
        log = str(self.rig.run_folder(host) / "sshd.log")
        self._sshds[host] = self.rig.spawn(host, ["/usr/sbin/sshd", "-D", "-e"], log=log)
        wait_until(lambda: self._listens(host), deadline=10, what=f"sshd of {host}")

    def _listens(self, host: str) -> bool:
        return b":22 " in self.rig.exec(host, ["ss", "-Htln"]).stdout

    def settings(self, host: str) -> None:
        """Hosts of a rig share this machine's cgroups: each has a part of its own."""
        words = json.dumps({"cgroup_parent": f"/flota-{self.rig.name}-{host}"})
        self.sh(host, 'printf %s "$1" >/var/lib/flota/settings.json', words)

    def down(self) -> None:
        for host in self.rig.hosts:
            purge = "/opt/flota/current/bin/flota"
            self.sh(host.name, f"! test -x {purge} || {purge} down --purge", check=False)
        for sshd in self._sshds.values():
            sshd.kill()
            sshd.wait()
        self.rig.down()

    # -- the operator ---------------------------------------------------------------------------------
    def flota(
        self, *words: str, timeout: float = 300, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of the operator's, on a machine that sees the hosts' network alone."""
        done = self.rig.outside([*self._operator(env), FLOTA, *words], timeout=timeout)
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    def python(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[bytes]:
        """A program of the tests', in the operator's place."""
        return self.rig.outside([*self._operator(None), sys.executable, *words], timeout=timeout)

    def began(self, *words: str) -> subprocess.Popen[bytes]:
        """As `flota`, still running."""
        argv = ["nsenter", f"--net=/run/netns/{self.rig.name}-sw", *self._operator(None), FLOTA, *words]
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def _operator(self, env: Mapping[str, str] | None) -> list[str]:
        own = {"HOME": str(self.home), "XDG_CACHE_HOME": str(OPERATORS_CACHE), **(env or {})}
        gone = ("SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "FLOTA_HOST", "FLOTA_CREDENTIALS")
        return [
            "env",
            *(word for name in gone for word in ("-u", name)),
            *(f"{k}={v}" for k, v in own.items()),
        ]

    def ok(self, *words: str, timeout: float = 300) -> str:
        done = self.flota(*words, timeout=timeout)
        assert done.returncode == 0, (
            f"flota {shlex.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def outside(self, *argv: str) -> str:
        """What a program says on the operator's machine."""
        done = self.rig.outside(argv)
        assert done.returncode == 0, f"{shlex.join(argv)}: {done.returncode} {done.stderr.decode()}"
        return done.stdout.decode()

    def nodes(self) -> dict[str, dict[str, Any]]:
        """What the operator's fleet says of its hosts, by name."""
        lines = self.ok("node", "ls", "--format", "json").splitlines()
        found = map(json.loads, lines)
        return {node["host"]["spec"]["name"]: node for node in found}

    # -- hosts ----------------------------------------------------------------------------------------
    def address(self, host: str) -> str:
        return address_of(host)

    def root(self, host: str) -> str:
        """As what the operator logs in."""
        return f"root@{self.address(host)}"

    def host_key(self, host: str) -> str:
        """`ssh-ed25519 AAAA…`"""
        return self.sh(host, "cat /etc/ssh/ssh_host_ed25519_key.pub").strip()

    def fingerprint(self, host: str) -> str:
        return self.sh(host, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]

    def sh(self, host: str, script: str, *words: str, check: bool = True) -> str:
        done = self.rig.exec(host, ["sh", "-c", script, "sh", *words], check=check)
        return done.stdout.decode()

    def bereave(self, host: str, paths: Sequence[str] = LACKED) -> None:
        """Take programs and files below /usr from the host; its apt-get gives them back."""
        listed = "\n".join(paths)
        self.sh(host, 'cd /usr; echo "$1" >/run/own/lacked; echo "$1" | xargs rm -f', listed)
        self.sh(
            host, 'rm /usr/bin/apt-get; printf %s "$1" >/usr/bin/apt-get; chmod +x /usr/bin/apt-get', APT_GET
        )
