"""`flota volume`: local volumes of hosts."""

from __future__ import annotations

import json

import click

from cli import render
from cli.context import App, each, format_option, now, out, pass_app, segment, show
from cli.parse.container import pairs
from cli.render import Column
from model.api import CreateVolume, VolumeInfo
from model.codec import to_plain
from model.quantity import format_size
from model.spec import VolumeSpec


@click.group()
def volume() -> None:
    """Volumes: directories of hosts that outlive containers."""


@volume.command("create")
@click.option("--label", multiple=True, help="KEY=VALUE")
@click.option("--node", default="", help="On this host; without, on every one")
@click.argument("name", required=False, default="")
@pass_app
def create(app: App, name: str, label: tuple[str, ...], node: str) -> None:
    """Create a volume."""
    body = CreateVolume(spec=VolumeSpec(name=name, labels=pairs(label)))
    for made in app.call("POST", "/v1/volumes", body=to_plain(body), host=node)[:1]:
        out(made["volume"]["name"])


@volume.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only names")
@click.option("--filter", "-f", "filters", multiple=True, help="name= label= dangling=")
@click.option("--node", default="", help="Only on this host")
@format_option
@pass_app
def ls(app: App, quiet: bool, filters: tuple[str, ...], node: str, format_: str) -> None:
    """List volumes, of all hosts."""
    at = now()
    columns: list[Column] = [
        ("DRIVER", lambda v: "local"),
        ("VOLUME NAME", lambda v: v["volume"]["name"]),
        ("CREATED", lambda v: render.age(v["volume"].get("created_at", 0), at)),
        ("USED BY", lambda v: ",".join(v.get("used_by", ()))),
        ("NODE", lambda v: v.get("host", "")),
    ]
    items = app.call("GET", "/v1/volumes", filter=list(filters), host=node)
    show(items, columns, of=VolumeInfo, format_=format_, quiet=columns[1] if quiet else None)


@volume.command("inspect")
@click.argument("names", nargs=-1, required=True)
@pass_app
def inspect(app: App, names: tuple[str, ...]) -> None:
    """Show everything about volumes."""
    from cli.commands.inspect import find

    found = [value for name in names for value in find(app, name, "volume")]
    out(json.dumps(found, indent=4))


@volume.command("rm")
@click.option("--force", "-f", is_flag=True, help="No error if there is none")
@click.option("--node", default="", help="Only on this host")
@click.argument("names", nargs=-1, required=True)
@pass_app
def rm(app: App, names: tuple[str, ...], force: bool, node: str) -> None:
    """Remove volumes, on every host."""
    each(names, lambda name: app.call("DELETE", f"/v1/volumes/{segment(name)}", force=force, host=node))


@volume.command("prune")
@click.option("--all", "-a", "all_", is_flag=True, help="Named ones too")
@click.option("--force", "-f", is_flag=True, help="Do not ask")
@click.option("--node", default="", help="Only on this host")
@pass_app
def prune(app: App, all_: bool, force: bool, node: str) -> None:
    """Remove volumes that no container uses."""
    if not force:
        click.confirm("Remove volumes that no container uses?", abort=True)
    freed = app.call("POST", "/v1/volumes/prune", all=all_, host=node)
    total = 0
    for host, volumes in freed.items():
        for name, size in volumes.items():
            out(f"{host}: {name}")
            total += size
    out(f"Total reclaimed space: {format_size(total)}")
