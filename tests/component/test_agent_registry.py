"""A host and the fleet's registry: the certificates that its session lays down are a way in."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import aiohttp
import pytest

from agent.fleetregistry import certificates, trust
from agent.join import Enrollment
from image.registry.client import RegistryClient
from image.registry.endpoints import settings
from model.codec import encode_json
from model.errors import Unauthenticated
from model.registries import NOBODY, Login
from tests.support.servedregistry import controlled

NAME = "192.0.2.1:5000"


def enrolled(state: Path, **changes: str) -> Path:
    state.mkdir(exist_ok=True)
    values = {"certificate": "certificate", "key": "key", "ca": "ca", **changes}
    enrollment = Enrollment(host_id="1" * 64, fleet_id="f", controllers=("https://192.0.2.1:7420",), **values)
    (state / "enrollment.json").write_bytes(encode_json(enrollment))
    return state


def laid(state: Path) -> dict[str, dict[str, str]]:
    folder = certificates(state)
    found = sorted(folder.iterdir()) if folder.exists() else []
    return {entry.name: {path.name: path.read_text() for path in entry.iterdir()} for entry in found}


FILES = {"ca.crt": "ca", "host.cert": "certificate", "host.key": "key"}


def test_certificates_of_the_registry_are_the_hosts_own_and_private(tmp_path: Path) -> None:
    state = enrolled(tmp_path / "state")
    trust(state, NAME)
    assert laid(state) == {NAME: FILES}
    folder = certificates(state)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / NAME)] == [0o700, 0o700]
    assert (folder / NAME / "host.key").stat().st_mode & 0o777 == 0o600


def test_certificates_follow_the_registrys_name_and_the_enrollment(tmp_path: Path) -> None:
    state = enrolled(tmp_path / "state")
    trust(state, NAME)
    made = (certificates(state) / NAME).stat()
    trust(state, NAME)
    assert (certificates(state) / NAME).stat().st_ino == made.st_ino
    enrolled(state, key="new")
    trust(state, NAME)
    assert laid(state) == {NAME: {**FILES, "host.key": "new"}}
    trust(state, "[fd00::1]:5000")
    assert list(laid(state)) == ["[fd00::1]:5000"]
    trust(state, "")
    assert laid(state) == {}


def test_certificates_half_made_are_made_again(tmp_path: Path) -> None:
    state = enrolled(tmp_path / "state")
    for name in (".half", NAME):
        (certificates(state) / name).mkdir(parents=True)
        (certificates(state) / name / "ca.crt").write_text("c")
    trust(state, NAME)
    assert laid(state) == {NAME: FILES}


@pytest.mark.parametrize("name", ["..", "../x:1", "a/b:1", "x", ":1", "a:", "a:b", ".:1", "a\n:1", "a:1\n"])
def test_registrys_name_that_is_none_lays_nothing_down_and_is_told(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = enrolled(tmp_path / "state")
    trust(state, name)
    assert laid(state) == {} and "no HOST:PORT" in caplog.text


def test_host_that_can_not_write_is_told_and_stays_a_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = enrolled(tmp_path / "state")
    certificates(state).write_text("a file in its place")
    trust(state, NAME)
    assert "can't use the fleet's registry" in caplog.text


async def test_host_that_joined_gets_in_by_what_was_laid_down(tmp_path: Path) -> None:
    async with controlled(tmp_path / "fleet") as fleet:
        certificate, key = await fleet.joined("n1")
        ca = (fleet.folder / "ca.crt").read_text()
        state = enrolled(tmp_path / "state", certificate=certificate.read_text(), key=key.read_text(), ca=ca)
        trust(state, fleet.host)
        place = certificates(state) / fleet.host
        context = ssl.create_default_context(cafile=str(place / "ca.crt"))
        context.load_cert_chain(place / "host.cert", place / "host.key")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://{fleet.host}/v2/", ssl=context) as reply,
        ):
            assert (reply.status, json.loads(await reply.read())) == (200, {})
        client = RegistryClient(settings(certificates=(str(certificates(state)),)))
        try:  # the host's own way in, also on loopback
            await client.check_login(fleet.host, NOBODY)
            with pytest.raises(Unauthenticated, match="password is wrong"):
                await client.check_login(fleet.host, Login(user="ci", password="wrong"))
            await client.check_login(fleet.host, Login(user="ci", password=await fleet.token("ci")))
        finally:
            await client.close()
