"""What there is not yet: secrets, configs, plugins. Clients are told so, and that none has the name they ask
for."""

from __future__ import annotations

from typing import NoReturn

from api.docker.errors import Refusal
from api.docker.route import Call

_KINDS = {"secrets": "secret", "configs": "config", "plugins": "plugin"}


def _kind(call: Call) -> str:
    return next(part for part in call.request.path.split("/") if part in _KINDS)


async def unsupported(call: Call) -> NoReturn:
    raise Refusal(501, f"{_kind(call)} are not supported by flota yet")


async def missing(call: Call) -> NoReturn:
    """A look at one by its name: none has it. `docker inspect NAME` asks here, too."""
    kind = _kind(call)
    raise Refusal(404, f"{_KINDS[kind]} {call.ref()[:128]} not found: {kind} are not supported by flota yet")
