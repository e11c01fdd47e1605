"""The floor under a start: an overlay mount and `runc run -d`, no supervision, no network of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path


class RawRunc:
    def __init__(self, folder: Path, root_tar: bytes) -> None:
        self._folder = folder
        self._lower = folder / "lower"
        self._lower.mkdir(parents=True)
        subprocess.run(["tar", "-x", "-C", str(self._lower)], input=root_tar, check=True)
        subprocess.run(["runc", "spec", "--bundle", str(folder)], check=True)
        self._config = json.loads((folder / "config.json").read_text())
        self._config["process"].update(terminal=False, args=["sleep", "1000"])
        self._config["root"] = {"path": "rootfs", "readonly": False}

    def start(self, name: str) -> None:
        bundle = self._folder / name
        for part in ("rootfs", "upper", "work"):
            (bundle / part).mkdir(parents=True)
        self._config["linux"]["cgroupsPath"] = f"/flota-raw/{name}"
        (bundle / "config.json").write_text(json.dumps(self._config))
        layers = f"lowerdir={self._lower},upperdir={bundle}/upper,workdir={bundle}/work"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", layers, str(bundle / "rootfs")], check=True
        )
        words = ["runc", "--root", str(self._folder / "state"), "run", "-d", "--bundle", str(bundle), name]
        subprocess.run(
            words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def remove(self, name: str) -> None:
        words = ["runc", "--root", str(self._folder / "state"), "delete", "-f", name]
        subprocess.run(words, check=True, capture_output=True)
        subprocess.run(["umount", str(self._folder / name / "rootfs")], check=True)
        shutil.rmtree(self._folder / name)

    def close(self) -> None:
        """The cgroup parent stays behind a container's removal; take it away too."""
        for parent in Path("/sys/fs/cgroup").glob("*/flota-raw"):
            parent.rmdir()
        shutil.rmtree(self._folder)
