"""The seccomp filter: conversion of the distribution's format, and what was tightened."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.oci.seccomp import SeccompPolicy
from model.errors import Damaged

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
PROFILE: dict[str, Any] = {
    "defaultAction": ERRNO,
    "defaultErrnoRet": 38,
    "defaultErrno": "ENOSYS",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read", "mount", "clone", "unshare", "clone3", "keyctl"], "action": ALLOW, "args": []},
        {"names": ["chroot"], "action": ALLOW, "includes": {"caps": ["CAP_SYS_CHROOT"]}, "excludes": {}},
        {"names": ["chroot"], "action": ERRNO, "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
        {"names": ["arch_prctl"], "action": ALLOW, "includes": {"arches": ["amd64"]}},
        {"names": ["breakpoint"], "action": ALLOW, "includes": {"arches": ["arm"]}},
        {"names": ["ptrace"], "action": ALLOW, "includes": {"minKernel": "4.8"}},
        {"names": ["socket"], "action": ALLOW, "args": None},
    ],
}


def policy(kernel: tuple[int, int] = (6, 1), arch: str = "amd64") -> SeccompPolicy:
    return SeccompPolicy(json.dumps(PROFILE).encode(), arch=arch, kernel=kernel)


def verdicts(filter: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    return [(r["action"], r.get("errnoRet")) for r in filter["syscalls"] if name in r["names"]]


def test_seccomp_rules_follow_capability_arch_and_kernel() -> None:
    with_chroot = policy().compile(frozenset({"CAP_SYS_CHROOT"}))
    assert verdicts(with_chroot, "chroot") == [(ALLOW, None)]
    assert verdicts(policy().compile(frozenset()), "chroot") == [(ERRNO, 1)]
    assert verdicts(with_chroot, "arch_prctl") == [(ALLOW, None)]
    assert verdicts(with_chroot, "breakpoint") == []
    assert verdicts(with_chroot, "ptrace") == [(ALLOW, None)]
    assert verdicts(policy((4, 7)).compile(frozenset()), "ptrace") == []
    assert with_chroot["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert (with_chroot["defaultAction"], with_chroot["defaultErrnoRet"]) == (ERRNO, 38)


def test_seccomp_namespaces_and_mounts_need_sys_admin() -> None:
    plain = policy().compile(frozenset())
    assert verdicts(plain, "mount") == verdicts(plain, "unshare") == verdicts(plain, "keyctl") == [(ERRNO, 1)]
    assert verdicts(plain, "clone3") == [(ERRNO, 38)]
    clone = [r for r in plain["syscalls"] if "clone" in r["names"]]
    assert clone[0]["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    assert [r["action"] for r in clone] == [ALLOW] + [ERRNO] * 7
    admin = policy().compile(frozenset({"CAP_SYS_ADMIN"}))
    for name in ("mount", "unshare", "clone", "clone3"):
        assert verdicts(admin, name) == [(ALLOW, None)]
    assert verdicts(admin, "keyctl") == [(ERRNO, 1)]


def test_seccomp_clone_flags_are_second_on_s390x() -> None:
    rules = policy(arch="s390x").compile(frozenset())["syscalls"]
    assert {r["args"][0]["index"] for r in rules if "clone" in r["names"]} == {1}


@pytest.mark.parametrize("caps", [frozenset(), frozenset({"CAP_AUDIT_WRITE"})])
@pytest.mark.parametrize("family", range(46))
def test_seccomp_sockets_all_families_but_two(caps: frozenset[str], family: int) -> None:
    rules = [r for r in policy().compile(caps)["syscalls"] if r["names"] == ["socket"]]
    compare = {"LT": int.__lt__, "GT": int.__gt__, "EQ": int.__eq__, "NE": int.__ne__}

    def allowed(protocol: int) -> bool:
        call = {0: family, 1: 1, 2: protocol}
        return any(
            rule["action"] == ALLOW
            and all(
                compare[a["op"].removeprefix("SCMP_CMP_")](call[a["index"]], a["value"]) for a in rule["args"]
            )
            for rule in rules
        )

    assert allowed(0) == (family not in (38, 40))
    if family == 16:
        assert allowed(9) == bool(caps)


def test_seccomp_without_32_bit_abi_knows_one_architecture() -> None:
    assert policy().compile(frozenset(), abi32=False)["architectures"] == ["SCMP_ARCH_X86_64"]


def test_seccomp_equal_sets_share_one_filter() -> None:
    kept = policy()
    assert kept.compile(frozenset({"CAP_CHOWN"})) is kept.compile(frozenset({"CAP_CHOWN"}))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"syscalls": 1}', b"\xff"])
def test_seccomp_damaged_profile_is_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        SeccompPolicy(data, arch="amd64", kernel=(6, 1))
