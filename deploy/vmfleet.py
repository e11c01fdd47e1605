"""A fleet on virtual machines: bare guests of a rig, made members by `flota host add` over their own sshd.

The command runs on the machine outside of the fleet, as an operator's does, from this working tree; its
settings and the credentials that it is given lie in a folder of the fleet's. Hosts are reached by their
management addresses and reach each other by the cluster's. n1 carries the controller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deploy.fleet import CommandLine
from deploy.rig.base import KeepingRig
from deploy.rig.image import CACHE
from deploy.rig.programs import checked

PATIENCE = 180.0
"""Seconds that a command may take on an emulated host, on a busy machine."""
TREE = Path(__file__).resolve().parents[1]
BUNDLE = """
import pathlib, sys
from deploy.bundle import Target, build
build(Target(), pathlib.Path(sys.argv[1]))
"""
USERS: Mapping[str, str] = {"n2": "vagrant"}
"""Whom SSH logs in as, where not root: who may do all by sudo."""


class VmFleet(CommandLine[KeepingRig]):
    """`folder`: of the operator's settings."""

    def __init__(self, rig: KeepingRig, *, folder: Path, cache: Path = CACHE) -> None:
        super().__init__(rig, "flota", patience=PATIENCE)
        self._folder = folder
        self._cache = cache

    def provision(self, hosts: Sequence[str], *words: str, timeout: float = 900.0) -> str:
        """Makes these guests a fleet, or members of it. What the command said; raises RuntimeError."""
        self.bundle()
        inventory = self._folder / "hosts.yaml"
        inventory.parent.mkdir(parents=True, exist_ok=True)
        inventory.write_text("\n".join(("hosts:", *self._entries(hosts), "")))
        done = self.operator("host", "add", "-f", str(inventory), *words, timeout=timeout)
        return checked(done).stdout.decode()

    def patient(self, lost_after: float) -> None:
        """The controller bears with hosts as slow as emulated ones on a busy machine. It finds that noted
        when it is first started."""
        words = "install -d -m 711 /var/lib/flota && cat >/var/lib/flota/settings.json"
        told = json.dumps({"lost_after": lost_after}).encode()
        self.rig.exec("n1", ["sh", "-c", words], stdin=told)

    def bundle(self, tree: Path = TREE) -> None:
        """What is to be installed, made here, where an index of packages is reached."""
        argv = [*self._python(tree), "-c", BUNDLE, str(self._cache / "flota/bundles")]
        checked(subprocess.run(argv, capture_output=True, timeout=900, check=False))

    def operator(
        self, *words: str, tree: Path = TREE, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[bytes]:
        """A command on the operator's machine, of the flota in `tree`."""
        return self.rig.outside([*self._python(tree), "-m", "cli.main", *words], timeout=timeout)

    def ask(self, *words: str, timeout: float = PATIENCE) -> str:
        """As `flota`, on the operator's machine: at that machine's speed, by what `flota host add` has noted
        there of the fleet."""
        return checked(self.operator(*words, timeout=timeout)).stdout.decode()

    def environment(self, tree: Path = TREE) -> Mapping[str, str]:
        """In which the operator's flota is that of `tree`, and has its settings in this fleet's folder."""
        folders = {"HOME": self._folder, "XDG_CACHE_HOME": self._cache, "XDG_CONFIG_HOME": self._folder}
        return {name: str(path) for name, path in {**folders, "PYTHONPATH": tree}.items()}

    def _python(self, tree: Path) -> list[str]:
        env = ["env", "-C", os.sep, "-u", "FLOTA_HOST", "-u", "FLOTA_CREDENTIALS"]
        env += [f"{name}={value}" for name, value in self.environment(tree).items()]
        return [*env, sys.executable, "-P"]

    def _entries(self, hosts: Sequence[str]) -> Iterable[str]:
        addresses = {host.name: host.address for host in self.rig.hosts}
        for name in hosts:
            yield f"  - host: {USERS.get(name, 'root')}@{self.rig.management(name)}"
            yield f"    name: {name}"
            yield f"    address: {addresses[name]}"
            yield f"    identity: {self.rig.key}"
            yield f'    host_key: "{self.rig.host_key}"'
            if name == "n1":
                yield "    controller: true"
