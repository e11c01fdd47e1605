"""What the operator's machine remembers of fleets, and which one its commands are for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cli.context import operators_fleet
from deploy.inventory import Target
from deploy.roster import KnownHost, Roster
from model.errors import InvalidInput

ONE, TWO = "1" * 32, "2" * 32
ADMIN = b'{"address": "192.0.2.1:7420"}'


def known(name: str, ident: str = "a") -> KnownHost:
    return KnownHost(name=name, host_id=ident * 64, target=Target(host=f"{name}.example.org", user="root"))


def test_hosts_are_found_by_name_id_and_how_they_are_reached(tmp_path: Path) -> None:
    roster = Roster(ONE, tmp_path)
    assert roster.hosts() == () and roster.find("web") is None
    roster.remember([known("web"), known("db", "b")])
    for ref in ("web", "a" * 64, "root@web.example.org", "web.example.org"):
        assert roster.find(ref) == known("web"), ref
    assert [host.name for host in roster.hosts()] == ["db", "web"]
    assert Roster(TWO, tmp_path).hosts() == ()


def test_a_host_under_a_new_name_is_remembered_once_and_a_forgotten_one_not_at_all(tmp_path: Path) -> None:
    roster = Roster(ONE, tmp_path)
    roster.remember([known("web"), known("db", "b")])
    roster.remember([known("www")])
    assert [host.name for host in roster.hosts()] == ["db", "www"]
    roster.forget("db")
    assert [host.name for host in roster.hosts()] == ["www"]


def test_credentials_are_for_their_owner_alone_and_the_last_fleet_founded_is_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    home = tmp_path / "flota"
    assert operators_fleet() == ("", "")
    for fleet in (ONE, TWO):
        Roster(fleet).keep_credentials(ADMIN)
        assert (home / "current").resolve() == Roster(fleet).folder
        assert stat.S_IMODE((Roster(fleet).folder / "admin.json").stat().st_mode) == 0o600
    assert operators_fleet() == ("https://192.0.2.1:7420", str(home / "current"))
    Roster(ONE).end()
    assert operators_fleet()[0] and not (Roster(ONE).folder / "admin.json").exists()
    Roster(TWO).end()
    assert operators_fleet() == ("", "")


def test_a_file_that_was_spoilt_is_told_by_its_name_and_kept(tmp_path: Path) -> None:
    roster = Roster(ONE, tmp_path)
    roster.remember([known("web")])
    path = roster.folder / "hosts.json"
    path.write_text("{")
    with pytest.raises(InvalidInput, match=r"hosts\.json"):
        roster.remember([known("db", "b")])
    assert path.read_text() == "{"
