"""Device nodes of the host, and numbers of its block devices, looked up.

Invariant: what is found has a device's own number; a link in a directory is never followed. Of /dev, what
each container has of its own is left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from agent.oci.facts import Device
from model.errors import InvalidInput
from model.spec import BlkioDevice, DeviceWish

MOST = 1024
_PRIVATE = ("pts", "shm", "mqueue", "fd", "console", "ptmx")


def all_nodes() -> list[Device]:
    """Those under /dev, by path. Blocks for a moment."""
    return sorted((_device(path, info) for path, info in _under("/dev")), key=lambda device: device.path)


def nodes(wishes: Sequence[DeviceWish]) -> tuple[Device, ...]:
    """Blocks for a moment. Raises InvalidInput for what the host has not, is no device, or are too many."""
    found: list[Device] = []
    for wish in wishes:
        before = len(found)
        for path, info in _wished(wish.source):
            target = wish.target + path.removeprefix(wish.source)
            found.append(_device(path, info, target, wish.permissions))
            if len(found) > MOST:
                raise InvalidInput(f"device {wish.source}: these are more than {MOST} devices")
        if len(found) == before:
            raise InvalidInput(f"device {wish.source}: this is no device on this host, nor has it any in it")
    return tuple(found)


def blocks(wishes: Sequence[BlkioDevice]) -> dict[str, tuple[int, int]]:
    """Major and minor number of each, by path. Blocks for a moment. Raises InvalidInput."""
    found: dict[str, tuple[int, int]] = {}
    for wish in wishes:
        info = _stat(wish.path)
        if not stat.S_ISBLK(info.st_mode):
            raise InvalidInput(f"device {wish.path}: it is no block device, which alone has such limits")
        found[wish.path] = os.major(info.st_rdev), os.minor(info.st_rdev)
    return found


def _device(path: str, info: os.stat_result, target: str = "", permissions: str = "rwm") -> Device:
    return Device(
        path=target or path,
        type="c" if stat.S_ISCHR(info.st_mode) else "b",
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        permissions=permissions,
    )


def _wished(source: str) -> Iterator[tuple[str, os.stat_result]]:
    """The device that the path leads to, or those under that directory. Raises InvalidInput."""
    info = _stat(source)
    if stat.S_ISDIR(info.st_mode):
        yield from _under(source)
    elif _is_device(info):
        yield source, info


def _under(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """One that goes meanwhile is left out."""
    for folder, folders, files in os.walk(top):
        if folder == "/dev":
            folders[:] = [name for name in folders if name not in _PRIVATE]
            files = [name for name in files if name not in _PRIVATE]
        for path in (os.path.join(folder, name) for name in sorted(files)):
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue
            if _is_device(info):
                yield path, info


def _is_device(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise InvalidInput(f"device {path}: {error.strerror}", hint="Is it on this host?") from error
