"""`flota restore`: a controller out of a backup. `flota follow`: a host's agent goes with its controller."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click

from cli import daemon, keptdaemons
from cli.commands.backup import opened, passphrase_option
from cli.context import out
from cli.daemonoptions import PLACES, PORT
from model.errors import CommandFailed, InUse, InvalidInput
from model.whereabouts import joined, parted

_root, _run = PLACES


@click.command()
@passphrase_option
@click.option("--before-upgrade", is_flag=True, help="No FILE: this host's own state of before an upgrade")
@click.option("--in-place", is_flag=True, help="No FILE: this host's own store.db, which was copied back")
@_root
@_run
@click.argument("file", metavar="FILE|-", required=False, default="")
def restore(
    file: str, passphrase_file: str, before_upgrade: bool, in_place: bool, root: str, run_: str
) -> None:
    """Make this host's controller state of a backup; start it then with `flota up`, or `flota controller`."""
    from controller.backup import restore as state

    if bool(file) + before_upgrade + in_place != 1:
        raise InvalidInput("give the backup's FILE, or --before-upgrade, or --in-place")
    if pid := daemon.alive(run_, "controller"):
        raise InUse(f"a controller runs here (pid {pid})", hint="Restore on another host, or stop it first")
    folder = Path(root) / "controller"
    if before_upgrade:
        done = state.before_upgrade(folder, time.time())
        out(f"The state of before the upgrade is in {folder}; what was there is {done.kept}.")
    elif in_place:
        done = state.in_place(folder, time.time())
        out(f"The state in {folder} is what was copied back; the file as it was is {done.kept}.")
    else:
        backup = opened(file, passphrase_file)
        done = state.restore(backup, folder, time.time())
        told = backup.manifest
        out(f"The state of fleet {told.name} is in {folder}, as of {_moment(told.taken_at)}.")
        if told.address:
            out(f"Hosts look for the controller at {told.address}; if it is elsewhere, on each of them:")
            out("  flota follow ADDRESS:PORT")
    out("Start it: flota up, or flota controller --detach")
    if done.awaited:
        out(f"It then waits for what these hosts know: {', '.join(done.awaited)}.")
        out("  flota fleet settle                 # go on without those that never come")


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


@click.command()
@_root
@_run
@click.argument("controller", metavar="ADDRESS[:PORT]")
def follow(root: str, run_: str, controller: str) -> None:
    """Let this host's agent find its controller at another address. Containers don't notice."""
    import asyncio

    from agent.join import follow as point

    where = joined(*parted(controller, PORT))
    asyncio.run(point(Path(root) / "agent", Path(run_) / "agent", where))
    if keptdaemons.stop(root, run_, ("agent",), for_good=False):
        words = [sys.executable, "-P", "-m", "cli.main", "agent", "--root", root, "--run", run_, "--detach"]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise CommandFailed(f"the agent did not start again: {done.stderr.strip()}")
    out(f"This host's agent follows the controller at {where}.")
