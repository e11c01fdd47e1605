"""What the figures share: our fleet, the peers, the image; started when asked for, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from bench.http import Api
from bench.peers import IMAGE, Docker
from deploy.busybox import root_tar
from deploy.fleet import Fleet
from deploy.rig.netns import NetnsRig


class Stage:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="flota-bench-", dir="/var/tmp"))
        self.tar = root_tar()
        self._fleet: Fleet | None = None
        self._docker: Docker | None = None
        self._swarm: Docker | None = None

    def __enter__(self) -> Stage:
        return self

    @property
    def fleet(self) -> Fleet:
        """flota on three hosts, with the benchmark's image on each."""
        if self._fleet is None:
            rig = NetnsRig("bf", disk=self.folder / "flota", run=Path("/run/flota-bf"))
            rig.down()
            self._fleet = Fleet(rig)
            self._fleet.start(3)
            self._fleet.load_everywhere(IMAGE, self.tar)
        return self._fleet

    @property
    def docker(self) -> Docker:
        """Docker Engine on one host."""
        if self._docker is None:
            self._docker = Docker("bd", self.folder / "docker")
            self._docker.start(1, self.tar)
        return self._docker

    @property
    def swarm(self) -> Docker:
        """A Swarm of three."""
        if self._swarm is None:
            self._swarm = Docker("bs", self.folder / "swarm")
            self._swarm.start(3, self.tar)
        return self._swarm

    def api(self) -> Api:
        return Api(self.fleet.socket())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in (self._fleet, self._docker, self._swarm):
            if peer is not None:
                peer.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
