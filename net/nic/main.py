"""`python -m net.nic FOLDER move WISH | return BRIDGE | recover BRIDGE`: a change to one link, apart from the
agent.

A child does the work; its parent waits and puts back what a child that was killed left. Both outlive the
agent. Invariant: should both be killed, the journal tells the agent's next start what to put back.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from model.codec import decode_json
from model.errors import FlotaError
from net.nic import files, transaction
from net.nic.shift import Links
from net.nic.state import Wish
from net.supervise import cgroup, drop

log = logging.getLogger("flota.nic")

CAP_NET_ADMIN, CAP_NET_RAW = 12, 13
NOTE = "processes-cgroup"
"""File beside the folder that names the cgroup of what outlives the agent."""
USAGE = "usage: python -m net.nic FOLDER move WISH | return BRIDGE | recover BRIDGE\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, and the journal says how it ended; 1 when something failed, in words on standard
    error; 2 for wrong words."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if len(words) != 3 or words[1] not in ("move", "return", "recover"):
        sys.stderr.write(USAGE)
        return 2
    folder, action, what = words
    try:
        _apart(folder)
        drop.confine(CAP_NET_ADMIN, CAP_NET_RAW)
        wish = decode_json(what.encode(), Wish, "the wish") if action == "move" else None
        bridge = what if wish is None else wish.bridge
        with files.locked(folder, bridge):
            if action == "return":
                _watched(folder, bridge, lambda: transaction.give_back(folder, bridge))
            elif not transaction.recover(folder, bridge) and wish is not None:
                _watched(folder, bridge, lambda: _move(folder, wish))
        return 0
    except (FlotaError, OSError) as error:
        log.error("%s", error)
        return 1


def _watched(folder: str, bridge: str, change: Callable[[], None]) -> None:
    """In a child; whatever ends it, the link is in one state or the other."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            change()
            code = 0
        except Exception as error:  # whatever it was, the parent puts it right
            log.exception("%s", error)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status != 0:
        log.error("the change of %s was interrupted (%s)", bridge, os.waitstatus_to_exitcode(status))
        transaction.recover(folder, bridge)


def _move(folder: str, wish: Wish) -> None:
    links = Links()
    try:
        transaction.move(links, folder, wish)
    finally:
        links.close()


def _apart(folder: str) -> None:
    """Leave the agent's cgroup, so that whoever ends it whole does not meet us."""
    try:
        with open(os.path.join(os.path.dirname(folder), NOTE)) as file:
            path = file.read().strip()
    except FileNotFoundError:
        return
    for trouble in cgroup.join(path):
        log.warning("%s", trouble)
