"""One provisioning at a time on a host: flock(1) on the host, held by a program that ends with the
connection.

It ends also when nothing is heard from here for a minute, so that an operator whose machine is gone leaves no
lock.
"""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import AsyncIterator

from deploy.transport import Transport
from model.errors import Unavailable, WrongState

LOCK_FILE = "/run/flota-provision.lock"
DEADLINE = 20.0
HOLD = r"""command -v flock >/dev/null && command -v timeout >/dev/null || { echo none; exit; }
exec 9>>"$1" || exit
flock -n 9 || { echo "busy $(head -c 200 "$1" | tr -d '\000-\037')"; exit; }
echo "$2" >"$1"
echo held
while timeout 60 sh -c 'read -r _'; do :; done"""


@contextlib.asynccontextmanager
async def locked(to: Transport) -> AsyncIterator[None]:
    """Raises WrongState, with who is at it, where another one is. A host that has no flock(1) is not
    locked."""
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    async with to.held(["sh", "-c", HOLD, "sh", LOCK_FILE, who], timeout=DEADLINE) as said:
        if said.startswith("busy"):
            raise WrongState(
                f"{to.host}: {said.removeprefix('busy ')[:200] or 'somebody'} is provisioning this host now",
                hint="Wait until that is done",
            )
        if said not in ("held", "none"):
            raise Unavailable(
                f"{to.host}: the lock {LOCK_FILE} can't be had ({said[:100] or 'no word of why'})"
            )
        yield
