"""Images for tests: tars member by member, layers, images as a registry or an archive holds them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One tar entry; `fields` set TarInfo's attributes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def folder(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, **{"type": tarfile.DIRTYPE, "mode": 0o755, **fields})


def link(name: str, target: str, *, hard: bool = False) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


async def chunks(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@dataclass
class Built:
    """An image: blobs by digest, and the manifest that names them."""

    manifest: bytes
    config: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def id(self) -> str:
        return digest(self.config)


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def image(layers: Sequence[bytes], *, arch: str = "amd64", config: dict[str, Any] | None = None) -> Built:
    """Of uncompressed layer tars, bottom first."""
    packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    document = {
        "architecture": arch,
        "os": "linux",
        "config": config or {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }
    raw = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(raw, CONFIG),
        "layers": [descriptor(blob, LAYER) for blob in packed],
    }
    built = Built(manifest=json.dumps(manifest).encode(), config=raw)
    built.blobs = {digest(blob): blob for blob in (raw, *packed)}
    return built


def index(*images: tuple[Built, str]) -> bytes:
    """Of (image, architecture) pairs."""
    entries = [
        descriptor(built.manifest, MANIFEST, platform={"os": "linux", "architecture": arch})
        for built, arch in images
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def docker_archive(built: Built, layers: Sequence[bytes], *, names: Sequence[str] = ()) -> bytes:
    """As `docker save` writes it; `layers` uncompressed."""
    files = [member(f"layer{number}.tar", layer) for number, layer in enumerate(layers)]
    entry = {
        "Config": "config.json",
        "RepoTags": list(names),
        "Layers": [f"layer{n}.tar" for n in range(len(layers))],
    }
    return tar(
        *files, member("config.json", built.config), member("manifest.json", json.dumps([entry]).encode())
    )


def oci_archive(built: Built, *, name: str = "") -> bytes:
    note = {"annotations": {"io.containerd.image.name": name}} if name else {}
    top = {"schemaVersion": 2, "manifests": [descriptor(built.manifest, MANIFEST, **note)]}
    blobs = {**built.blobs, built.digest: built.manifest}
    return tar(
        member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        member("index.json", json.dumps(top).encode()),
        *(member(f"blobs/sha256/{name[7:]}", data) for name, data in blobs.items()),
    )
