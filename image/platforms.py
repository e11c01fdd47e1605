"""Which platform an image must be made for: this machine's, or the one that was asked for."""

from __future__ import annotations

import platform as machine

from model.errors import InvalidInput
from model.status import Platform

_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


def host_platform() -> Platform:
    """This machine's, in OCI's words."""
    arch = machine.machine()
    return Platform(os="linux", arch=_ARCH.get(arch, arch), variant="v7" if arch == "armv7l" else "")


def wanted_platform(text: str, own: Platform) -> Platform:
    """`os[/arch[/variant]]`; what is not said is as this machine is."""
    if not text:
        return own
    os_name, _, rest = text.partition("/")
    arch, _, variant = rest.partition("/")
    return Platform(os=os_name, arch=arch or own.arch, variant=variant)


def parsed_platform(text: str) -> Platform:
    """As `wanted_platform`, of text that must name an architecture. Raises InvalidInput."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InvalidInput(f"{text[:80]!r} is no platform", hint="Write os/arch[/variant], linux/arm64 say")
    return Platform(os=parts[0], arch=parts[1], variant=parts[2] if len(parts) == 3 else "")


def fits(have: Platform, wanted: Platform) -> bool:
    return have.os == wanted.os and have.arch in ("", wanted.arch)
