"""Which of a host's links a network on the site's own stands on (`--opt parent=`). Pure.

The same network may stand on differently named links of different hosts: `eth1` is that link, `en*` the
first that fits in alphabetical order, `label:KEY` the link that the host's label KEY names. `eth1.20` is VLAN
20 (IEEE 802.1Q) of eth1; where no link of that name is there, one is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from model.spec import Struct
from model.status import HostFacts, Nic

LABEL = "label:"
_NAME = re.compile(r"[^\s/:.][^\s/:]{0,19}\Z")
_LABEL = re.compile(r"[A-Za-z0-9_./-]{1,128}\Z")
_MAGIC = re.compile(r"[*?\[]")
LAST_VLAN = 4094


class Parent(Struct):
    """A link, or why a host has none."""

    name: str = ""
    refusal: str = ""


def is_parent(text: str) -> bool:
    if text.startswith(LABEL):
        return bool(_LABEL.match(text.removeprefix(LABEL)))
    return bool(_NAME.match(text)) and text != "lo"


def tagged(name: str) -> tuple[str, int]:
    """`eth1.20` → eth1 and 20; 0 where a name means no VLAN."""
    base, dot, number = name.rpartition(".")
    if dot and base and number.isascii() and number.isdigit() and 0 < int(number[:6]) <= LAST_VLAN:
        return base, int(number)
    return name, 0


def parent_of(driver: str, text: str, facts: HostFacts, labels: Mapping[str, str]) -> Parent:
    """The link of a host with these facts and labels that `text` means, for a network of that driver."""
    if driver != "nic" and driver not in facts.link_kinds:
        return Parent(refusal=f"without {driver} in the kernel")
    wanted = text
    if text.startswith(LABEL):
        key = text.removeprefix(LABEL)
        wanted = labels.get(key, "")
        if not _NAME.match(wanted):
            return Parent(refusal=f"without a label {key} that names a link")
    found = _named(wanted, facts.nics)
    if found is not None:
        return Parent(name=found.name) if found.up else Parent(refusal=f"whose link {found.name} is down")
    base, vlan = tagged(wanted)
    below = _named(base, facts.nics) if vlan else None
    if below is None:
        return Parent(refusal=f"without link {wanted}")
    if not below.up:
        return Parent(refusal=f"whose link {below.name} is down")
    if "vlan" not in facts.link_kinds:
        return Parent(refusal=f"without VLANs in the kernel (802.1Q), for {wanted}")
    return Parent(name=f"{below.name}.{vlan}")


def _named(text: str, nics: tuple[Nic, ...]) -> Nic | None:
    """That link, or the first that is up of those that the pattern fits."""
    if not _MAGIC.search(text):
        return next((nic for nic in nics if nic.name == text), None)
    fitting = sorted((not nic.up, nic.name, nic) for nic in nics if fnmatchcase(nic.name, text))
    return fitting[0][2] if fitting else None
