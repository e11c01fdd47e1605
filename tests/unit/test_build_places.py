"""Which host builds, and why that one."""

from __future__ import annotations

import pytest

from controller.buildplace import Builder, choose, named
from model.errors import Unavailable
from model.ids import HostId
from model.status import Platform

ARM = Platform(arch="arm64")
HOSTS = [
    Builder(
        host=HostId(f"{n:064x}"), name=f"n{n}", nano_cpus=4_000_000_000, platform=ARM if n > 8 else Platform()
    )
    for n in range(1, 11)
]
CONTEXTS = [f"context {n}" for n in range(200)]


def changed(name: str, **fields: object) -> list[Builder]:
    return [type(h)(**{**{f: getattr(h, f) for f in h.__struct_fields__}, **fields})
            if h.name == name else h for h in HOSTS]  # fmt: skip


def test_builds_of_one_context_go_to_one_host_in_whatever_order_hosts_are_told() -> None:
    for context in CONTEXTS:
        one = choose(HOSTS, fleet="f", context=context)
        assert one == choose(reversed(HOSTS), fleet="f", context=context)
        assert "cache" in one.why


def test_builds_of_many_contexts_are_spread() -> None:
    names = {choose(HOSTS, fleet="f", context=context).name for context in CONTEXTS}
    assert names == {h.name for h in HOSTS}


def test_host_that_goes_moves_only_its_own_builds() -> None:
    for context in CONTEXTS:
        before = choose(HOSTS, fleet="f", context=context)
        after = choose([h for h in HOSTS if h.name != "n4"], fleet="f", context=context)
        assert (before.name == "n4") != (before.host == after.host)


def test_busy_host_is_passed_over_and_named() -> None:
    usual = choose(HOSTS, fleet="f", context="x")
    other = choose(changed(usual.name, builds=2), fleet="f", context="x")
    assert (
        other.host != usual.host
        and f"{usual.name}, the usual one for this context, runs 2 builds" in other.why
    )
    same = choose(changed(usual.name, builds=1), fleet="f", context="x")
    assert same.host == usual.host


def test_fleet_that_is_busy_all_over_takes_the_least_busy() -> None:
    busy = [type(h)(host=h.host, name=h.name, builds=5 if h.name != "n7" else 4) for h in HOSTS]
    choice = choose(busy, fleet="f", context="x")
    assert choice.name == "n7" and choice.why == "all are busy, it least"


def test_hosts_that_take_no_new_work_are_left_out() -> None:
    usual = choose(HOSTS, fleet="f", context="x")
    assert choose(changed(usual.name, active=False), fleet="f", context="x").host != usual.host
    paused = [type(h)(host=h.host, name=h.name, active=False) for h in HOSTS]
    with pytest.raises(Unavailable, match="no ready host takes new work"):
        choose(paused, fleet="f", context="x")
    with pytest.raises(Unavailable, match="no host is ready"):
        choose([], fleet="f", context="x")


def test_platform_is_built_by_a_host_that_runs_it() -> None:
    for context in CONTEXTS:
        choice = choose(HOSTS, fleet="f", context=context, platform=ARM)
        assert choice.name in ("n9", "n10") and "of those that run linux/arm64" in choice.why
    foreign = choose(HOSTS, fleet="f", context="x", platform=Platform(arch="riscv64"))
    assert "no host runs linux/riscv64 by itself" in foreign.why


def test_named_host_is_taken_or_said_to_be_away() -> None:
    assert named(HOSTS, HOSTS[2].host, "n3").name == "n3"
    with pytest.raises(Unavailable, match="host n3 is not ready"):
        named(HOSTS[:2], HOSTS[2].host, "n3")
