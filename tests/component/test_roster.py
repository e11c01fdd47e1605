"""What the operator's machine remembers of fleets, and which one its commands are for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from api import client
from cli import daemonoptions
from cli.commands.hostwork import chosen
from cli.context import App, operators_fleet
from cli.main import run
from deploy.inventory import Target
from deploy.roster import KnownHost, Roster
from model.errors import Ambiguous, InvalidInput, Unavailable

ONE, TWO = "1" * 32, "2" * 32
ADMIN = b'{"address": "192.0.2.1:7420"}'


class Silent(App):
    """Of a controller that does not answer."""

    def call(self, method: str, path: str, /, **words: object) -> object:
        raise Unavailable("nobody answers")


class Agents(App):
    """A host's own."""

    def call(self, method: str, path: str, /, **words: object) -> object:
        return {"hostname": "n1", "release": "2-new"}


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


def test_two_hosts_at_one_address_are_told_apart_or_not_taken_for_each_other(tmp_path: Path) -> None:
    roster = Roster(ONE, tmp_path)
    one, two = (
        replace(known(name, ident), target=Target(host="gate", port=port))
        for name, ident, port in (("web", "a", 2201), ("db", "b", 2202))
    )
    roster.remember([one, two])
    assert (roster.find("gate:2201"), roster.find("gate:2202")) == (one, two)
    with pytest.raises(Ambiguous, match="db, web"):
        roster.find("gate")


def test_a_host_that_says_it_is_another_known_one_does_not_take_its_place(tmp_path: Path) -> None:
    roster = Roster(ONE, tmp_path)
    web, db = known("web"), known("db", "b")
    roster.remember([web, db])
    liar = replace(web, target=replace(db.target, user="ana"))
    assert roster.remember([liar, known("new", "c")]) == (liar,)
    assert roster.find("web") == web and roster.find("db") == db and roster.find("new")
    moved = replace(web, target=Target(host="192.0.2.9"))
    assert roster.remember([moved]) == () and roster.find("web") == moved


@pytest.mark.parametrize("spoilt", ["../../../etc", "/dev/null/ab", "", "..", "F" * 32])
def test_a_fleet_whose_id_is_none_gets_no_folder(tmp_path: Path, spoilt: str) -> None:
    home = tmp_path / "a" / "b" / "c"
    with pytest.raises(InvalidInput, match="no id of a fleet"):
        Roster(spoilt, home).keep_credentials(ADMIN)
    assert list(tmp_path.iterdir()) == []


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


def test_hosts_are_not_added_to_no_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("FLOTA_HOST", "FLOTA_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        client, "DEFAULT_ENDPOINTS", (f"unix://{tmp_path}/none",)
    )  # this machine may have one
    assert run(["host", "add", "root@192.0.2.1"]) == 1
    assert "knows of no fleet" in (said := capsys.readouterr().err) and "--controller" in said


def test_only_the_fleet_that_commands_are_for_is_gone_by_when_its_controller_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("FLOTA_HOST", raising=False)
    monkeypatch.setattr(client, "DEFAULT_ENDPOINTS", (f"unix://{tmp_path}/none",))
    roster = Roster(ONE)
    roster.keep_credentials(ADMIN)
    roster.remember([known("web")])
    flags = {"identity": "", "jump": "", "host_key": ()}
    for same in ("https://192.0.2.1:7420", ""):
        assert [one.name for one in chosen(Silent(same), (), True, flags)] == ["web"]
    assert "going by what this machine remembers" in capsys.readouterr().err
    for other in (f"unix://{tmp_path}/none", "https://192.0.2.2:7420"):
        with pytest.raises(Unavailable):
            chosen(Silent(other), (), True, flags)


def test_socket_of_an_agent_is_no_controller_but_on_the_controllers_own_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(daemonoptions, "ROOT", str(tmp_path / "root"))
    endpoint = f"unix://{tmp_path}/agent.sock"
    monkeypatch.setattr(client, "DEFAULT_ENDPOINTS", (f"unix://{tmp_path}/none", endpoint))
    Roster(ONE).keep_credentials(ADMIN)
    Roster(ONE).remember([known("web")])
    flags = {"identity": "", "jump": "", "host_key": ()}
    app = Agents(endpoint)
    with pytest.raises(Unavailable, match="is a host's agent"):
        chosen(app, (), True, flags)
    admin = tmp_path / "root/controller/admin.json"
    admin.parent.mkdir(parents=True)
    admin.write_text(f'{{"fleet_id": "{TWO}"}}')
    with pytest.raises(Unavailable):
        chosen(app, (), True, flags)
    admin.write_text(f'{{"fleet_id": "{ONE}"}}')
    assert [one.name for one in chosen(app, (), True, flags)] == ["web"]
    assert app.client.endpoint == "https://192.0.2.1:7420"


def test_a_file_that_was_spoilt_is_told_by_its_name_and_kept(tmp_path: Path) -> None:
    roster = Roster(ONE, tmp_path)
    roster.remember([known("web")])
    path = roster.folder / "hosts.json"
    path.write_text("{")
    with pytest.raises(InvalidInput, match=r"hosts\.json"):
        roster.remember([known("db", "b")])
    assert path.read_text() == "{"
