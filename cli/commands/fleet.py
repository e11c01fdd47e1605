"""Commands about the fleet itself: nodes, join tokens, events, versions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from cli import render
from cli.context import App, each, format_option, out, pass_app, segment, short, show, span, whole
from cli.parse.container import pairs
from cli.render import Column
from model.api import CreateToken, FleetInfo, HostInfo, UpdateHost
from model.codec import sparing, to_plain
from model.quantity import NANO, format_bytes, parse_duration
from model.spec import Availability


@click.group()
def node() -> None:
    """The hosts of the fleet."""


@node.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@format_option
@pass_app
def ls(app: App, quiet: bool, format_: str) -> None:
    """List hosts."""
    columns: list[Column] = [
        ("ID", lambda h: short(h["host"]["id"])),
        ("NAME", lambda h: h["host"]["spec"]["name"]),
        ("STATE", lambda h: h["host"].get("state", "joining")),
        ("AVAILABILITY", lambda h: h["host"]["spec"].get("availability", "active")),
        ("ADDRESS", lambda h: h["host"]["facts"].get("address", "")),
        ("CPUS", lambda h: f"{h['host']['facts'].get('nano_cpus', 0) / NANO:g}"),
        ("MEMORY", lambda h: format_bytes(h["host"]["facts"].get("memory", 0))),
        ("CONTAINERS", lambda h: str(h.get("instances", 0))),
        ("VERSION", lambda h: h["host"]["facts"].get("release") or h["host"]["facts"].get("version", "")),
    ]
    items = [{**h, "state": h["host"].get("state", "joining")} for h in app.call("GET", "/v1/hosts")]
    show(items, columns, of=HostInfo, format_=format_, quiet=columns[0] if quiet else None)


@node.command("inspect")
@click.argument("refs", nargs=-1, required=True)
@pass_app
def inspect(app: App, refs: tuple[str, ...]) -> None:
    """Show everything about hosts."""
    import json

    from cli.commands.inspect import find

    out(json.dumps([value for ref in refs for value in find(app, ref, "node")], indent=4))


@node.command("update")
@click.option("--availability", type=click.Choice([a.value for a in Availability]))
@click.option("--label-add", multiple=True, help="KEY=VALUE")
@click.option("--label-rm", multiple=True, help="KEY")
@click.argument("ref", metavar="NODE")
@pass_app
def update(
    app: App, ref: str, availability: str | None, label_add: tuple[str, ...], label_rm: tuple[str, ...]
) -> None:
    """Change a host: what it takes on, its labels."""
    body = UpdateHost(
        availability=None if availability is None else Availability(availability),
        labels_set=pairs(label_add),
        labels_remove=label_rm,
    )
    app.call("PATCH", f"/v1/hosts/{segment(ref)}", body=to_plain(body))
    out(ref)


@node.command("rm")
@click.option("--force", "-f", is_flag=True, help="Even if it is ready or has containers")
@click.argument("refs", nargs=-1, required=True, metavar="NODE…")
@pass_app
def rm(app: App, refs: tuple[str, ...], force: bool) -> None:
    """Remove hosts from the fleet."""
    each(refs, lambda ref: app.call("DELETE", f"/v1/hosts/{segment(ref)}", force=force))


@click.group()
def token() -> None:
    """Tokens by which hosts join."""


@token.command("create")
@click.option("--ttl", default="24h", help="How long it is good; 0: for ever")
@click.option("--once", is_flag=True, help="Good for one host")
@click.option("--replace", default="", metavar="NODE", help="For a machine that takes this host's place")
@click.option("--quiet", "-q", is_flag=True, help="Only the token")
@pass_app
def create(app: App, ttl: str, once: bool, replace: str, quiet: bool) -> None:
    """Make a token; it is shown once."""
    wanted = CreateToken(ttl=parse_duration(ttl), once=once, replaces=replace)
    made = app.call("POST", "/v1/tokens", body=sparing(wanted))
    out(made["token"] if quiet or not made.get("join_command") else made["join_command"])


@click.command()
@click.option("--since", default="", help="A time, or a duration before now")
@click.option("--until", default="", help="A time, or a duration before now")
@click.option("--filter", "-f", "filters", multiple=True, help="type= event= container= node= …")
@format_option
@pass_app
def events(app: App, since: str, until: str, filters: tuple[str, ...], format_: str) -> None:
    """Show what happens in the fleet, as it happens."""
    query: dict[str, Any] = {**span(since, until), "filter": list(filters)}
    for event in app.client.lines("GET", "/v1/events", **query):
        text = render.json_lines([event]) if format_ == "json" else _event_line(event, format_)
        sys.stdout.write(text)
        sys.stdout.flush()


def _event_line(event: dict[str, Any], format_: str) -> str:
    if format_:
        return render.template(format_, (), [event])
    at = datetime.fromtimestamp(event.get("at", 0), UTC).isoformat(timespec="milliseconds")
    attributes = ", ".join(f"{k}={v}" for k, v in sorted(event.get("attributes", {}).items()))
    words = f"{at} {event['type']} {event['action']} {short(event['id'])} {event.get('name', '')}"
    return render.clean(f"{words} ({', '.join(filter(None, (event.get('host', ''), attributes)))})") + "\n"


@click.command()
@format_option
@pass_app
def info(app: App, format_: str) -> None:
    """Show the fleet."""
    value = whole([app.call("GET", "/v1/info")], FleetInfo)[0]
    if format_ == "json":
        sys.stdout.write(render.json_lines([value]))
        return
    if format_:
        sys.stdout.write(render.template(format_, (), [value]))
        return
    for key, item in value.items():
        words = "; ".join(item) if isinstance(item, list) else item
        out(f"{key.replace('_', ' ').capitalize()}: {words}")


@click.command()
@format_option
@pass_app
def version(app: App, format_: str) -> None:
    """Show the versions of this command and of the controller."""
    from aio.release import running
    from model.version import VERSION

    value = {"client": VERSION, "client_release": running()}
    try:
        value |= {f"server_{k}": v for k, v in app.call("GET", "/v1/version").items()}
    finally:  # where no controller answers, this one's own are told all the same
        said = {key: item for key, item in value.items() if item}
        if format_ == "json":
            sys.stdout.write(render.json_lines([said]))
        else:
            for key, item in said.items():
                out(f"{key.replace('_', ' ').capitalize()}: {item}")
