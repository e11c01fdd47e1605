"""An image configuration of our own making as the bytes of its blob (OCI image-spec, config.md). Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from image import healthcheck
from image.manifest import INLINE_CACHE, Configuration
from model.image import HistoryEntry


def encode(parsed: Configuration) -> bytes:
    """Canonical: sorted keys, no space; equal configurations give equal bytes and so one image id."""
    config = parsed.config
    run: dict[str, Any] = {
        "Env": list(config.env),
        "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "Cmd": None if config.cmd is None else list(config.cmd),
        "User": config.user,
        "WorkingDir": config.workdir,
        "Volumes": {path: {} for path in config.volumes},
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "Healthcheck": None if config.health is None else healthcheck.encoded(config.health),
        "Shell": list(config.shell),
        "OnBuild": list(config.onbuild),
    }
    document = {
        "architecture": parsed.platform.arch,
        "os": parsed.platform.os,
        "variant": parsed.platform.variant,
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(parsed.diff_ids)},
        "created": timestamp(parsed.created) if parsed.created else "",
        "author": parsed.author,
        "parent": parsed.origin.parent,
        "container": parsed.origin.container,
        "container_config": {"Image": parsed.origin.image} if parsed.origin.image else None,
        "history": [_line(entry) for entry in parsed.history],
        INLINE_CACHE: parsed.cache,
    }
    return json.dumps(
        {k: v for k, v in document.items() if v}, sort_keys=True, separators=(",", ":")
    ).encode()


def _line(entry: HistoryEntry) -> dict[str, Any]:
    told = {"created": entry.created, "author": entry.author}
    return {key: value for key, value in told.items() if value} | {
        "created_by": entry.created_by,
        "comment": entry.comment,
        "empty_layer": entry.empty_layer,
    }


def timestamp(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
