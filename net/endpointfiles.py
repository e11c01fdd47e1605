"""What each instance has of the network, as one small file per instance in the run folder.

Why files and not the kernel alone: which network a veth serves, how its far end is set up and which ports are
published must be known after an agent's restart even if someone flushed nft or deleted the veth meanwhile.
They lie on the same tmpfs as the namespaces' mounts, so both end with the boot. Written aside and renamed;
not synced.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from model.codec import decode_json, encode_json
from model.errors import InvalidInput
from model.ids import InstanceId
from net.endpoint import InstanceNetwork

log = logging.getLogger("flota.net")


class EndpointFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> dict[InstanceId, InstanceNetwork]:
        """All that are readable; a damaged one is moved aside, and its instance attached anew by the
        agent."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: dict[InstanceId, InstanceNetwork] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                found[InstanceId(path.stem)] = decode_json(path.read_bytes(), InstanceNetwork, str(path))
            except InvalidInput as error:
                log.error("network state file put aside: %s", error)
                path.rename(path.with_suffix(".damaged"))
        return found

    def save(self, instance: InstanceId, network: InstanceNetwork) -> None:
        path = self._path(instance)
        aside = path.with_suffix(".new")
        aside.write_bytes(encode_json(network))
        os.replace(aside, path)

    def forget(self, instance: InstanceId) -> None:
        self._path(instance).unlink(missing_ok=True)

    def _path(self, instance: InstanceId) -> Path:
        return self._folder / f"{instance}.json"
