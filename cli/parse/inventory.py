"""Inventory files, and the words of `flota host add`, to the hosts that are meant. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from cli.parse.container import pairs
from cli.parse.yaml12 import parse_yaml
from deploy.inventory import HostWish, Inventory, Target, check, parse_target, wishes
from model.codec import convert_strict
from model.errors import InvalidInput


def parse_inventory(name: str, text: str) -> tuple[HostWish, ...]:
    """Raises InvalidInput, with line or field."""
    return wishes(convert_strict(parse_yaml(name, text), Inventory, name))


def parse_words(
    hosts: Sequence[str],
    controller: str,
    *,
    name: str = "",
    address: str = "",
    label: Sequence[str] = (),
    replace_: bool = False,
    **reached: Any,
) -> tuple[HostWish, ...]:
    """The controller first. Raises InvalidInput."""
    targets = [*([controller] if controller else []), *hosts]
    if (name or address or replace_) and len(targets) != 1:
        raise InvalidInput(
            "--name, --address and --replace are for one host", hint="Name several in an inventory file (-f)"
        )
    found = tuple(
        HostWish(
            target=with_flags(parse_target(text), **reached),
            name=name,
            address=address,
            labels=pairs(label),
            controller=bool(controller) and index == 0,
            replace=replace_,
        )
        for index, text in enumerate(targets)
    )
    check(found)
    return found


def with_flags(
    target: Target, *, identity: Sequence[str] = (), jump: str = "", host_key: Sequence[str] = ()
) -> Target:
    """A target that does not say otherwise. A fingerprint alone is every host's, HOST=SHA256:… that one's."""
    pins = dict(word.rpartition("=")[::2] if "=SHA256:" in word else ("", word) for word in host_key)
    pin = pins.get(str(target)) or pins.get(target.host) or pins.get("", "")
    return replace(
        target,
        identity=target.identity or tuple(identity),
        jump=target.jump or jump,
        host_key=target.host_key or pin,
    )
