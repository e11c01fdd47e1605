"""Routes of networks, and of containers' places on them."""

from __future__ import annotations

from msgspec.structs import replace

from api.fanout import each, hosts_for
from api.filters import filter_networks, network_chooser
from api.routes import query as q
from api.routes.route import ControllerCall
from model.api import ConnectNetwork, DisconnectNetwork, InstanceInfo, NetworkInfo, NetworksPruned
from model.doctor import CheckUp, HostCheck
from model.leases import HostLeases, NetworkLeases, counted
from model.spec import NetworkSpec


async def list_(call: ControllerCall) -> list[NetworkInfo]:
    return filter_networks(call.port.list_networks(), call.query_as(q.Filtered).filter)


async def get(call: ControllerCall) -> NetworkInfo:
    """Hosts that have a share of it are asked for what they alone know of its addresses."""
    info = call.port.get_network(call.ref())
    shares = {block.host for block in info.usage}
    hosts = [(host, name) for host, name in call.port.ready_hosts() if name in shares]
    outcome = await each(call.port, hosts, "GET", "/v1/networks/leases", HostLeases)
    told = {name: leases.networks.get(info.network.id, NetworkLeases()) for name, leases in outcome.replies}
    return replace(info, usage=counted(info.usage, told))


async def create(call: ControllerCall) -> NetworkInfo:
    return await call.port.create_network(call.body_as(NetworkSpec))


async def rotate_keys(call: ControllerCall) -> NetworkInfo:
    return await call.port.rotate_keys(call.ref())


async def remove(call: ControllerCall) -> None:
    await call.port.remove_network(call.ref())


async def prune(call: ControllerCall) -> NetworksPruned:
    return await call.port.prune_networks(network_chooser(call.query_as(q.Filtered).filter))


async def doctor(call: ControllerCall) -> CheckUp:
    """Every ready host examines itself at the same time; those that can't are findings too."""
    hosts = hosts_for(call.port, "")
    outcome = await each(call.port, hosts, "POST", "/v1/networks/doctor", HostCheck)
    failed = {name: error.message for name, error in outcome.errors}
    found = call.port.diagnose([check for _, check in outcome.replies], failed)
    return found if call.query_as(q.Doctor).ways else replace(found, ways=())


async def connect(call: ControllerCall) -> InstanceInfo:
    return await call.port.connect_network(call.ref(), call.body_as(ConnectNetwork))


async def disconnect(call: ControllerCall) -> InstanceInfo:
    return await call.port.disconnect_network(call.ref(), call.body_as(DisconnectNetwork))
