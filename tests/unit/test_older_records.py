"""Records and messages of older releases are read by this one: what was added has a default (law 10)."""

from __future__ import annotations

import msgspec
import pytest

from controller.snapshot import TYPES
from model import wire
from model.codec import decode_wire, encode_wire
from model.records import FleetSettings
from model.view import View

REQUIRED = {
    "instance": {"id", "name", "spec"},
    "service": {"id", "spec"},
    "host": {"id", "spec", "facts"},
    "network": {"id", "spec"},
    "block": {"network", "cidr", "host"},
    "policy": {"id", "spec"},
    "token": {"id", "secret_hash"},
    "registry-token": {"id", "name"},
    "login": {"id", "registry", "sealed"},
    "settings": set[str](),
}
"""The first release that had a record wrote none without. One more would make its stores unreadable."""


@pytest.mark.parametrize("kind", TYPES)
def test_record_needs_no_more_than_the_first_release_wrote(kind: str) -> None:
    fields = msgspec.structs.fields(TYPES[kind])  # type: ignore[index]
    assert {field.name for field in fields if field.required} == REQUIRED[kind]


def test_settings_of_before_restores_were_known_are_of_a_fleet_that_was_never_restored() -> None:
    found = decode_wire(encode_wire({"id": "fleet", "fleet_id": "f", "revision": 3}), FleetSettings)
    assert (found.recovery, found.restored_at) == (None, 0.0)


def test_welcome_of_an_older_controller_asks_for_nothing() -> None:
    old = {"type": "welcome", "view": View(revision=3), "ping_every": 1.0, "protocol": 4}
    found = wire.decode_controller(encode_wire(old))
    assert isinstance(found, wire.Welcome)
    assert (found.epoch, found.recall) == (0, False)


def test_welcome_of_this_controller_is_read_by_an_agent_that_does_not_know_its_new_words() -> None:
    class Old(msgspec.Struct, tag="welcome"):
        view: View
        ping_every: float
        protocol: int = 1

    new = wire.Welcome(view=View(revision=3), ping_every=1.0, epoch=9, recall=True)
    assert msgspec.msgpack.decode(encode_wire(new), type=Old).view.revision == 3
