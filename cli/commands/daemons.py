"""`flota up`, `join`, `down`: this host in a fleet; `flota controller` and `agent`: the daemons themselves.

Only here the command line loads `agent` and `controller`, and only when one of these commands runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cli import daemon, keptdaemons, remembered
from cli.context import out
from cli.daemonoptions import AGENT, CONTROLLER, DRIVERS, LOG, PEER_PORT, PLACES, PORT, options
from cli.daemonwords import advertised, agent_words, controller_words
from cli.parse.container import pairs
from model.errors import AlreadyExists, Forbidden, InvalidInput
from model.quantity import parse_rate
from model.whereabouts import joined, parted

if TYPE_CHECKING:
    from agent.config import AgentConfig
    from controller.config import ControllerConfig

DAEMONS = ("agent", "controller")


@click.command()
@options(PLACES, AGENT, CONTROLLER, DRIVERS, LOG)
@click.option("--replace", is_flag=True, help="This host takes the place of the one of its name that is gone")
def up(root: str, run_: str, replace: bool, **flags: Any) -> None:
    """Start a fleet on this host: a controller and an agent, nothing else needed."""
    _need_root()
    flags = _in_force(root, flags)
    _start_controller(root, run_, flags)
    if not os.path.exists(f"{root}/agent/enrollment.json"):
        token = _own_token(f"unix://{run_}/flota.sock", flags["name"], replace)
        _enroll(root, token, f"127.0.0.1:{flags['port'] or PORT}", flags)
        remembered.store(root, flags)
    _start_agent(root, run_, flags)
    remembered.store(root, flags)
    out(f"The fleet is up: controller and agent run on this host ({keptdaemons.logs(root, run_)}).")
    out("")
    out("  flota node ls                      # the hosts")
    out("  flota run -it --rm IMAGE sh        # a container")
    out("  flota token create                 # what to type on another host to make it join")
    out(f"  docker context create flota --docker host=unix://{run_}/docker.sock")


@click.command()
@options(PLACES, AGENT, DRIVERS, LOG)
@click.argument("token")
@click.argument("controller", metavar="ADDRESS:PORT")
def join(root: str, run_: str, token: str, controller: str, **flags: Any) -> None:
    """Make this host a member of a fleet, by a token of `flota token create`; TOKEN `-`: from standard
    input. One that is a member of that fleet gets a new certificate: its key says who it is."""
    _need_root()
    from pathlib import Path

    from agent.join import known, parse_token

    if token == "-":  # noqa: S105 - no password
        token = sys.stdin.readline().strip()
    parse_token(token)
    flags = _in_force(root, flags)
    before, stopped = known(Path(root) / "agent", token), []
    if before is not None:
        flags["name"] = flags["name"] or before.name
        stopped = keptdaemons.stop(root, run_, ("agent",), for_good=False)
    try:
        _enroll(root, token, joined(*parted(controller, PORT)), flags)
    except BaseException:
        if stopped:  # it is the member that it was, with what it was told before
            never = {key: type(flags[key])() for key in said(click.get_current_context()) & flags.keys()}
            _start_agent(root, run_, {**flags, **never, **remembered.load(root)})
        raise
    remembered.store(root, flags)
    _start_agent(root, run_, flags)
    out("This host has joined the fleet.")


@click.command()
@options(PLACES)
@click.option(
    "--purge", is_flag=True, help="Remove all containers, networks, images, volumes and state of this host"
)
@click.option(
    "--keep-volumes", is_flag=True, help="Purge all but volumes; a later agent here finds them again"
)
@click.option(
    "--only", default="", type=click.Choice(["", *DAEMONS]), metavar="DAEMON", help="This one alone"
)
def down(root: str, run_: str, purge: bool, keep_volumes: bool, only: str) -> None:
    """Stop the daemons of this host; containers go on running, unless purged."""
    _need_root()
    if keep_volumes and not purge:
        raise InvalidInput("--keep-volumes is about a purge", hint="Nothing is removed without --purge")
    if only and purge:
        raise InvalidInput("what is purged is all of it", hint="Leave out --only")
    stopped = keptdaemons.stop(root, run_, (only,) if only else DAEMONS, for_good=purge)
    words = ""
    if purge:
        from agent.purge import purge as remove_everything

        kept = f"{root}/agent/volumes" if keep_volumes and os.path.isdir(f"{root}/agent/volumes") else ""
        remove_everything(f"{root}/agent", f"{run_}/agent", kept)
        for folder in (root, run_):
            _empty(folder, kept)
        words = f"; everything removed but {kept}" if kept else "; everything removed"
    out(f"stopped: {', '.join(stopped) or 'nothing ran'}{words}")


@click.command()
@options(PLACES, AGENT, DRIVERS, LOG)
@click.option("--detach", is_flag=True, help="In the background; return when it answers")
def agent(root: str, run_: str, detach: bool, **flags: Any) -> None:
    """Be this host's agent (in the foreground), as `up` or `join` set it up."""
    _need_root()
    flags = _in_force(root, flags)
    if detach:
        _start_agent(root, run_, flags)
        remembered.store(root, flags)
        return
    from agent.main import main

    again = _reread(root)
    _as_daemon(
        run_,
        "agent",
        lambda: main(_agent_config(root, run_, flags), lambda: _agent_config(root, run_, again())),
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise InvalidInput(f"--peer-port {text[:20]}: that is no port", hint="Write 0 for none")
    return int(text)


def _agent_config(root: str, run: str, flags: dict[str, Any]) -> AgentConfig:
    from agent.config import AgentConfig

    return AgentConfig(
        state_dir=f"{root}/agent",
        run_dir=f"{run}/agent",
        socket=f"{run}/agent.sock",
        name=flags["name"],
        address=flags["address"],
        behind_nat=flags["behind_nat"],
        cgroup_parent=flags["cgroup_parent"] or "/flota",
        cgroup_driver=flags["cgroup_driver"],
        storage_driver=flags["storage_driver"],
        labels=pairs(flags["label"]),
        insecure_registries=tuple(flags["insecure_registry"]),
        registry_mirrors=tuple(flags["registry_mirror"]),
        peer_port=_port(flags["peer_port"]) if flags["peer_port"] else PEER_PORT,
        peer_rate=parse_rate(flags["peer_rate"] or "0") // 8,
        network_drivers=tuple(flags["network_driver"]),
        processes_unit=os.environ.get("FLOTA_PROCESSES_UNIT", ""),
        log_level=flags["log_level"],
    )


@click.command(hidden=True)
@options(PLACES)
def processes(root: str, run_: str) -> None:
    """Be the supervisor of what outlives this host's agent (in the foreground), for a service manager."""
    _need_root()
    folder = f"{run_}/agent/supervise"
    os.makedirs(f"{run_}/agent", mode=0o711, exist_ok=True)
    os.makedirs(folder, mode=0o750, exist_ok=True)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "net.supervise", folder])  # noqa: S606


@click.command()
@options(PLACES, CONTROLLER, DRIVERS, LOG)
@click.option(
    "--address", "controller_address", default="", help="Name or address at which hosts reach this controller"
)
@click.option("--detach", is_flag=True, help="In the background; return when it answers")
def controller(root: str, run_: str, detach: bool, **flags: Any) -> None:
    """Be the fleet's controller (in the foreground), as `up` set it up."""
    _need_root()
    flags = _in_force(root, flags)
    if detach:
        _start_controller(root, run_, flags)
        remembered.store(root, flags)
        return
    from controller.main import main

    again = _reread(root)
    config = _controller_config(root, run_, flags)
    _as_daemon(run_, "controller", lambda: main(config, lambda: _controller_config(root, run_, again())))


def _controller_config(root: str, run: str, flags: dict[str, Any]) -> ControllerConfig:
    from controller.config import ControllerConfig
    from controller.liveness import patient

    return ControllerConfig(
        state_dir=f"{root}/controller",
        socket=f"{run}/flota.sock",
        listen=flags["listen"],
        port=flags["port"] or PORT,
        advertise=advertised(flags),
        names=("127.0.0.1", "localhost"),
        registry=flags["registry"],
        registry_replicas=flags["registry_replicas"],
        registry_anonymous_pull=flags["registry_anonymous_pull"],
        network_drivers=tuple(flags["network_driver"]),
        log_level=flags["log_level"],
        liveness=patient(flags["lost_after"]),
    )


def _as_daemon(run: str, name: str, serve: Callable[[], None]) -> None:
    """The pid file is ours only while nobody else's daemon lives."""
    owner = daemon.alive(run, name)
    if owner and owner != os.getpid():
        raise AlreadyExists(f"a {name} runs already (pid {owner})", hint=f"Stop it first: kill {owner}")
    daemon.claim(run, name)
    os.chdir(run)  # conmon leaves an empty `oom` where it was started
    try:
        serve()
    finally:
        daemon.release(run, name)


def _in_force(root: str, flags: dict[str, Any]) -> dict[str, Any]:
    context = click.get_current_context()
    return remembered.in_force(remembered.read(root, context.command.params), flags, said(context))


def _reread(root: str) -> Callable[[], dict[str, Any]]:
    """What holds when the settings are read again: what was said to this process goes on holding."""
    context = click.get_current_context()
    places = ("root", "run_", "detach")
    words, flags = said(context), {k: v for k, v in context.params.items() if k not in places}
    params = context.command.params
    return lambda: remembered.in_force(remembered.read(root, params), flags, words)


def said(context: click.Context) -> set[str]:
    """Parameters that stand on the command line."""
    given = ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is given}


def _start_controller(root: str, run: str, flags: dict[str, Any]) -> None:
    keptdaemons.start("controller", root, run, flags, controller_words(flags), evict=lambda: None)


def _start_agent(root: str, run: str, flags: dict[str, Any]) -> None:
    def evict() -> None:
        import asyncio

        from agent.hostprocesses import stop_supervisor

        asyncio.run(stop_supervisor(run))

    keptdaemons.start("agent", root, run, flags, agent_words(flags), evict=evict)


def _own_token(endpoint: str, name: str, replace: bool) -> str:
    """By which the controller's own host joins; as the host of its name, if that was never seen (a run that
    was cut) or is to be replaced."""
    import socket

    from api.client import Client
    from model.api import CreateToken
    from model.codec import sparing

    client = Client(endpoint)
    own = name or socket.gethostname()
    hosts = {one["host"]["spec"]["name"]: one["host"] for one in client.call("GET", "/v1/hosts")}
    known = hosts.get(own)
    again = known is not None and (replace or known.get("state", "joining") == "joining")
    body = sparing(CreateToken(ttl=600.0, once=True, replaces=known["id"] if known and again else ""))
    return str(client.call("POST", "/v1/tokens", body=body)["token"])


def _enroll(root: str, token: str, address: str, flags: dict[str, Any]) -> None:
    import asyncio
    import socket
    from pathlib import Path

    from agent import facts
    from agent.join import join as enroll

    name = flags["name"] or socket.gethostname()
    own = flags["address"] or facts.source_address(address)
    asyncio.run(
        enroll(
            token,
            address,
            state=Path(root) / "agent",
            name=name,
            address=own,
            labels=pairs(flags["label"]),
        )
    )


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Forbidden("this needs root", hint=f"sudo flota {' '.join(sys.argv[1:2])}")


def _empty(folder: str, kept: str = "") -> None:
    """What is ours in a folder that may itself be a mount point, but `kept`."""
    for name in (
        "agent",
        "controller",
        "controller.restoring",
        "log",
        "settings.json",
        "flota.sock",
        "docker.sock",
        "agent.sock",
        "host-docker.sock",
        "agent.pid",
        "controller.pid",
    ):
        path = os.path.join(folder, name)
        if os.path.dirname(kept) == path and os.path.isdir(path):
            others = (entry for entry in os.scandir(path) if entry.path != kept)
            for entry in others:
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        elif os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
