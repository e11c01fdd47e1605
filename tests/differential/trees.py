"""What an image is to the differential test: its configuration, and its files with all attributes. Pure.

Images are read from a Docker archive (`docker save` and its like), layer by layer, in memory: they are small,
and were made by builders of this test. Two images are the same when `differences` is empty.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

OLD = 1_600_000_000
"""Seconds. What is younger was made by the build, whose time differs."""
SHORT = 200
XATTR = "SCHILY.xattr."
KINDS = {
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "link",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
}


class Entry(NamedTuple):
    """`content`: of a file (a digest if it is long), the target of a link, or numbers of a device. `mtime`:
    seconds of a file that is older than the build, else None. `twin`: first name of a hard-linked file."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    mtime: int | None = None
    twin: str = ""


Tree = Mapping[str, Entry]


class Image(NamedTuple):
    config: Mapping[str, Any]
    tree: Tree


def read(data: bytes) -> Image:
    """Of a Docker archive with one image."""
    with tarfile.open(fileobj=io.BytesIO(data)) as outer:
        [manifest] = json.loads(_member(outer, "manifest.json"))
        config = json.loads(_member(outer, manifest["Config"]))
        tree: dict[str, Entry] = {}
        for name in manifest["Layers"]:
            tree = over(tree, _member(outer, name))
    return Image(normal(config), _twins(tree))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)  # follows the links that Docker writes for equal layers
    assert found is not None, name
    return found.read()


# -- files --------------------------------------------------------------------------------------------
def over(below: Tree, layer: bytes) -> dict[str, Entry]:
    """The tree with a layer on top of it."""
    tree = dict(below)
    made: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(layer), errorlevel=2) as tar:
        for info in tar:
            name = info.name.removeprefix("./").strip("/")
            parent, _, last = name.rpartition("/")
            if name in ("", "."):
                continue
            if last == ".wh..wh..opq":
                _remove(tree, parent, inside=True)
            elif last.startswith(".wh."):
                _remove(tree, f"{parent}/{last[4:]}".strip("/"))
            else:
                entry = _entry(tar, info, ChainMap(made, tree))
                if entry.kind != "dir":
                    _remove(tree, name)
                made[name] = entry
    tree.update(made)
    return tree


def _remove(tree: dict[str, Entry], name: str, *, inside: bool = False) -> None:
    prefix = f"{name}/" if name else ""
    for path in [path for path in tree if (path == name and not inside) or path.startswith(prefix)]:
        del tree[path]


def _entry(tar: tarfile.TarFile, info: tarfile.TarInfo, known: Tree) -> Entry:
    if info.islnk():
        target = info.linkname.removeprefix("./").strip("/")
        return known[target]._replace(twin=known[target].twin or target)
    xattrs = tuple(
        sorted(
            (key.removeprefix(XATTR), value.encode("utf-8", "surrogateescape"))
            for key, value in info.pax_headers.items()
            if key.startswith(XATTR)
        )
    )
    kind = KINDS.get(info.type, "file")
    content = b""
    if kind == "file":
        taken = tar.extractfile(info)
        assert taken is not None
        content = shortened(taken.read())
    elif kind == "link":
        content = info.linkname.encode("utf-8", "surrogateescape")
    elif kind in ("char", "block"):
        content = b"%d:%d" % (info.devmajor, info.devminor)
    when = int(info.mtime) if kind == "file" and info.mtime < OLD else None
    mode = 0o777 if kind == "link" else info.mode & 0o7777
    return Entry(kind, mode, info.uid, info.gid, content, xattrs, when)


def shortened(content: bytes) -> bytes:
    if len(content) <= SHORT:
        return content
    return b"%d bytes, %s" % (len(content), hashlib.sha256(content).hexdigest()[:16].encode())


def _twins(tree: Tree) -> dict[str, Entry]:
    """Each group of hard links is told by its first name, in order."""
    groups: dict[str, list[str]] = {}
    for name, entry in tree.items():
        if entry.twin:
            groups.setdefault(entry.twin, [entry.twin] if entry.twin in tree else []).append(name)
    twins = {name: min(names) for names in groups.values() if len(names) > 1 for name in names}
    return {name: entry._replace(twin=twins.get(name, "")) for name, entry in tree.items()}


def changed(base: Tree, tree: Tree) -> dict[str, Entry | None]:
    """What was made of a base: None for what is gone."""
    found: dict[str, Entry | None] = {n: e for n, e in tree.items() if base.get(n) != e}
    return found | dict.fromkeys(base.keys() - tree.keys())


# -- configuration ------------------------------------------------------------------------------------
KEPT = (
    "Env", "Cmd", "Entrypoint", "ExposedPorts", "Volumes", "User", "WorkingDir", "Labels", "StopSignal",
    "Healthcheck", "OnBuild", "Shell",
)  # fmt: skip
BUILDERS_OWN = ("io.buildah.version",)


def normal(document: Mapping[str, Any]) -> dict[str, Any]:
    """What of an image's configuration a Dockerfile decides; empty is absent, sets are sorted."""
    config = document.get("config") or {}
    kept = {key: config.get(key) for key in KEPT}
    labels = {k: v for k, v in (kept["Labels"] or {}).items() if k not in BUILDERS_OWN}
    kept |= {
        "Labels": labels,
        "ExposedPorts": sorted(kept["ExposedPorts"] or ()),
        "Volumes": sorted(path.rstrip("/") or "/" for path in kept["Volumes"] or ()),
        "WorkingDir": "" if kept["WorkingDir"] == "/" else kept["WorkingDir"],
        "Author": document.get("author"),
        "Platform": "/".join(filter(None, (document.get("os"), document.get("architecture")))),
    }
    if kept["Healthcheck"]:
        kept["Healthcheck"] = {k: v for k, v in kept["Healthcheck"].items() if v}
    return {key: value for key, value in kept.items() if value}


# -- comparison ---------------------------------------------------------------------------------------
def differences(one: Image, other: Image) -> list[str]:
    """A line for each, the first's side first."""
    return [*_compared(one.config, other.config, "config "), *_compared(one.tree, other.tree, "/")]


def _compared(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield f"{prefix}{name}: {shown(one.get(name))} | {shown(other.get(name))}"


def shown(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, Entry):
        return json.dumps(value)
    parts = [value.kind, f"{value.mode:04o}", f"{value.uid}:{value.gid}", repr(value.content)]
    parts += [f"{key}={data!r}" for key, data in value.xattrs]
    parts += [f"at {value.mtime}"] if value.mtime is not None else []
    return " ".join([*parts, f"twin of {value.twin}"] if value.twin else parts)
