"""What the proxy of this host serves: one value, one file. Pure.

Whoever publishes ports writes it whole (`net.proxied` makes it), the proxy reads it whole; unknown fields are
ignored, so that a proxy of an older version serves what it understands.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from model.codec import decode_json, encode_json
from model.errors import InvalidInput
from model.spec import Struct
from net.proxy.header import Version
from net.proxy.ranges import Ranges

VERSION = "1"
"""Raise it with a change that a running proxy must not miss: those of other versions are replaced, and their
connections end."""
FOLDER = "proxy"
"""Below the agent's run folder."""
ANY4, ANY6 = "0.0.0.0", "::"  # noqa: S104 - all addresses of one family


class Backend(Struct):
    address: str
    port: int
    among: tuple[str, ...] | None = None
    """Ranges of clients that policies let in there, beside this host itself; None: no policy speaks of it."""


class Port(Struct):
    """A published port. Without backends it is held, and whoever connects is reset."""

    port: int
    header: Version
    host_ip: str = ""
    """Empty: all addresses of the host, of both families."""
    backends: tuple[Backend, ...] = ()
    """Those that take new connections."""
    allow: tuple[str, ...] = ()
    """Ranges of clients; empty: everybody that is not denied."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen."""
        return (self.host_ip,) if self.host_ip else (ANY4, ANY6)


class ProxyState(Struct):
    ports: tuple[Port, ...] = ()
    deny: tuple[str, ...] = ()
    """Ranges of clients that reach no port: containers that nothing but their own network is open to."""


Places = Mapping[tuple[str, int], Port]
"""(address, port) to listen on → what is served there."""


def encode(state: ProxyState) -> bytes:
    return encode_json(state)


def decode(data: bytes) -> ProxyState:
    """Raises InvalidInput, also for addresses and ports that are none."""
    state = decode_json(data, ProxyState, "the proxy's state")
    try:
        for port in state.ports:
            for address in (*port.addresses, *(backend.address for backend in port.backends)):
                ipaddress.ip_address(address)
        for texts in (state.deny, *(port.allow for port in state.ports)):
            Ranges(texts)
        for backend in (backend for port in state.ports for backend in port.backends):
            Ranges(backend.among or ())
    except ValueError as error:
        raise InvalidInput(f"the proxy's state: {error}") from error
    numbers = [n for p in state.ports for n in (p.port, *(b.port for b in p.backends))]
    if not all(0 < number < 65536 for number in numbers):
        raise InvalidInput(f"the proxy's state: a port is out of range: {numbers}")
    return state


def places(state: ProxyState) -> Places:
    """Raises InvalidInput when two ports would listen at one place."""
    found: dict[tuple[str, int], Port] = {}
    for port in state.ports:
        for address in port.addresses:
            if found.setdefault((address, port.port), port) is not port:
                raise InvalidInput(f"the proxy's state: port {port.port} is on {address} twice")
    return found


_TROUBLE = re.compile(r"published port (\d+)/tcp: ")


def trouble(port: int, words: str) -> str:
    """How the verdict tells of a port that is not served."""
    return f"published port {port}/tcp: {words}"


def port_in(trouble: str) -> int:
    """The port that a `trouble` is about; 0: about none."""
    found = _TROUBLE.match(trouble)
    return int(found[1]) if found else 0
