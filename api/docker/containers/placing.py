"""Where a container is to run, as Docker's clients can say it: by labels, or by variables. Pure.

label flota.node=NAME                     on that host
label flota.constraints=A==b,C!=d         as `flota run --constraint`, comma separated
variable constraint:node==NAME            on that host (classic Swarm); other keys are labels of hosts
header X-PortainerAgent-Target: NAME      on that host
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from model.errors import InvalidInput
from model.spec import Placement, Reservations, Struct

NODE = "flota.node"
CONSTRAINTS = "flota.constraints"
_NONE = Reservations()
_VARIABLE = re.compile(r"constraint:([A-Za-z0-9_./-]+)(==|!=)~?(.+)\Z")


class Wish(Struct):
    env: tuple[str, ...]
    """Without those that are about the place."""
    placement: Placement
    host: str = ""


def place_of(
    env: Iterable[str], labels: Mapping[str, str], node: str, reserved: Reservations = _NONE
) -> Wish:
    """`node`: of the request's header. Raises InvalidInput where two hosts are named."""
    hosts = {name for name in (node, labels.get(NODE, "")) if name}
    constraints = [text.strip() for text in labels.get(CONSTRAINTS, "").split(",") if text.strip()]
    kept: list[str] = []
    for entry in env:
        match = _VARIABLE.match(entry)
        if match is None:
            kept.append(entry)
        elif match[1] == "node" and match[2] == "==":
            hosts.add(match[3])
        else:
            key = "node.hostname" if match[1] == "node" else f"node.labels.{match[1]}"
            constraints.append(f"{key}{match[2]}{match[3]}")
    if len(hosts) > 1:
        raise InvalidInput(f"two hosts are asked for: {', '.join(sorted(hosts))}")
    placement = Placement(constraints=tuple(constraints), reservations=reserved)
    return Wish(env=tuple(kept), placement=placement, host=next(iter(hosts), ""))
