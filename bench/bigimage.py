"""An image as people pull them: 14 layers of unlike sizes, 700 MB of files as in a Debian root, by gzip.

Equal on every machine: names, sizes and bytes follow from one seed. Text that compresses and bytes that don't
are mixed so that gzip leaves some two fifths, as of real images.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

SIZES = (80, 130, 12, 210, 4, 93, 1, 60, 45, 30, 20, 8, 6, 1)
"""MB of files in each layer, bottom first."""
MEDIAN, SPREAD, LARGEST = 4096, 1.8, 32 << 20
"""Bytes of a file: log-normal, with a mean of some 20 kB."""
PER_FOLDER = 40
POOL, RANDOM_SHARE = 8 << 20, 0.12
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST, CONFIG = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
TAG = "1"


def make(folder: Path, sizes: tuple[int, ...] = SIZES) -> int:
    """An OCI layout in a new `folder`, its image tagged `TAG`; the bytes of its blobs."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        made = list(pool.map(_layer, range(len(sizes)), sizes, [blobs] * len(sizes)))
    _layout(folder, blobs, made, TAG)
    return sum(path.stat().st_size for path in blobs.iterdir())


def variant(folder: Path, base: Path, tag: str) -> Path:
    """The image of the layout `base` with a file more in each layer, so that nobody has any of it: the blobs
    begin with a gzip member of their own (RFC 1952, 2.2). As layout in a new `folder`, tagged `tag`."""
    blobs, old = folder / "blobs/sha256", base / "blobs/sha256"
    blobs.mkdir(parents=True)
    named = json.loads((base / "index.json").read_bytes())["manifests"][0]
    manifest = json.loads((old / _encoded(named)).read_bytes())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(lambda layer: _varied(blobs, old / _encoded(layer), tag), manifest["layers"]))
    _layout(folder, blobs, made, tag)
    return folder


def _varied(blobs: Path, blob: Path, tag: str) -> tuple[dict[str, Any], str]:
    header = _info(f"variant-{tag}", tarfile.REGTYPE, 0o644, 0).tobuf(tarfile.PAX_FORMAT)
    old = blob.read_bytes()
    diff = hashlib.sha256(header)
    with gzip.open(blob) as plain:
        while piece := plain.read(1 << 20):
            diff.update(piece)
    return _blob(blobs, gzip.compress(header, 6, mtime=0) + old), "sha256:" + diff.hexdigest()


def _encoded(descriptor: dict[str, Any]) -> str:
    return str(descriptor["digest"]).removeprefix("sha256:")


def _layout(folder: Path, blobs: Path, made: list[tuple[dict[str, Any], str]], tag: str) -> None:
    rootfs = {"type": "layers", "diff_ids": [diff for _, diff in made]}
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": rootfs}
    layers = [layer for layer, _ in made]
    described = _put(blobs, config, CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
    named = {**_put(blobs, manifest, MANIFEST), "annotations": {"org.opencontainers.image.ref.name": tag}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _put(blobs: Path, document: object, kind: str) -> dict[str, Any]:
    data = json.dumps(document).encode()
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}


def _layer(number: int, megabytes: int, blobs: Path) -> tuple[dict[str, Any], str]:
    """Its descriptor and diff id; the blob is in the folder `blobs`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in files(number, megabytes << 20):
            archive.addfile(info, io.BytesIO(content))
    plain = buffer.getvalue()
    return _blob(blobs, gzip.compress(plain, 6, mtime=0)), "sha256:" + hashlib.sha256(plain).hexdigest()


def _blob(blobs: Path, data: bytes) -> dict[str, Any]:
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return {"mediaType": LAYER, "digest": f"sha256:{name}", "size": len(data)}


def files(number: int, total: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Members of layer `number`, `total` bytes of content."""
    chance = random.Random(number)
    text, noise = _text(chance), chance.randbytes(POOL)
    count = 0
    while total > 0:
        folder = f"usr/lib/layer{number}/part{count // PER_FOLDER}"
        if count % PER_FOLDER == 0:
            yield _info(folder, tarfile.DIRTYPE, 0o755, 0), b""
        size = min(int(chance.lognormvariate(0, SPREAD) * MEDIAN), total, LARGEST)
        pool = noise if chance.random() < RANDOM_SHARE else text
        start = chance.randrange(POOL)
        content = (pool[start:] + pool * (size // POOL + 1))[:size]
        yield _info(f"{folder}/file{count}", tarfile.REGTYPE, 0o644, size), content
        total -= size
        count += 1


def _info(name: str, kind: bytes, mode: int, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, 1_700_000_000
    return info


def _text(chance: random.Random) -> bytes:
    """POOL bytes of words, the frequent ones more often."""
    words = [chance.randbytes(chance.randrange(1, 6)).hex().encode() for _ in range(20_000)]
    weights = [(rank + 3) ** -1.3 for rank in range(len(words))]
    return b" ".join(chance.choices(words, weights, k=POOL // 5))[:POOL]
