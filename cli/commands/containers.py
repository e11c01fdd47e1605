"""Commands about plain containers: list, start, stop, remove, look inside."""

from __future__ import annotations

import sys
import time
from operator import itemgetter
from typing import Any

import click

from cli import render
from cli.context import (
    UNSTARTED,
    App,
    each,
    format_option,
    now,
    out,
    pass_app,
    segment,
    short,
    show,
    shown_image,
)
from cli.render import Column
from model.api import InstanceInfo, StatsSample
from model.errors import CommandFailed
from model.quantity import format_bytes, parse_duration


def _columns(whole: bool) -> list[Column]:
    at = now()

    def command(i: Any) -> str:
        spec = i["instance"]["spec"]
        words = [*(spec.get("entrypoint") or ()), *(spec.get("args") or ())]
        text = " ".join(words)
        return f'"{text if whole or len(text) <= 20 else text[:19] + "…"}"'

    return [
        ("CONTAINER ID", lambda i: short(i["instance"]["id"], whole)),
        ("IMAGE", lambda i: shown_image(i["instance"]["spec"]["image"], whole)),
        ("COMMAND", command),
        ("CREATED", lambda i: render.age(i["instance"].get("created_at", 0), at)),
        ("STATUS", lambda i: render.phase_text(i["status"], at)),
        ("PORTS", lambda i: render.ports_text(i["status"].get("ports", ()))),
        ("NAMES", lambda i: i["instance"]["name"]),
        ("NODE", lambda i: i.get("host_name", "") + (" (own)" if i.get("origin") == "host" else "")),
    ]


@click.command()
@click.option("--all", "-a", "all_", is_flag=True, help="Also those that do not run")
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@click.option("--filter", "-f", "filters", multiple=True, help="status= health= name= label= node= id= …")
@click.option("--last", "-n", type=int, default=0, help="The newest so many")
@click.option("--latest", "-l", is_flag=True, help="The newest")
@click.option("--no-trunc", is_flag=True)
@click.option("--node", default="", help="Only on this host")
@format_option
@pass_app
def ps(app: App, all_: bool, quiet: bool, filters: tuple[str, ...], **flags: Any) -> None:
    """List containers, of all hosts."""
    wanted = [*filters, *([f"node={flags['node']}"] if flags["node"] else [])]
    items = app.call(
        "GET", "/v1/instances", all=all_, limit=1 if flags["latest"] else flags["last"] or None, filter=wanted
    )
    items.sort(key=lambda i: i["instance"].get("created_at", 0), reverse=True)
    columns = _columns(flags["no_trunc"])
    show(items, columns, of=InstanceInfo, format_=flags["format_"], quiet=columns[0] if quiet else None)


def _stop_body(grace: str | None, signal: str) -> dict[str, Any]:
    body: dict[str, Any] = {} if grace is None else {"grace": parse_duration(grace)}
    return {**body, **({"signal": signal} if signal else {})}


@click.command()
@click.option("--attach", "-a", "attach_", is_flag=True, help="Show its output and wait for it")
@click.option("--interactive", "-i", is_flag=True)
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def start(app: App, refs: tuple[str, ...], attach_: bool, interactive: bool) -> int:
    """Start stopped containers."""
    if attach_ or interactive:
        from cli.commands.run import exit_code
        from cli.terminal import Detached, Session

        if len(refs) != 1:
            raise click.UsageError("only one container can be started and attached")
        place = f"/v1/instances/{segment(refs[0])}"
        spec = app.call("GET", place)["instance"]["spec"]
        app.wait(refs[0], "created", hint=UNSTARTED)
        held = app.call("POST", f"{place}/start", hold=True)["instance"]
        sock = app.client.hijack(f"{place}/attach", stdin=interactive, attempt=held.get("attempt", 1))
        app.call("POST", f"{place}/start")
        tty = bool(spec.get("tty"))
        session = Session(sock, stdin=interactive, terminal=tty and interactive, proxy=not tty)
        try:
            return exit_code(session.run())
        except Detached:
            return 0
    from cli.commands.run import await_phase

    def act(ref: str) -> None:
        app.call("POST", f"/v1/instances/{segment(ref)}/start")
        await_phase(app, ref, "running")

    each(refs, act)
    return 0


@click.command()
@click.option("--time", "-t", "grace", help="Seconds until it is killed")
@click.option("--signal", "-s", default="", help="Signal that asks it to stop")
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def stop(app: App, refs: tuple[str, ...], grace: str | None, signal: str) -> None:
    """Stop running containers."""

    def act(ref: str) -> None:
        app.call("POST", f"/v1/instances/{segment(ref)}/stop", body=_stop_body(grace, signal))
        app.wait(ref, "stopped")

    each(refs, act)


@click.command()
@click.option("--time", "-t", "grace", help="Seconds until it is killed")
@click.option("--signal", "-s", default="", help="Signal that asks it to stop")
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def restart(app: App, refs: tuple[str, ...], grace: str | None, signal: str) -> None:
    """Restart containers."""
    from cli.commands.run import await_phase

    def act(ref: str) -> None:
        app.call("POST", f"/v1/instances/{segment(ref)}/restart", body=_stop_body(grace, signal))
        await_phase(app, ref, "running")

    each(refs, act)


@click.command()
@click.option("--signal", "-s", default="KILL", help="TERM, SIGKILL, 9 …")
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def kill(app: App, refs: tuple[str, ...], signal: str) -> None:
    """Send a signal to containers."""
    each(refs, lambda ref: app.call("POST", f"/v1/instances/{segment(ref)}/kill", signal=signal))


@click.command()
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def pause(app: App, refs: tuple[str, ...]) -> None:
    """Freeze all processes of containers."""
    each(refs, lambda ref: _switch(app, ref, "pause"))


@click.command()
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def unpause(app: App, refs: tuple[str, ...]) -> None:
    """Thaw frozen containers."""
    each(refs, lambda ref: _switch(app, ref, "unpause"))


def _switch(app: App, ref: str, verb: str) -> None:
    """Until its host has done it. Raises CommandFailed in its words when that can't be; Unavailable where it
    is lost."""
    info = app.call("POST", f"/v1/instances/{segment(ref)}/{verb}")
    reply = app.wait(info["instance"]["id"], f"{verb}d")
    if reply.get("phase") == "running" and reply.get("message"):
        raise CommandFailed(reply["message"], hint="It is recorded and tried again")


@click.command()
@click.option("--force", "-f", is_flag=True, help="Kill it if it runs")
@click.option("--volumes", "-v", is_flag=True, help="Its anonymous volumes too")
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def rm(app: App, refs: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove containers."""

    def act(ref: str) -> None:
        info = app.call("DELETE", f"/v1/instances/{segment(ref)}", force=force, volumes=volumes)
        app.await_removed(info["instance"]["id"])

    each(refs, act)


@click.command()
@click.argument("ref", metavar="CONTAINER")
@click.argument("name")
@pass_app
def rename(app: App, ref: str, name: str) -> None:
    """Give a container another name."""
    app.call("POST", f"/v1/instances/{segment(ref)}/rename", name=name)


@click.command()
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def wait(app: App, refs: tuple[str, ...]) -> None:
    """Wait until containers end, and print their exit codes."""
    for ref in refs:
        reply = app.wait(ref, "stopped", hint="It may run there still; see `flota why`")
        out(str(reply.get("exit_code", "?")))


@click.command()
@click.argument("ref", metavar="CONTAINER")
@pass_app
def top(app: App, ref: str) -> None:
    """Show a container's processes."""
    reply = app.call("GET", f"/v1/instances/{segment(ref)}/top")
    columns: list[Column] = [(title, itemgetter(i)) for i, title in enumerate(reply["titles"])]
    sys.stdout.write(render.table(columns, reply["rows"]))


@click.command()
@click.argument("ref", metavar="CONTAINER")
@click.argument("port_", metavar="[PORT[/PROTOCOL]]", required=False)
@pass_app
def port(app: App, ref: str, port_: str | None) -> None:
    """Show published ports."""
    from model.errors import NotFound

    bound = app.call("GET", f"/v1/instances/{segment(ref)}")["status"].get("ports", [])
    wanted = port_ if port_ is None or "/" in port_ else f"{port_}/tcp"
    found = [b for b in bound if wanted in (None, render.target_text(b))]
    if wanted and not found:
        raise NotFound(f"container {ref} publishes no port {wanted}")
    for b in found:
        where = render.bound_text(b)
        out(where if wanted else f"{render.target_text(b)} -> {where}")


def _stat_columns(before: dict[str, Any]) -> list[Column]:
    def cpu(s: Any) -> str:
        last = before.get(s["instance"])
        if last is None or s["at"] <= last["at"]:
            return "--"
        return f"{(s.get('cpu_ns', 0) - last.get('cpu_ns', 0)) / (s['at'] - last['at']) / 1e7:.2f}%"

    def pair(a: str, b: str) -> Any:
        return lambda s: f"{format_bytes(s.get(a, 0))} / {format_bytes(s.get(b, 0))}"

    def share(s: Any) -> str:
        limit = s.get("memory_limit", 0)
        return f"{100 * s.get('memory', 0) / limit:.2f}%" if limit else "--"

    return [
        ("CONTAINER ID", lambda s: short(s["instance"])),
        ("NAME", lambda s: s["name"]),
        ("CPU %", cpu),
        ("MEM USAGE / LIMIT", pair("memory", "memory_limit")),
        ("MEM %", share),
        ("NET I/O", pair("network_rx", "network_tx")),
        ("BLOCK I/O", pair("block_read", "block_write")),
        ("PIDS", lambda s: str(s.get("pids", 0))),
        ("NODE", lambda s: s.get("host", "")),
    ]


SAMPLE_SECONDS = 0.5
"""Between the two readings that a rate needs."""
GONE_SECONDS = 5.0
"""A container of which nothing was heard for so long is shown no more."""


@click.command()
@click.option("--no-stream", is_flag=True, help="Once")
@click.option("--no-trunc", is_flag=True)
@format_option
@click.argument("refs", nargs=-1, metavar="[CONTAINER…]")
@pass_app
def stats(app: App, refs: tuple[str, ...], no_stream: bool, no_trunc: bool, format_: str) -> None:
    """Show what containers use, live, of all hosts."""
    before: dict[str, Any] = {}
    latest: dict[str, Any] = {}
    query: dict[str, Any] = {"ref": list(refs)}

    def display() -> None:
        items = sorted(latest.values(), key=lambda s: str(s["name"]))
        show(items, _stat_columns(before), of=StatsSample, format_=format_)
        sys.stdout.flush()

    if no_stream:
        before.update(_collect(app, query))
        time.sleep(SAMPLE_SECONDS)
        latest.update(_collect(app, query))
        display()
        return
    batches: Any = app.client.lines("GET", "/v1/stats", **query, stream=True)
    for samples in batches:
        before.update({s["instance"]: latest[s["instance"]] for s in samples if s["instance"] in latest})
        latest.update({s["instance"]: s for s in samples})
        newest = max((s["at"] for s in latest.values()), default=0.0)
        latest = {i: s for i, s in latest.items() if s["at"] > newest - GONE_SECONDS}
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[2J\x1b[H")
        display()


def _collect(app: App, query: dict[str, Any]) -> dict[str, Any]:
    """One sample of each container."""
    batches: Any = app.client.lines("GET", "/v1/stats", **query)
    return {sample["instance"]: sample for batch in batches for sample in batch}


LONG_FORM = ("run", "create", "exec", "attach", "logs", "inspect", "cp", "diff", "export", "commit")
"""Verbs about containers that live in other modules."""


class LongForm(click.Group):
    """Loads the other modules only when one of their verbs is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LONG_FORM])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from cli.main import cli

        if cmd_name in LONG_FORM:
            return cli.get_command(ctx, cmd_name)
        return super().get_command(ctx, cmd_name)


@click.group(cls=LongForm)
def container() -> None:
    """Commands about containers, in docker's long form."""


@container.command("prune")
@click.option("--force", "-f", is_flag=True, help="Do not ask")
@pass_app
def prune(app: App, force: bool) -> None:
    """Remove all containers that have ended."""
    if not force:
        click.confirm("Remove all containers that have ended?", abort=True)
    items = app.call("GET", "/v1/instances", all=True)
    for item in items:
        instance = item["instance"]
        others = instance.get("service") or item.get("origin") == "host"
        if item["status"].get("phase") in ("exited", "failed", "created") and not others:
            app.call("DELETE", f"/v1/instances/{instance['id']}")
            out(instance["id"])


for _name, _command in (
    ("ls", ps), ("start", start), ("stop", stop), ("restart", restart), ("kill", kill), ("pause", pause),
    ("unpause", unpause), ("rm", rm), ("rename", rename), ("wait", wait), ("top", top), ("port", port),
    ("stats", stats),
):  # fmt: skip
    container.add_command(_command, _name)
