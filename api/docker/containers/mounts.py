"""Mounts between Docker's three ways to say them (Binds, Mounts, Tmpfs; Volumes) and ours. Pure.

A volume that came as a bind (`name:/path`) is marked as made for `-v`, so that it is shown as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from api.docker.containers.body import CreateBody, MountWish
from model.api import InstanceInfo
from model.codec import convert_strict
from model.errors import InvalidInput
from model.mountwords import PROPAGATIONS, parse_tmpfs, parse_volume
from model.spec import Mount

_TYPES = ("bind", "volume", "tmpfs")


def mounts_of(body: CreateBody) -> tuple[Mount, ...]:
    """All that are asked for; an anonymous volume gives way to what else is wanted at its path. Raises
    InvalidInput."""
    host = body.host_config
    said = [
        *(_bind(text) for text in host.binds),
        *(mount_of(wish, f"HostConfig.Mounts[{index}]") for index, wish in enumerate(host.mounts)),
        *(parse_tmpfs(f"{path}:{options}") for path, options in host.tmpfs.items()),
    ]
    taken = {mount.target.rstrip("/") for mount in said}
    for path in body.volumes:
        mount = _bind(path)
        if mount.target.rstrip("/") not in taken:
            said.append(mount)
    return tuple(said)


def _bind(text: str) -> Mount:
    source, colon, _ = text.partition(":")
    if colon and source.startswith((".", "~")):
        hint = "A client makes it absolute; a volume's name begins with a letter or digit"
        raise InvalidInput(
            f"invalid volume specification: '{text[:120]}': the source is a relative path", hint=hint
        )
    mount = parse_volume(text, "/")
    return replace(mount, create_source=True) if mount.source else mount


def mount_of(wish: MountWish, where: str) -> Mount:
    """`where`: the field that says it. Raises InvalidInput."""
    if wish.type not in _TYPES:
        raise InvalidInput(f"{where}.Type: {wish.type[:40]!r} is not supported: {', '.join(_TYPES)} are")
    if not wish.target:
        raise InvalidInput(f'invalid mount config for type "{wish.type}": field Target must not be empty')
    made: dict[str, Any] = {"type": wish.type, "target": wish.target, "read_only": wish.read_only}
    if wish.type != "tmpfs":
        made["source"] = wish.source
    if wish.type == "bind":
        made |= _bind_options(wish, where)
    elif wish.type == "volume":
        made |= _volume_options(wish, where)
    else:
        made |= _tmpfs_options(wish, where)
    return convert_strict(made, Mount, where)


def _bind_options(wish: MountWish, where: str) -> dict[str, Any]:
    if not wish.source:
        raise InvalidInput('invalid mount config for type "bind": field Source must not be empty')
    options = wish.bind_options
    if options is None:
        return {}
    for said, name in (
        (options.non_recursive, "NonRecursive"),
        (options.read_only_non_recursive, "ReadOnlyNonRecursive"),
        (options.read_only_force_recursive, "ReadOnlyForceRecursive"),
    ):
        if said:
            raise InvalidInput(f"{where}.BindOptions.{name} is not supported")
    if options.propagation and options.propagation not in PROPAGATIONS:
        raise InvalidInput(
            f"{where}.BindOptions.Propagation: invalid propagation {options.propagation[:40]!r}"
        )
    made: dict[str, Any] = {"create_source": True} if options.create_mountpoint else {}
    return made | ({"propagation": options.propagation} if options.propagation else {})


def _volume_options(wish: MountWish, where: str) -> dict[str, Any]:
    options = wish.volume_options
    if options is None:
        return {}
    driver = options.driver_config.get("Name", "")
    if driver not in ("", "local") or options.driver_config.get("Options"):
        raise InvalidInput(
            f"{where}.VolumeOptions.DriverConfig is not supported",
            hint="Make the volume before: docker volume create",
        )
    if options.subpath:
        raise InvalidInput(f"{where}.VolumeOptions.Subpath is not supported")
    made: dict[str, Any] = {"labels": options.labels} if options.labels else {}
    return made | ({"no_copy": True} if options.no_copy else {})


def _tmpfs_options(wish: MountWish, where: str) -> dict[str, Any]:
    if wish.source:
        raise InvalidInput('invalid mount config for type "tmpfs": field Source must be empty')
    options = wish.tmpfs_options
    if options is None:
        return {}
    made: dict[str, Any] = {"tmpfs_size": options.size_bytes} if options.size_bytes else {}
    if options.mode:
        made["tmpfs_mode"] = options.mode
    if options.options:
        made["tmpfs_options"] = tuple("=".join(pair) for pair in options.options)
    return made


def mounts_from(other: InstanceInfo, word: str) -> tuple[Mount, ...]:
    """What `--volumes-from other[:word]` gives: its binds and volumes, those without a name by the names that
    its host gave them. Raises InvalidInput."""
    if word not in ("", "ro", "rw", "z", "Z"):
        raise InvalidInput(f"invalid mode: {word[:20]}")
    names = {target: name for name, target in other.status.volumes}
    said = [mount for mount in other.instance.spec.mounts if mount.type != "tmpfs"]
    named = [
        replace(mount, source=mount.source or names.get(mount.target, ""), create_source=True)
        for mount in said
    ]
    known = {mount.target for mount in said}
    named += [
        Mount(type="volume", source=name, target=target, create_source=True)
        for target, name in names.items()
        if target not in known
    ]
    return tuple(replace(mount, read_only=mount.read_only or word == "ro") for mount in named if mount.source)


def binds(mounts: Iterable[Mount]) -> list[str]:
    """Those that are shown as HostConfig.Binds."""
    return [_bind_text(m) for m in mounts if m.create_source and m.source and m.type != "tmpfs"]


def _bind_text(mount: Mount) -> str:
    words = ["ro"] if mount.read_only else []
    words += [mount.propagation] if mount.propagation else []
    words += ["nocopy"] if mount.no_copy else []
    # Docker shows back what it was told, and its command says nothing for rw
    return ":".join([mount.source, mount.target, *([",".join(words)] if words else [])])


def tmpfs(mounts: Iterable[Mount]) -> dict[str, str]:
    """Those that are shown as HostConfig.Tmpfs."""
    found = {}
    for mount in mounts:
        if mount.type == "tmpfs":
            words = [f"size={mount.tmpfs_size}"] if mount.tmpfs_size else []
            words += [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode != 0o1777 else []
            found[mount.target] = ",".join([*words, *mount.tmpfs_options])
    return found


def wishes(mounts: Iterable[Mount]) -> list[dict[str, Any]]:
    """Those that are shown as HostConfig.Mounts."""
    found: list[dict[str, Any]] = []
    for mount in mounts:
        if mount.create_source or mount.type == "tmpfs" or not mount.source:
            continue
        said: dict[str, Any] = {"Type": mount.type, "Source": mount.source, "Target": mount.target}
        if mount.read_only:
            said["ReadOnly"] = True
        if mount.type == "bind" and mount.propagation:
            said["BindOptions"] = {"Propagation": mount.propagation}
        options: dict[str, Any] = {"NoCopy": True} if mount.no_copy else {}
        if mount.labels:
            options["Labels"] = dict(mount.labels)
        if options:
            said["VolumeOptions"] = options
        found.append(said)
    return found


def points(mounts: Iterable[Mount], volumes: Mapping[str, str]) -> list[dict[str, Any]]:
    """The mounts that a container has: `volumes` is the name of the volume at each target."""
    found: dict[str, dict[str, Any]] = {}
    for mount in mounts:
        if mount.type == "tmpfs":
            continue  # Docker shows a tmpfs of --tmpfs in HostConfig alone
        name = mount.source if mount.type == "volume" else ""
        found[mount.target] = _point(mount.type, name or mount.source, mount)
    for target, name in volumes.items():
        made = found.get(target) or _point("volume", name, Mount(type="volume", target=target))
        found[target] = {**made, "Name": name}
    return list(found.values())


def _point(kind: str, source: str, mount: Mount) -> dict[str, Any]:
    said: dict[str, Any] = {"Type": kind}
    if kind == "volume":
        said |= {"Name": source, "Source": "", "Driver": "local"}
    else:
        said |= {"Source": source}
    return said | {
        "Destination": mount.target,
        "Mode": "" if not mount.read_only else "ro",
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if kind == "bind" else ""),
    }
