"""What the figures share: our fleet, the peers, the image; started when asked for, gone at the end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType

from bench.disk import FreshDisk
from bench.http import Api
from bench.peers import IMAGE, Docker
from deploy.busybox import root_tar
from deploy.fleet import Fleet
from deploy.rig.netns import NetnsRig, address_of

RIG = os.environ.get("FLOTA_RIG", "b")
"""Begin of the names of hosts: runs side by side on one machine need their own."""

REGISTRY = address_of("n9")
"""Of the ninth host beside the fleet of eight."""


class Stage:
    def __init__(self) -> None:
        self._disk = FreshDisk(Path(tempfile.mkdtemp(prefix="flota-bench-", dir="/var/tmp")))
        self.folder = self._disk.folder
        self.tar = root_tar()
        self._fleet: Fleet | None = None
        self._eight: Fleet | None = None
        self._docker: Docker | None = None
        self._swarm: Docker | None = None

    def __enter__(self) -> Stage:
        return self

    @property
    def fleet(self) -> Fleet:
        """flota on three hosts, with the benchmark's image on each."""
        if self._fleet is None:
            name = f"{RIG}f"
            rig = NetnsRig(name, disk=self.folder / "flota", run=Path(f"/run/flota-{name}"))
            rig.down()
            self._fleet = Fleet(rig)
            self._fleet.start(3)
            self._fleet.load_everywhere(IMAGE, self.tar)
        return self._fleet

    @property
    def docker(self) -> Docker:
        """Docker Engine on one host."""
        if self._docker is None:
            self._docker = Docker(f"{RIG}d", self.folder / "docker")
            self._docker.start(1, self.tar)
        return self._docker

    @property
    def swarm(self) -> Docker:
        """A Swarm of three."""
        if self._swarm is None:
            self._swarm = Docker(f"{RIG}s", self.folder / "swarm")
            self._swarm.start(3, self.tar)
        return self._swarm

    @property
    def eight(self) -> Fleet:
        """flota on eight hosts, which may pull from a registry at `REGISTRY` without TLS; n9 is no member."""
        if self._eight is None:
            name = f"{RIG}e"
            rig = NetnsRig(name, disk=self.folder / "eight", run=Path(f"/run/flota-{name}"))
            rig.down()
            self._eight = Fleet(rig, "--insecure-registry", f"{REGISTRY}:5000")
            self._eight.start(8)
            rig.boot("n9")
        return self._eight

    def api(self) -> Api:
        return Api(self.fleet.socket())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in (self._fleet, self._eight, self._docker, self._swarm):
            if peer is not None:
                peer.stop()
        self._disk.remove()
