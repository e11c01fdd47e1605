"""Hosts that join a controller over TLS: who gets a new record, and who one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agent import join as enrolling
from agent.join import Enrollment, load
from controller.config import ControllerConfig
from model.codec import encode_json
from model.errors import AlreadyExists, Unauthenticated
from tests.component.test_controller_main import ask, config, running
from tests.support.ports import free_port


class Fleet:
    def __init__(self, settings: ControllerConfig) -> None:
        self.settings = settings

    async def token(self, **words: Any) -> str:
        made = await ask(self.settings, "POST", "/v1/tokens", {"ttl": 60, **words})
        assert isinstance(made, dict)
        return str(made["token"])

    async def join(self, state: Path, name: str, **words: Any) -> Enrollment:
        where = f"127.0.0.1:{self.settings.port}"
        token = await self.token(**words)
        return await enrolling.join(token, where, state=state, name=name, address="127.0.0.1", labels={})


async def test_known_hosts_place_is_for_its_own_key_or_a_token_made_for_it(tmp_path: Path) -> None:
    settings = config(tmp_path, free_port())
    fleet = Fleet(settings)
    async with running(settings):
        first = await fleet.join(tmp_path / "one", "one")
        with pytest.raises(AlreadyExists, match=r"one is in the fleet \(joining\)"):
            await fleet.join(tmp_path / "thief", "one")
        assert not (tmp_path / "thief").exists()

        again = await fleet.join(tmp_path / "one", "one")
        assert again.host_id == first.host_id and again.certificate != first.certificate
        assert load(tmp_path / "one") == again

        (tmp_path / "stolen").mkdir()
        stolen = replace(first, key=again.key)  # a certificate that went over the wire, and another key
        (tmp_path / "stolen" / "enrollment.json").write_bytes(encode_json(stolen))
        with pytest.raises(Unauthenticated, match="does not prove"):
            await fleet.join(tmp_path / "stolen", "one")
        (tmp_path / "stolen" / "enrollment.json").write_bytes(encode_json(first))
        with pytest.raises(AlreadyExists, match="its certificate is not the newest") as refusal:
            await fleet.join(tmp_path / "stolen", "one")  # an older one, as of a host whose join was cut off
        assert "flota token create --replace one" in refusal.value.hint
        way_out = await fleet.join(tmp_path / "stolen", "one", replaces="one")
        assert way_out.host_id == first.host_id and load(tmp_path / "stolen") == way_out

        anew = await fleet.join(tmp_path / "anew", "one", replaces="one")
        assert anew.host_id == first.host_id
        other = await fleet.join(tmp_path / "two", "two")
        assert other.host_id != first.host_id
        with pytest.raises(AlreadyExists, match="this host is two in that fleet"):
            await fleet.join(tmp_path / "two", "three")


async def test_member_of_another_fleet_is_none_of_this_one(tmp_path: Path) -> None:
    one, two = config(tmp_path / "a", free_port()), config(tmp_path / "b", free_port())
    async with running(one):
        await Fleet(one).join(tmp_path / "host", "host")
    async with running(two):
        with pytest.raises(AlreadyExists, match="member of another fleet already"):
            await Fleet(two).join(tmp_path / "host", "host")
