"""Which hosts are meant, and how they are reached: `user@host:port` words and inventory files. Pure.

The file is YAML (read by `cli.parse.inventory`): settings that hold for all, and a list of hosts that may say
otherwise. Unknown fields are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from model.errors import InvalidInput, Problem
from model.factrules import address_fault, label_problems
from model.spec import Struct
from model.validate import validate_name
from model.whereabouts import joined, parted

SSH_PORT = 22
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?\Z")
_PIN = re.compile(r"SHA256:[A-Za-z0-9+/]{43}\Z")
LOCAL = "local"
"""In place of user@host: the machine that the command runs on."""


class Target(Struct):
    """How a host is reached."""

    host: str
    """Name or address, without brackets; `local`: this machine."""
    user: str = ""
    """Empty: as SSH says (its configuration, or this machine's user)."""
    port: int = 0
    """0: SSH's own."""
    jump: str = ""
    """`user@host:port` that it is reached through."""
    identity: tuple[str, ...] = ()
    """Files of private keys; none: the agent's and the usual ones."""
    host_key: str = ""
    """Fingerprint that the host must show, `SHA256:…`; empty: known_hosts decides."""

    def __str__(self) -> str:
        where = joined(self.host, self.port) if self.port and self.port != SSH_PORT else self.host
        return f"{self.user}@{where}" if self.user else where


class HostWish(Struct):
    """A host as it is wanted."""

    target: Target
    name: str = ""
    """In the fleet; empty: its host name."""
    address: str = ""
    """Where its peers reach it; empty: the address that leads to the controller."""
    labels: Mapping[str, str] = {}
    controller: bool = False
    replace: bool = False
    """It takes the place of the host that the fleet knows by its name."""


class InventoryHost(Struct):
    """An entry of an inventory file."""

    host: str
    """`user@host:port`, user and port optional."""
    controller: bool = False
    name: str = ""
    address: str = ""
    labels: Mapping[str, str] = {}
    host_key: str = ""
    user: str = ""
    port: int = 0
    jump: str = ""
    identity: str = ""


class Inventory(Struct):
    """An inventory file. What it says beside `hosts` holds for those that don't say otherwise."""

    hosts: tuple[InventoryHost, ...]
    user: str = ""
    port: int = 0
    jump: str = ""
    identity: str = ""


def parse_target(text: str) -> Target:
    """`user@host:port` (IPv6 in brackets, `ssh://` before it allowed). Raises InvalidInput."""
    words = text.removeprefix("ssh://")
    user, at, place = words.rpartition("@")
    if (at and not _USER.match(user)) or not place:
        raise _no_target(text)
    try:
        host, port = parted(place, 0)
    except InvalidInput:
        raise _no_target(text) from None
    if not _HOST.match(host):
        raise _no_target(text)
    return Target(host=host, user=user, port=port)


def _no_target(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text[:80]!r} is no host", hint="Write user@host or user@host:port, IPv6 as user@[fd00::1]:22"
    )


def wishes(inventory: Inventory) -> tuple[HostWish, ...]:
    """What a file asks for. Raises InvalidInput with everything that is wrong."""
    found, problems = [], []
    for index, entry in enumerate(inventory.hosts):
        try:
            found.append(_wish(inventory, entry))
        except InvalidInput as error:
            problems.append(Problem(path=f"hosts[{index}]", message=str(error)))
    if problems:
        raise InvalidInput.of("inventory", tuple(problems))
    check(found)
    return tuple(found)


def _wish(inventory: Inventory, entry: InventoryHost) -> HostWish:
    target = parse_target(entry.host)
    identity = entry.identity or inventory.identity
    target = replace(
        target,
        user=target.user or entry.user or inventory.user,
        port=target.port or entry.port or inventory.port,
        jump=entry.jump or inventory.jump,
        identity=(identity,) if identity else (),
        host_key=entry.host_key,
    )
    return HostWish(
        target=target,
        name=entry.name,
        address=entry.address,
        labels=entry.labels,
        controller=entry.controller,
    )


def check(hosts: Iterable[HostWish]) -> None:
    """Raises InvalidInput with everything that is wrong with these together."""
    asked = list(hosts)
    problems = []
    seen_targets: set[str] = set()
    seen_names: set[str] = set()
    for wish in asked:
        where = str(wish.target)
        problems += _target_problems(wish.target, where)
        if wish.name:
            problems += validate_name("host", wish.name, f"{where}: name")
        problems += label_problems(wish.labels, f"{where}: labels")
        if wish.address and (fault := address_fault(wish.address)):
            problems.append(Problem(path=f"{where}: address", message=fault))
        if where in seen_targets:
            problems.append(Problem(path=where, message="it is named twice"))
        if wish.name and wish.name in seen_names:
            problems.append(Problem(path=where, message=f"another host is named {wish.name} too"))
        seen_targets.add(where)
        seen_names.add(wish.name)
    if not asked:
        raise InvalidInput("no host is named", hint="Name some as user@host, or a file of them (-f)")
    if sum(wish.controller for wish in asked) > 1:
        problems.append(Problem(path="", message="one host is the controller, not several"))
    if problems:
        raise InvalidInput.of("hosts", tuple(problems))


def _target_problems(target: Target, where: str) -> list[Problem]:
    problems = []
    if target.host_key and not _PIN.match(target.host_key):
        words = f"{target.host_key[:80]!r} is no fingerprint: write SHA256:… as `ssh-keygen -l` prints it"
        problems.append(Problem(path=f"{where}: host_key", message=words))
    if not 0 <= target.port <= 65535:
        problems.append(Problem(path=f"{where}: port", message=f"{target.port} is no port"))
    if target.jump:
        try:
            parse_target(target.jump)
        except InvalidInput as error:
            problems.append(Problem(path=f"{where}: jump", message=error.message))
    return problems
