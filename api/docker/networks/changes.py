"""Networks made and removed, and containers put on them and taken off."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import field

from api.docker.containers.creating import created
from api.docker.containers.networks import wish_of
from api.docker.errors import Refusal
from api.docker.networks.body import ConnectBody, DisconnectBody, NetworkBody
from api.docker.networks.listing import prunable
from api.docker.networks.spec import MODES, spec_of
from api.docker.parameters import Filters
from api.docker.route import Call
from model.api import ConnectNetwork, DisconnectNetwork
from model.errors import AlreadyExists, InUse, InvalidInput, NotFound, WrongState
from model.records import Network
from model.spec import EndpointWish, Struct


class Prune(Struct):
    filters: Filters = field(default_factory=dict)


async def create(call: Call) -> web.Response:
    body = call.body_as(NetworkBody)
    if body.name in (*MODES, "bridge", "default"):
        raise Refusal(403, f"operation is not permitted on predefined {body.name} network")
    try:
        info = await call.port.create_network(spec_of(body))
    except AlreadyExists as error:
        if body.name not in {known.network.spec.name for known in call.port.list_networks()}:
            raise  # it is something else of it that is taken
        raise Refusal(409, f"network with name {body.name} already exists") from error
    return created({"Id": info.network.id, "Warning": ""})


async def connect(call: Call) -> web.Response:
    """Returns once the container stands on it, or doesn't run."""
    body = call.body_as(ConnectBody)
    network, ident = _both(call, body.container)
    words = body.endpoint_config
    wish = EndpointWish() if words is None else wish_of(words, network.spec.name)
    try:
        await call.port.connect_network(network.id, ConnectNetwork(container=ident, endpoint=wish))
    except AlreadyExists as error:
        name = call.port.get_instance(ident).instance.name
        words_ = f"endpoint with name {name} already exists in network {network.spec.name}"
        raise Refusal(403, words_) from error
    await _wired(call, ident)
    return web.Response()


async def disconnect(call: Call) -> web.Response:
    body = call.body_as(DisconnectBody)
    network, ident = _both(call, body.container)
    try:
        await call.port.disconnect_network(network.id, DisconnectNetwork(container=ident, force=body.force))
    except NotFound as error:
        words = f"container {ident} is not connected to network {network.spec.name}"
        raise Refusal(403, words) from error
    if not body.force:
        await _wired(call, ident)
    return web.Response()


def _both(call: Call, container: str) -> tuple[Network, str]:
    """The network, and the container's id. Raises NotFound, InvalidInput, Refusal."""
    ref = call.ref()
    if not container:
        raise InvalidInput("no container is named (field Container)")
    if ref in MODES:
        raise Refusal(403, f"a container can't be put on network {ref}, or taken off it, while it lives")
    network = call.port.get_network(ref).network
    return network, call.port.get_instance(container.removeprefix("/")).instance.id


async def _wired(call: Call, ident: str) -> None:
    """Raises WrongState with its host's words where it could not be done."""
    result = await call.port.wait_instance(ident, "wired")
    if result.phase == "running" and result.message:
        raise WrongState(result.message)


async def remove(call: Call) -> None:
    ref = call.ref()
    if ref in MODES:
        raise Refusal(403, f"{ref} is a pre-defined network and cannot be removed")
    network = call.port.get_network(ref).network
    try:
        await call.port.remove_network(network.id)
    except WrongState as error:
        if network.predefined:
            name = network.spec.name
            raise Refusal(403, f"{name} is a pre-defined network and cannot be removed") from error
        raise
    except InUse as error:
        words = (
            f"error while removing network: network {network.spec.name} id {network.id} has active endpoints"
        )
        raise Refusal(403, f"{words}: {error.message}") from error


async def prune(call: Call) -> dict[str, Any]:
    gone = await call.port.prune_networks(prunable(call.query_as(Prune).filters))
    return {"NetworksDeleted": list(gone.removed) or None}
