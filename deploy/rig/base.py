"""The Rig seam: hosts that can be started, cut off, frozen and killed, whatever they are made of.

Drivers: `netns` (namespaces on this machine, in seconds), `qemu` (virtual machines, in a minute), `vagrant`
(virtual machines of libvirt, as people have them). A host has a name, a cluster address, its own
/var/lib/flota and /run/flota, its own processes; `crash` is a power loss: everything that ran is gone, the
disk stays.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from model.spec import Struct


class RigHost(Struct):
    name: str
    address: str
    """On the cluster network, where its peers reach it."""


class Rig(Protocol):
    @property
    def hosts(self) -> Sequence[RigHost]: ...

    def up(self, count: int) -> Sequence[RigHost]:
        """Start `count` hosts named n1 … nN, on one link, able to reach each other."""
        ...

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
        """Run a program on a host to its end. Raises RuntimeError with its output unless `check` is off."""
        ...

    def spawn(self, host: str, argv: Sequence[str], *, log: str) -> subprocess.Popen[bytes]:
        """Start a program on a host and let it run; output goes to the file `log` of this machine."""
        ...

    def outside(self, argv: Sequence[str], *, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run a program on a machine that is on the hosts' network but not in the fleet."""
        ...

    def put(self, host: str, source: str, target: str) -> None:
        """Copy a file of this machine to a host."""
        ...

    def cut(self, host: str) -> None:
        """Take the host off the cluster network; its processes live on."""
        ...

    def heal(self, host: str) -> None: ...

    def freeze(self, host: str) -> None:
        """Stop all its processes at once, as a hung host does."""
        ...

    def thaw(self, host: str) -> None: ...

    def crash(self, host: str) -> None:
        """Power loss."""
        ...

    def boot(self, host: str) -> None:
        """Power back, same disk, new boot id. Starts of flota what the host's own system starts."""
        ...

    def reset(self) -> None:
        """Back to the clean state: that after `up`, also of hosts that crashed, were cut off or frozen."""
        ...

    def down(self) -> None:
        """All hosts and all they left on this machine go. Idempotent."""
        ...


class KeepingRig(Rig, Protocol):
    """Hosts whose memory can be kept: virtual machines."""

    @property
    def key(self) -> Path:
        """Private SSH key that root and the hosts' users accept."""
        ...

    @property
    def host_key(self) -> str:
        """Fingerprint of the key that every host shows, as `ssh-keygen -l` prints it."""
        ...

    def management(self, host: str) -> str:
        """The host's address on a network of its own, by which it is reached while it is cut off."""
        ...

    def keep(self, state: str) -> None:
        """Keeps what all hosts are now, memory and disks, under a name. `up` keeps `clean`."""
        ...

    def back_to(self, state: str) -> None:
        """As `reset`, to what was kept under that name."""
        ...
