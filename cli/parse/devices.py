"""`--device` and the limits on block devices, in docker's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from model.devicerules import PERMISSIONS
from model.errors import InvalidInput
from model.quantity import parse_bytes
from model.spec import BlkioDevice, DeviceWish

_FLAGS = {
    "blkio_weight_device": "weight",
    "device_read_bps": "read_bps",
    "device_write_bps": "write_bps",
    "device_read_iops": "read_iops",
    "device_write_iops": "write_iops",
}


def parse_device(text: str) -> DeviceWish:
    """`HOST[:CONTAINER][:rwm]`. Raises InvalidInput."""
    source, *rest = text.split(":")
    permissions = rest.pop() if rest and PERMISSIONS.match(rest[-1]) else "rwm"
    if not source or len(rest) > 1:
        raise InvalidInput(f"--device {text[:80]!r} is not HOST[:CONTAINER][:rwm]")
    return DeviceWish(source=source, target=rest[0] if rest else source, permissions=permissions)


def block_devices(flags: Mapping[str, Any]) -> tuple[BlkioDevice, ...]:
    """One per path, with all that is said of it. Raises InvalidInput."""
    found: dict[str, BlkioDevice] = {}
    for flag, field in _FLAGS.items():
        for text in flags.get(flag) or ():
            path, colon, value = text.rpartition(":")
            if not colon or not path.startswith("/"):
                raise InvalidInput(f"--{flag.replace('_', '-')} {text[:80]!r} is not DEVICE:VALUE")
            known = found.get(path) or BlkioDevice(path=path)
            found[path] = replace(known, **{field: _value(field, value, text)})
    return tuple(found.values())


def _value(field: str, value: str, text: str) -> int:
    if field.endswith("bps"):
        return parse_bytes(value)
    if not (value.isascii() and value.isdecimal()):
        raise InvalidInput(f"{text[:80]!r} ends in no number")
    return int(value)
