"""One provisioning at a time on a host: flock(1) on the host, held by a program that ends with the
connection.

It ends also when nothing is heard from here for a minute, so that an operator whose machine is gone leaves no
lock. What that one had begun on the host may still run then: changes hold a second lock while they go on, and
nobody looks at a host before they have ended.
"""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import AsyncIterator, Sequence

from deploy.transport import Transport
from model.errors import Unavailable, WrongState

LOCK_FILE, CHANGE_FILE = "/run/flota-provision.lock", "/run/flota-change.lock"
PATIENCE = 300
"""Seconds for which a change of a connection that broke is waited for."""
HOLD = r"""command -v flock >/dev/null && command -v timeout >/dev/null || { echo none; exit; }
exec 9>>"$1" || exit
flock -n 9 || { echo "busy $(head -c 200 "$1" | tr -d '\000-\037')"; exit; }
echo "$2" >"$1"
timeout "$4" flock "$3" true || { echo stuck; exit; }
echo held
while timeout 60 sh -c 'read -r _'; do :; done"""

_CHANGE = 'command -v flock >/dev/null && exec flock "$0" "$@"; exec "$@"'

_CHANGING = ("sh", "-c", _CHANGE, CHANGE_FILE)


@contextlib.asynccontextmanager
async def locked(to: Transport) -> AsyncIterator[None]:
    """Raises WrongState, with who is at it, where another one is. A host that has no flock(1) is not
    locked."""
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    words = ["sh", "-c", HOLD, "sh", LOCK_FILE, who, CHANGE_FILE, str(PATIENCE)]
    async with to.held(words, timeout=PATIENCE + 20.0) as said:
        if said.startswith("busy"):
            raise WrongState(
                f"{to.host}: {said.removeprefix('busy ')[:200] or 'somebody'} is provisioning this host now",
                hint="Wait until that is done",
            )
        if said == "stuck":
            raise WrongState(
                f"{to.host}: what was begun there before does not end",
                hint=f"See who holds it: fuser -v {CHANGE_FILE}",
            )
        if said not in ("held", "none"):
            words_ = said[:100] or "no word of why"
            raise Unavailable(f"{to.host}: the lock {LOCK_FILE} can't be had ({words_})")
        yield


def changing(argv: Sequence[str]) -> list[str]:
    """The words of a change: the next one to come waits for its end."""
    return [*_CHANGING, *argv]


def changed_by(argv: Sequence[str]) -> list[str]:
    """The words that `changing` was given; others are as they were."""
    within = tuple(argv[: len(_CHANGING)]) == _CHANGING
    return list(argv[len(_CHANGING) :] if within else argv)
