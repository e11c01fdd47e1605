"""`flota exec`, `attach` and `logs`: a container's streams on this terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cli import exits
from cli.context import App, pass_app, segment, span
from cli.parse.container import environment
from cli.printout import Printout
from cli.render import clean
from cli.terminal import Detached, Session
from model.codec import decode_json, to_plain
from model.errors import ErrorBody, InvalidInput
from model.streams import ERROR, STDERR, STDOUT, ExecSpec, Unframer


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--interactive", "-i", is_flag=True, help="Keep stdin open")
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal")
@click.option("--detach", "-d", is_flag=True, help="Do not wait for it")
@click.option("--env", "-e", multiple=True, help="KEY=VALUE, or KEY to take it from here")
@click.option("--env-file", type=click.File(), multiple=True)
@click.option("--user", "-u", default="", help="USER[:GROUP]")
@click.option("--workdir", "-w", default="", help="Working directory")
@click.option("--privileged", is_flag=True)
@click.argument("ref", metavar="CONTAINER")
@click.argument("args", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND…")
@pass_app
def exec_(app: App, ref: str, args: tuple[str, ...], **flags: Any) -> int:
    """Run a command in a running container."""
    if flags["tty"] and flags["interactive"] and not flags["detach"] and not os.isatty(0):
        raise InvalidInput("standard input is not a terminal", hint="Leave out -t")
    rows, cols = _size() if flags["tty"] else (0, 0)
    spec = ExecSpec(
        args=args,
        env=environment(flags["env"], [f.read() for f in flags["env_file"]], os.environ),
        user=flags["user"],
        workdir=flags["workdir"],
        tty=flags["tty"],
        stdin=flags["interactive"],
        privileged=flags["privileged"],
        detach=flags["detach"],
        rows=rows,
        cols=cols,
    )
    sock = app.client.hijack(f"/v1/instances/{segment(ref)}/exec", body=to_plain(spec))
    session = Session(sock, stdin=flags["interactive"], terminal=flags["tty"], proxy=False)
    try:
        ended = session.run()
    except Detached:
        return 0
    if ended.exit_code is None:
        sys.stderr.write(f"flota: {clean(ended.message or 'its exit code is unknown')}\n")
        return exits.ENGINE
    return ended.exit_code


@click.command()
@click.option("--no-stdin", is_flag=True, help="Only look")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to it")
@click.argument("ref", metavar="CONTAINER")
@pass_app
def attach(app: App, ref: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Join a running container's streams; ctrl-p ctrl-q leaves it running."""
    spec = app.call("GET", f"/v1/instances/{segment(ref)}")["instance"]["spec"]
    stdin = bool(spec.get("stdin")) and not no_stdin
    tty = bool(spec.get("tty"))
    sock = app.client.hijack(f"/v1/instances/{segment(ref)}/attach", stdin=stdin)
    session = Session(sock, stdin=stdin, terminal=tty and stdin, proxy=sig_proxy and not tty)
    try:
        ended = session.run()
    except Detached:
        return 0
    return exits.ENGINE if ended.exit_code is None else ended.exit_code


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on as it grows")
@click.option("--tail", "-n", default="all", help="Lines from the end")
@click.option("--since", default="", help="A time, or a duration before now (10m)")
@click.option("--until", default="", help="A time, or a duration before now")
@click.option("--timestamps", "-t", is_flag=True)
@click.argument("ref", metavar="CONTAINER")
@pass_app
def logs(app: App, ref: str, **flags: Any) -> None:
    """Show what a container printed."""
    read_logs(app, f"/v1/instances/{segment(ref)}/logs", flags)


def read_logs(app: App, path: str, flags: dict[str, Any]) -> None:
    """Frames of a logs call to stdout and stderr."""
    tail = flags["tail"]
    if tail != "all" and not tail.isdecimal():
        raise click.UsageError(f"--tail {tail!r} is not a number of lines")
    pieces = app.client.raw(
        "GET",
        path,
        follow=flags["follow"],
        tail=None if tail == "all" else int(tail),
        **span(flags["since"], flags["until"]),
        timestamps=flags["timestamps"],
        **({"raw": True} if flags.get("raw") else {}),
    )
    unframer = Unframer()
    places = {STDOUT: sys.stdout, STDERR: sys.stderr}
    printouts = {kind: Printout() for kind, place in places.items() if place.isatty()}
    for data in pieces:
        for kind, payload in unframer.feed(data):
            if kind == ERROR:
                raise decode_json(payload, ErrorBody).to_error()
            if kind in places:
                shown = printouts[kind].shown(payload).encode() if kind in printouts else payload
                places[kind].buffer.write(shown)
                places[kind].buffer.flush()


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return 24, 80
    return size.lines, size.columns
