"""Debian's docker-registry on a host of a rig, with images in an OCI layout to fill it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from deploy.rig.netns import NetnsRig

PORT = 5000


class Registry:
    """On `host`, at `address`:`port` there, its blobs in `folder`; several may serve one folder."""

    def __init__(
        self, rig: NetnsRig, host: str, folder: Path, *, address: str = "127.0.0.1", port: int = PORT
    ) -> None:
        self.name = f"{address}:{port}"
        self._rig, self._host = rig, host
        folder.mkdir(parents=True, exist_ok=True)
        config = folder.with_name(f"{folder.name}-{rig.name}-{port}.json")
        storage = {"filesystem": {"rootdirectory": str(folder)}}
        quiet = {"level": "error", "accesslog": {"disabled": True}}
        http = {"addr": self.name, "secret": "bench"}
        config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": http, "log": quiet}))
        log = str(config.with_suffix(".log"))
        self._process = rig.spawn(host, ["docker-registry", "serve", str(config)], log=log)
        self._await(log)

    def _await(self, log: str) -> None:
        end = time.monotonic() + 20
        words = ["bash", "-c", f"exec 3<>/dev/tcp/{self.name.replace(':', '/')}"]
        while self._rig.exec(self._host, words, check=False).returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"no registry answers at {self.name}; see {log}")
            time.sleep(0.05)

    def fill(self, layout: Path, tag: str, name: str) -> str:
        """Push the image `tag` of an OCI layout; its reference here."""
        reference = f"{self.name}/{name}:{tag}"
        words = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{tag}"]
        self._rig.exec(self._host, [*words, f"docker://{reference}"], timeout=300)
        return reference

    def sent(self) -> int:
        """Bytes that its host has sent on its link, all told."""
        words = ["cat", "/sys/class/net/eth0/statistics/tx_bytes"]
        return int(self._rig.exec(self._host, words).stdout)

    def slow(self, rate: str) -> None:
        """Its host's link carries no more than that (tc's words), as a line to a registry elsewhere does."""
        words = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate]
        self._rig.exec(self._host, [*words, "burst", "256kb", "latency", "100ms"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
