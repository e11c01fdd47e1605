"""The seccomp filter: the distribution's containers-common profile, tightened to Docker's. Pure.

The file's rules depend on capabilities, architecture and kernel (containers/common, pkg/seccomp); OCI's do
not, so a filter is compiled per capability set and kept: starts are a hot path. The distribution's profile
lets a container make namespaces and mount inside them; Docker's does not without CAP_SYS_ADMIN, nor do we.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from model.codec import UNREADABLE
from model.errors import Damaged
from model.spec import Struct

_EPERM, _ENOSYS = 1, 38
_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET"""
_AF_NETLINK, _AF_ALG, _AF_VSOCK, _NETLINK_AUDIT = 16, 38, 40, 9
_ONLY_WITH: dict[str, tuple[str, ...]] = {
    "CAP_SYS_ADMIN": (
        *(
            "clone",
            "clone3",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
        ),
        *("open_tree", "pivot_root", "setns", "umount", "umount2", "unshare"),
    ),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYSLOG": ("syslog",),
    "CAP_SYS_PTRACE": ("pidfd_getfd",),
    "": ("keyctl", "socket"),
}
"""What Docker allows only with a capability; "" is never allowed as it stands in the file."""
_ALTERNATIVE = {"CAP_SYSLOG": "CAP_SYS_ADMIN"}


class _Arg(Struct):
    index: int
    value: int
    op: str
    valueTwo: int = 0


class _When(Struct):
    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    minKernel: str = ""


class _Rule(Struct):
    action: str
    names: tuple[str, ...] = ()
    args: tuple[_Arg, ...] | None = None
    includes: _When = _When()
    excludes: _When = _When()
    errnoRet: int | None = None


class _Arch(Struct):
    architecture: str
    subArchitectures: tuple[str, ...] | None = None


class _Profile(Struct):
    defaultAction: str
    defaultErrnoRet: int | None = None
    archMap: tuple[_Arch, ...] = ()
    syscalls: tuple[_Rule, ...] = ()


_OCI_ARCH = {
    "amd64": "SCMP_ARCH_X86_64",
    "386": "SCMP_ARCH_X86",
    "arm64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "riscv64": "SCMP_ARCH_RISCV64",
}


class SeccompPolicy:
    """The parsed file. `compile` is a pure function whose results are kept."""

    def __init__(self, data: bytes, *, arch: str, kernel: tuple[int, int]) -> None:
        """Raises Damaged when the file is not such a profile."""
        try:
            self._profile = msgspec.json.decode(data, type=_Profile)
        except UNREADABLE as error:
            raise Damaged(f"the seccomp profile is damaged: {error}") from error
        self._arch = arch
        self._kernel = kernel
        self._kept: dict[tuple[frozenset[str], bool], dict[str, Any]] = {}

    def compile(self, capabilities: frozenset[str], *, abi32: bool = True) -> dict[str, Any]:
        """`linux.seccomp` for a container with these capabilities. Not to be changed by the caller.
        `abi32`: also for the host's sub-architectures, which costs runc 20 ms per start (measured)."""
        key = capabilities, abi32
        if key not in self._kept:
            self._kept[key] = self._compile(capabilities, abi32=abi32)
        return self._kept[key]

    def _compile(self, capabilities: frozenset[str], *, abi32: bool) -> dict[str, Any]:
        tightened = frozenset(name for names in _ONLY_WITH.values() for name in names)
        rules = []
        for rule in self._profile.syscalls:
            names = [name for name in rule.names if name not in tightened]
            if names and self._applies(rule, capabilities):
                rules.append(_rule(names, rule.action, args=rule.args or (), errno=rule.errnoRet))
        rules += _tightened(capabilities, flags_at=1 if self._arch == "s390x" else 0)
        native = _OCI_ARCH.get(self._arch, "")
        extra = next(
            (a.subArchitectures or () for a in self._profile.archMap if a.architecture == native), ()
        )
        profile: dict[str, Any] = {"defaultAction": self._profile.defaultAction, "syscalls": rules}
        if self._profile.defaultErrnoRet is not None:
            profile["defaultErrnoRet"] = self._profile.defaultErrnoRet
        if native:
            profile["architectures"] = [native, *(extra if abi32 else ())]
        return profile

    def _applies(self, rule: _Rule, capabilities: frozenset[str]) -> bool:
        wanted, unwanted = rule.includes, rule.excludes
        return (
            all(cap in capabilities for cap in wanted.caps)
            and not any(cap in capabilities for cap in unwanted.caps)
            and (not wanted.arches or self._arch in wanted.arches)
            and self._arch not in unwanted.arches
            and (not wanted.minKernel or self._kernel >= _version(wanted.minKernel))
        )


def _tightened(capabilities: frozenset[str], *, flags_at: int) -> Iterator[dict[str, Any]]:
    denied: list[str] = []
    for cap, names in _ONLY_WITH.items():
        if cap and (cap in capabilities or _ALTERNATIVE.get(cap) in capabilities):
            yield _rule(list(names), "SCMP_ACT_ALLOW")
        else:
            denied += [name for name in names if name not in ("clone", "clone3", "socket")]
    yield _rule(denied, "SCMP_ACT_ERRNO", errno=_EPERM)
    if "CAP_SYS_ADMIN" not in capabilities:
        # clone3 takes its flags by pointer, which a filter can't read: libc falls back to clone on ENOSYS.
        yield _rule(["clone3"], "SCMP_ACT_ERRNO", errno=_ENOSYS)
        mask = sum(_CLONE_NEW)
        yield _rule(["clone"], "SCMP_ACT_ALLOW", args=(_arg(flags_at, "MASKED_EQ", mask, 0),))
        for flag in _CLONE_NEW:
            same = _arg(flags_at, "MASKED_EQ", flag, flag)
            yield _rule(["clone"], "SCMP_ACT_ERRNO", args=(same,), errno=_EPERM)
    yield from _sockets(audit="CAP_AUDIT_WRITE" in capabilities)


def _sockets(*, audit: bool) -> Iterator[dict[str, Any]]:
    """All families but AF_ALG and AF_VSOCK, which reach past the namespace; audit netlink by capability.
    Conditions on one argument are alternatives in OCI, so ranges are spelled out."""
    below = _arg(0, "LT", _AF_ALG)
    if audit:
        yield _rule(["socket"], "SCMP_ACT_ALLOW", args=(below,))
    else:
        yield _rule(["socket"], "SCMP_ACT_ALLOW", args=(_arg(0, "LT", _AF_NETLINK),))
        yield _rule(["socket"], "SCMP_ACT_ALLOW", args=(below, _arg(2, "NE", _NETLINK_AUDIT)))
        audit_socket = (_arg(0, "EQ", _AF_NETLINK), _arg(2, "EQ", _NETLINK_AUDIT))
        yield _rule(["socket"], "SCMP_ACT_ERRNO", args=audit_socket, errno=22)
    yield _rule(["socket"], "SCMP_ACT_ALLOW", args=(_arg(0, "EQ", _AF_ALG + 1),))
    yield _rule(["socket"], "SCMP_ACT_ALLOW", args=(_arg(0, "GT", _AF_VSOCK),))
    for family in (_AF_ALG, _AF_VSOCK):
        yield _rule(["socket"], "SCMP_ACT_ERRNO", args=(_arg(0, "EQ", family),), errno=_EPERM)


def _arg(index: int, op: str, value: int, value_two: int = 0) -> _Arg:
    return _Arg(index=index, op=f"SCMP_CMP_{op}", value=value, valueTwo=value_two)


def _rule(
    names: list[str], action: str, *, args: tuple[_Arg, ...] = (), errno: int | None = None
) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": action}
    if args:
        rule["args"] = [
            {"index": a.index, "value": a.value, "valueTwo": a.valueTwo, "op": a.op} for a in args
        ]
    if errno is not None and action == "SCMP_ACT_ERRNO":
        rule["errnoRet"] = errno
    return rule


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)
