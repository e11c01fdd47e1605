"""Device nodes of the host that a container is to have, and numbers of its block devices, looked up.

Invariant: what is found is a device's own number and never followed into the container's root; a directory
gives each node under it, a bounded number of them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from agent.oci.facts import Device
from model.errors import InvalidInput
from model.spec import BlkioDevice, DeviceWish

MOST = 1024


def nodes(wishes: Sequence[DeviceWish]) -> tuple[Device, ...]:
    """Blocks for a moment. Raises InvalidInput for what the host has not, or is no device."""
    found: list[Device] = []
    for wish in wishes:
        before = len(found)
        for path in _under(wish.source):
            info = _stat(path)
            kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
            if kind == "c" or kind == "b":
                found.append(_device(wish, path, info))
            if len(found) > MOST:
                raise InvalidInput(f"device {wish.source}: these are more than {MOST} devices")
        if len(found) == before:
            raise InvalidInput(f"device {wish.source}: this is no device on this host, nor has it any in it")
    return tuple(found)


def _device(wish: DeviceWish, path: str, info: os.stat_result) -> Device:
    return Device(
        path=wish.target + path.removeprefix(wish.source),
        type="c" if stat.S_ISCHR(info.st_mode) else "b",
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        permissions=wish.permissions,
    )


def _under(path: str) -> Iterator[str]:
    if not stat.S_ISDIR(_stat(path).st_mode):
        yield path
        return
    for folder, _, files in os.walk(path):
        yield from (os.path.join(folder, name) for name in sorted(files))


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise InvalidInput(f"device {path}: {error.strerror}", hint="Is it on this host?") from error


def blocks(wishes: Sequence[BlkioDevice]) -> dict[str, tuple[int, int]]:
    """Major and minor number of each, by path. Blocks for a moment. Raises InvalidInput."""
    found: dict[str, tuple[int, int]] = {}
    for wish in wishes:
        info = _stat(wish.path)
        if not stat.S_ISBLK(info.st_mode):
            raise InvalidInput(f"device {wish.path}: it is no block device, which alone has such limits")
        found[wish.path] = os.major(info.st_rdev), os.minor(info.st_rdev)
    return found
