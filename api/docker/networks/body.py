"""What requests about networks take: Docker's types, and the tables of their fields. Pure.

Source: Docker Engine API 1.51, "NetworkCreateRequest", "NetworkConnectRequest".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from api.docker.bodies import Body, Docker
from api.docker.containers.body import ENDPOINT, EndpointWords
from api.docker.fields import Field, Table, idle, partly, refused


class PoolWords(Docker):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: Mapping[str, str] = {}


class IpamWords(Docker):
    driver: str = ""
    config: tuple[PoolWords, ...] = ()


class NetworkBody(Docker):
    name: str = ""
    driver: str = ""
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = msgspec.field(name="EnableIPv4", default=True)
    enable_ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    ipam: IpamWords = msgspec.field(name="IPAM", default=IpamWords())
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}


class ConnectBody(Docker):
    container: str = ""
    endpoint_config: EndpointWords | None = None


class DisconnectBody(Docker):
    container: str = ""
    force: bool = False


CREATE_TABLE: Table = (
    Field("Name"),
    idle("CheckDuplicate", "names are unique always"),
    partly(
        "Driver",
        "bridge is a network over the whole fleet, as the fleet is one engine to its clients; also overlay, "
        "host-gw, macvlan, ipvlan, nic and those of third parties",
    ),
    idle("Scope", "every network is the fleet's"),
    Field("Internal"),
    partly("Attachable", "every network is"),
    refused("Ingress", "the fleet makes its own when a service publishes a port"),
    refused("ConfigOnly", "flota has nothing like it"),
    refused("ConfigFrom", "flota has nothing like it", {"Network": ""}),
    partly("EnableIPv4", "true"),
    Field("EnableIPv6"),
    Field("IPAM"),
    partly("Options", "those of `flota network create --opt`, by Docker's names too where it has any"),
    Field("Labels"),
)
IPAM_TABLE: Table = (
    partly("Driver", "default, and dhcp on macvlan and nic networks"),
    Field("Config"),
    refused("Options", "the fleet's own address management has none"),
)
POOL_TABLE: Table = (Field("Subnet"), Field("IPRange"), Field("Gateway"), Field("AuxiliaryAddresses"))
CONNECT_TABLE: Table = (Field("Container"), Field("EndpointConfig"))
DISCONNECT_TABLE: Table = (Field("Container"), Field("Force"))

CREATE = Body(
    NetworkBody,
    CREATE_TABLE,
    parts={"IPAM": IPAM_TABLE},
    items={"IPAM.Config": POOL_TABLE},
    optional=False,
)
CONNECT = Body(ConnectBody, CONNECT_TABLE, parts={"EndpointConfig": ENDPOINT}, optional=False)
DISCONNECT = Body(DisconnectBody, DISCONNECT_TABLE, optional=False)
