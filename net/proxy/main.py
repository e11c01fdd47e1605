"""The proxy's process: `python -m net.proxy FOLDER`, in the host's namespaces, detached from the agent.

FOLDER is its place (`net.supervise.files`). It imports neither netlink nor HTTP.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from net.proxy.listen import MOST_CONNECTIONS, Listeners
from net.proxy.serve import Proxy
from net.proxy.state import VERSION
from net.supervise import drop
from net.supervise.place import Place, run_until_signalled

MOST_FILES, FILES_OF_ONE = 1 << 16, 6
"""Two sockets for each connection, and two pipes while both its directions are held up."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 at SIGTERM, 1 when it can't start, 2 for wrong words."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if len(words) != 1:
        sys.stderr.write("usage: python -m net.proxy FOLDER\n")
        return 2
    try:
        place = Place(words[0], VERSION)
    except BlockingIOError:
        sys.stderr.write(f"flota: a proxy serves {words[0]} already\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"flota: the proxy cannot start in {words[0]}: {error.strerror}\n")
        return 1

    async def serve() -> None:
        listeners = Listeners()

        def ready() -> None:
            files = drop.become(drop.PROXY, drop.CAP_NET_BIND_SERVICE, files=MOST_FILES)
            listeners.most = min(MOST_CONNECTIONS, files // FILES_OF_ONE)

        await Proxy(place, listeners).run(ready)

    try:
        run_until_signalled(serve())
    except OSError as error:
        sys.stderr.write(f"flota: the proxy in {words[0]} ended: {error}\n")
        return 1
    return 0
