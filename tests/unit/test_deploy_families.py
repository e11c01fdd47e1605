"""Which packages a host needs, by what it lacks and which distribution it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.families import FAMILIES, FILES, NEEDS, PROGRAMS, family_of, missing, python_package, supply

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("os_id", "like", "name"),
    [
        ("debian", (), "debian"),
        ("ubuntu", ("debian",), "debian"),
        ("pop", ("ubuntu", "debian"), "debian"),
        ("fedora", (), "fedora"),
        ("rhel", ("fedora",), "rhel"),
        ("rocky", ("rhel", "centos", "fedora"), "rhel"),
        ("newel", ("rhel", "fedora"), "rhel"),
        ("alpine", (), "alpine"),
    ],
)
def test_distribution_is_known_by_its_id_or_by_what_it_is_like(
    os_id: str, like: tuple[str, ...], name: str
) -> None:
    family = family_of(os_id, like)
    assert family is not None and family.name == name


def test_host_that_has_everything_needs_nothing() -> None:
    assert missing(PROGRAMS, FILES) == ()
    assert missing(PROGRAMS, (FILES[0], "/usr/share/containers/seccomp.json")) == ()


def test_bare_debian_gets_what_the_machine_of_the_tests_gets() -> None:
    found = supply(family_of("debian"), "12", missing((), (), {"wireguard": "no"}))
    script = f'. {ROOT}/deploy/lib.sh; echo "$FLOTA_PACKAGES"'
    tested = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(found.packages) == set(tested) - {"libnftables1"}, "which nftables brings along"
    assert found.commands[0] == ("apt-get", "update", "-q")
    assert found.commands[1][:2] == ("apt-get", "install")
    assert found.commands[1][-len(found.packages) :] == found.packages
    assert found.environment["DEBIAN_FRONTEND"] == "noninteractive"
    assert not found.lacks and not found.words


def test_wireguard_of_the_kernel_needs_no_package() -> None:
    assert "wireguard-go" not in {need.name for need in missing((), (), {"wireguard": "yes"})}
    assert "wireguard-go" in {need.name for need in missing((), (), {"wireguard": "unknown"})}


def test_only_what_is_missing_is_installed() -> None:
    lacking = missing([p for p in PROGRAMS if p != "conmon"], FILES)
    assert supply(family_of("alpine"), "3.20", lacking).packages == ("conmon",)
    assert supply(family_of("alpine"), "3.20", ()).commands == ()


@pytest.mark.parametrize(
    ("os_id", "version", "package"),
    [
        ("debian", "12", "python3"),
        ("ubuntu", "24.04", "python3"),
        ("ubuntu", "22.04", "python3.11"),
        ("debian", "11", ""),
        ("ubuntu", "20.04", ""),
        ("rocky", "8.10", "python3.11"),
        ("rhel", "9.4", "python3.11"),
        ("almalinux", "10.0", "python3"),
        ("fedora", "43", "python3"),
        ("alpine", "3.22.1", "python3"),
    ],
)
def test_python_comes_from_the_distributions_own_archive(os_id: str, version: str, package: str) -> None:
    family = family_of(os_id)
    assert family is not None
    assert python_package(family, version) == package
    found = supply(family, version, (), python=True)
    assert found.packages == ((package,) if package else ())
    assert [need.name for need in found.lacks] == ([] if package else ["python3.11"])


def test_what_the_distribution_does_not_have_is_named_with_its_purpose() -> None:
    found = supply(family_of("rocky"), "10.1", missing((), (), {}))
    assert {need.name for need in found.lacks} == {"runc", "wireguard-go"}
    assert "runc" not in found.packages and "conmon" in found.packages
    assert "rhel 10.1 has no package for: runc (runs containers)" in found.words
    assert "EPEL" in found.words


def test_distribution_that_nobody_knows_is_told_all_that_is_needed() -> None:
    found = supply(family_of("gentoo"), "", missing(("ip",), ()), python=True)
    assert found.commands == () and found.packages == ()
    assert [need.name for need in found.lacks][:2] == ["python3.11", "runc"]
    assert "does not know this distribution" in found.words
    assert "conmon (holds containers while flota is restarted)" in found.words


def test_every_need_can_be_seen_and_says_what_for() -> None:
    for need in NEEDS:
        assert (need.programs or need.files) and need.why and need.packages
        assert set(need.packages) <= {family.name for family in FAMILIES}
    for family in FAMILIES:
        assert family.python[""] and family.present and family.install[-1] == "--"
