"""The tables of fields of Docker's bodies: they know each field of the types, what is refused is named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.docker.bodies import Body, decode
from api.docker.fields import NOTHING, Field, Table
from api.docker.networks import body as networks
from api.docker.swarm import body as swarm
from api.docker.volumes import body as volumes
from model.errors import InvalidInput

BODIES = {
    "networks.create": networks.CREATE,
    "networks.connect": networks.CONNECT,
    "networks.disconnect": networks.DISCONNECT,
    "volumes.create": volumes.CREATE,
    "services": swarm.SPEC,
    "nodes": swarm.NODE_SPEC,
}
TYPES: dict[type[msgspec.Struct], Table] = {
    networks.NetworkBody: networks.CREATE_TABLE,
    networks.IpamWords: networks.IPAM_TABLE,
    networks.PoolWords: networks.POOL_TABLE,
    networks.ConnectBody: networks.CONNECT_TABLE,
    networks.DisconnectBody: networks.DISCONNECT_TABLE,
    volumes.VolumeBody: volumes.CREATE_TABLE,
    swarm.ServiceBody: swarm.SERVICE,
    swarm.TaskWords: swarm.TASK,
    swarm.ContainerWords: swarm.CONTAINER,
    swarm.Privileges: swarm.PRIVILEGES,
    swarm.DnsWords: swarm.DNS,
    swarm.ResourceWords: swarm.RESOURCES,
    swarm.Limits: swarm.LIMITS,
    swarm.Reserved: swarm.RESERVATIONS,
    swarm.RestartWords: swarm.RESTART,
    swarm.PlacementWords: swarm.PLACEMENT,
    swarm.NetworkWords: swarm.NETWORK,
    swarm.DriverWords: swarm.LOG,
    swarm.ReplicatedWords: swarm.REPLICATED,
    swarm.ModeWords: swarm.MODE,
    swarm.UpdateWords: swarm.UPDATE,
    swarm.EndpointWords: swarm.ENDPOINT,
    swarm.PortWords: swarm.PORT,
    swarm.NodeBody: swarm.NODE,
}
READ_TO_REFUSE = {"ReplicatedJob", "GlobalJob"}
"""An empty object asks for something there."""


@pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.__name__)
def test_table_and_type_know_the_same_fields(type_: type[msgspec.Struct]) -> None:
    read = set(type_.__struct_encode_fields__)
    done = {field.name for field in TYPES[type_] if field.state in ("mapped", "partly")}
    left = {field.name for field in TYPES[type_] if field.state in ("refused", "idle")}
    assert done <= read and read <= done | left
    assert all(field.note for field in TYPES[type_] if field.state != "mapped")
    assert read & left <= READ_TO_REFUSE | {"Name"}


def refused(body: Body) -> list[tuple[str, Field]]:
    found = [("", field) for field in body.table if field.state == "refused"]
    for path, table in {**body.parts, **body.items}.items():
        at = f"{path}[]" if path in body.items else path
        found += [(at, field) for field in table if field.state == "refused"]
    return found


CASES = [(name, at, field.name) for name, body in BODIES.items() for at, field in refused(body)]


@pytest.mark.parametrize(("name", "at", "field"), CASES)
def test_refused_field_is_an_error_that_names_it(name: str, at: str, field: str) -> None:
    asked: Any = {field: {"Something": "else"}}
    for part in reversed(at.split(".") if at else []):
        asked = {part.removesuffix("[]"): [asked] if part.endswith("[]") else asked}
    if name == "networks.connect" and at:
        asked |= {"Container": "web"}
    with pytest.raises(InvalidInput) as caught:
        decode(json.dumps(asked).encode(), BODIES[name])
    where = f"{at.replace('[]', '[0]')}.{field}".removeprefix(".")
    assert f"{where}: is not supported" in str(caught.value)


@pytest.mark.parametrize(("name", "at", "field"), CASES)
def test_refused_field_that_asks_for_nothing_is_nothing(name: str, at: str, field: str) -> None:
    for nothing in NOTHING:
        asked: Any = {field: nothing}
        for part in reversed(at.split(".") if at else []):
            asked = {part.removesuffix("[]"): [asked] if part.endswith("[]") else asked}
        try:
            decode(json.dumps(asked).encode(), BODIES[name])
        except InvalidInput as error:  # of another type than the field's, which is all the same to us
            assert "is not supported" not in str(error)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    "data",
    [b"[]", b"1", b'"x"', b"{", b"\xff", b'{"Name": 1}', b'{"Labels": []}', b'{"Container": {}}',
     b'{"Labels": {"a": null}}', b'{"Name": "\\ud800"}', b"[" * 100_000, b'{"TaskTemplate": []}',
     b'{"EndpointSpec": {"Ports": [{"TargetPort": 1e400}]}}', b'{"IPAM": {"Config": [[]]}}',
     b'{"TaskTemplate": {"ForceUpdate": 99999999999999999999999999}}'],
)  # fmt: skip
def test_nonsense_is_one_clear_error_or_nothing(name: str, data: bytes) -> None:
    try:
        decode(data, BODIES[name])
    except InvalidInput as error:
        assert len(str(error)) < 1000
