"""The swarm is the fleet: it can be looked at, and is neither begun nor left by Docker's calls."""

from __future__ import annotations

from typing import Any, NoReturn

from api.docker.errors import Refusal
from api.docker.route import Call
from api.docker.times import moment

NO_TOKEN = "made-by-flota-token-create"  # noqa: S105 (it is none)
"""Stands where clients show a token, so that they lead to where there are any."""


async def inspect(call: Call) -> dict[str, Any]:
    """Join tokens are shown once, when they are made, and by flota's own command alone."""
    fleet, hosts = call.port.info(), call.port.list_hosts()
    began = min((info.host.joined_at for info in hosts), default=0.0)
    return {
        "ID": fleet.fleet_id,
        "Version": {"Index": fleet.revision},
        "CreatedAt": moment(began),
        "UpdatedAt": moment(began),
        "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": {},
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {},
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "TLSInfo": {},
        "RootRotationInProgress": False,
        "DefaultAddrPool": None,
        "SubnetSize": 0,
        "DataPathPort": 0,
        "JoinTokens": {"Worker": NO_TOKEN, "Manager": NO_TOKEN},
    }


async def init(call: Call) -> NoReturn:
    raise Refusal(503, f"This node is already part of a swarm: of the fleet {call.port.info().name}.")


async def join(call: Call) -> NoReturn:
    raise Refusal(
        503,
        f"This node is already part of a swarm: of the fleet {call.port.info().name}. More hosts join it by "
        "`flota join`, with what `flota token create` prints.",
    )


async def leave(call: Call) -> NoReturn:
    raise Refusal(
        503,
        f"This is the endpoint of the fleet {call.port.info().name}, which does not leave itself. Hosts "
        "leave it by `flota node rm`.",
    )


async def update(call: Call) -> NoReturn:
    raise Refusal(
        501,
        "the swarm's own settings are not supported: it is a fleet. `flota settings` changes the fleet's, "
        "`flota token create` makes join tokens.",
    )


async def unlock_key(call: Call) -> dict[str, str]:
    """There is none: nothing is locked."""
    return {"UnlockKey": ""}


async def unlock(call: Call) -> NoReturn:
    raise Refusal(409, "swarm is not locked")


async def no_manager(call: Call) -> NoReturn:
    """In the words by which Docker's clients know an engine that is a worker."""
    raise Refusal(
        503,
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
        "Please run this command on a manager node or promote the current node to a manager. (It is a host's "
        "own socket: services, tasks and nodes are at the fleet's endpoint.)",
    )
