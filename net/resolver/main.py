"""The resolver's process: `python -m net.resolver FOLDER`, in the host's namespaces, detached from the agent.

FOLDER is its place (`net.supervise.files`). Options: `--port N`, `--upstream-port N`, `--resolv-conf FILE`.
It starts in a tenth of a second and imports neither netlink nor HTTP.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from net.resolver.hostconf import HostServers
from net.resolver.serve import Resolver
from net.resolver.state import VERSION
from net.supervise import drop
from net.supervise.place import Place, run_until_signalled

MOST_FILES = 8192
"""Sockets: four for each of the forwarder's flights, and connections."""
OPTIONS = ("--port", "--upstream-port", "--resolv-conf")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 at SIGTERM, 1 when it can't start, 2 for wrong words."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options: dict[str, str] = {}
    while len(words) > 2 and words[-2] in OPTIONS:
        options[words[-2]] = words[-1]
        del words[-2:]
    numbers = [options.get(option, "53") for option in OPTIONS[:2]]
    if len(words) != 1 or not all(number.isdecimal() for number in numbers):
        sys.stderr.write(f"usage: python -m net.resolver FOLDER [{' VALUE] ['.join(OPTIONS)} VALUE]\n")
        return 2
    try:
        place = Place(words[0], VERSION)
    except BlockingIOError:
        sys.stderr.write(f"flota: a resolver serves {words[0]} already\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"flota: the resolver cannot start in {words[0]}: {error.strerror}\n")
        return 1
    host = HostServers(options.get("--resolv-conf", "/etc/resolv.conf"))
    host.servers()  # once while we may read everything
    resolver = Resolver(place, host=host, port=int(numbers[0]), upstream_port=int(numbers[1]))

    def ready() -> None:
        drop.become(drop.RESOLVER, drop.CAP_NET_BIND_SERVICE, files=MOST_FILES)

    try:
        run_until_signalled(resolver.run(ready))
    except OSError as error:
        sys.stderr.write(f"flota: the resolver in {words[0]} ended: {error}\n")
        return 1
    return 0
