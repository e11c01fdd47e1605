"""`flota run` and `flota create`."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Literal

import click

from cli.context import RECORDED, UNSTARTED, App, out, pass_app, segment
from cli.options import container_options, plain_options, read_files
from cli.parse.container import container_spec
from cli.terminal import Detached, Session
from model.api import CreateInstance
from model.codec import to_plain
from model.errors import AlreadyExists, CommandFailed, FlotaError, InvalidInput, NotFound
from model.spec import Placement
from model.streams import Exit

_DONE = {"created": "made", "running": "started"}
SETTINGS = {"allow_interspersed_args": False, "help_option_names": ["--help"]}


@click.command(context_settings=SETTINGS)
@plain_options
@container_options
@click.option("--detach", "-d", is_flag=True, help="Run it in the background and print its id")
@click.option("--attach", "-a", "attach_to", multiple=True, help="stdin, stdout, stderr")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to it")
@click.option("--quiet", "-q", is_flag=True, help="As in docker; no pull progress is shown either way")
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@pass_app
def run(app: App, image: str, args: tuple[str, ...], **flags: Any) -> int:
    """Run a command in a new container."""
    if flags["tty"] and flags["interactive"] and not flags["detach"] and not os.isatty(0):
        raise InvalidInput("standard input is not a terminal", hint="Leave out -t")
    cidfile = _cidfile(flags)
    created = _create(app, image, args, flags)
    ident = created["instance"]["id"]
    _write_cidfile(cidfile, ident)
    if flags["detach"]:
        app.call("POST", f"/v1/instances/{ident}/start")
        await_phase(app, ident, "running")
        out(ident)
        return 0
    return _foreground(app, ident, flags)


@click.command(context_settings=SETTINGS)
@plain_options
@container_options
@click.option("--quiet", "-q", is_flag=True, help="As in docker; no pull progress is shown either way")
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@pass_app
def create(app: App, image: str, args: tuple[str, ...], **flags: Any) -> None:
    """Create a container without starting it."""
    cidfile = _cidfile(flags)
    created = _create(app, image, args, flags)
    _write_cidfile(cidfile, created["instance"]["id"])
    out(created["instance"]["id"])


def _create(app: App, image: str, args: tuple[str, ...], flags: dict[str, Any]) -> Any:
    read_files(flags)
    spec = container_spec(flags, image, args, environ=os.environ, cwd=os.getcwd())
    request = CreateInstance(
        spec=spec,
        name=flags["name"],
        placement=Placement(constraints=tuple(flags["constraint"])),
        host=flags["node"],
    )
    return app.call("POST", "/v1/instances", body=to_plain(request), login=app.login_for(image))


def _foreground(app: App, ident: str, flags: dict[str, Any]) -> int:
    """Attach, then start: nothing that it prints is missed. The image is waited for before, as long as that
    takes: a host keeps who attaches waiting for its process only, and not for long."""
    try:
        await_phase(app, ident, "created")
        sock = app.client.hijack(f"/v1/instances/{ident}/attach", stdin=flags["interactive"])
        app.call("POST", f"/v1/instances/{ident}/start")
    except FlotaError as error:
        if flags["rm"]:
            with contextlib.suppress(FlotaError):  # what is to be told is why it came to this
                app.call("DELETE", f"/v1/instances/{ident}", force=True)
                app.await_removed(ident)
        elif isinstance(error, CommandFailed):
            drop_unmade(app, ident)
        raise
    except KeyboardInterrupt:
        app.client.close()  # in the middle of a reply
        if flags["rm"]:
            app.call("DELETE", f"/v1/instances/{ident}", force=True)
        else:
            drop_unmade(app, ident)
        raise
    session = Session(
        sock, stdin=flags["interactive"], terminal=flags["tty"], proxy=flags["sig_proxy"] and not flags["tty"]
    )
    try:
        ended = session.run()
    except Detached:
        return 0
    if flags["rm"]:
        app.await_removed(ident)
    return exit_code(ended)


def exit_code(ended: Exit) -> int:
    """The container's own. Raises CommandFailed when it is not known."""
    if ended.exit_code is None:
        raise CommandFailed(ended.message or "its exit code is unknown")
    return ended.exit_code


def await_phase(app: App, ref: str, phase: Literal["created", "running"]) -> None:
    """Created: its image is there, though no process yet. Raises CommandFailed in the host's words when that
    can't be; Unavailable where its host is lost."""
    reply = app.wait(ref, phase, hint=RECORDED if phase == "running" else UNSTARTED)
    if reply.get("phase") in ("failed", "removed"):
        drop_unmade(app, ref)
        raise CommandFailed(reply.get("message") or f"it could not be {_DONE[phase]}")


def drop_unmade(app: App, ref: str) -> None:
    """As with docker, no container is left of a run whose image could not be had."""
    try:
        info = app.call("GET", f"/v1/instances/{segment(ref)}")
        if not info["status"].get("image_id"):
            ident = info["instance"]["id"]
            app.call("DELETE", f"/v1/instances/{ident}", force=True)
            app.await_removed(ident)
    except NotFound:
        return


def _cidfile(flags: dict[str, Any]) -> str:
    path = flags.get("cidfile") or ""
    if path and os.path.exists(path):
        raise AlreadyExists(f"the id file {path} exists", hint="Remove it, or choose another --cidfile")
    return path


def _write_cidfile(path: str, ident: str) -> None:
    if not path:
        return
    try:
        with open(path, "w") as file:
            file.write(ident)
    except OSError as error:
        raise FlotaError(f"cannot write {path}: {error.strerror}") from error
