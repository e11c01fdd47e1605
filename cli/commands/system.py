"""`flota system`: docker's long form for what is about all there is, and taking away what nothing uses."""

from __future__ import annotations

import click

from cli.commands import builder, containers, imagespace, networks, volumes
from cli.commands.fleet import events, info
from cli.context import out


@click.group()
def system() -> None:
    """Commands about all of the fleet, in docker's long form."""


for _name, _command in (("df", imagespace.df), ("info", info), ("events", events)):
    system.add_command(_command, _name)


@system.command("prune")
@click.option("--all", "-a", "all_", is_flag=True, help="All unused images, and cache that images share")
@click.option("--volumes", "with_volumes", is_flag=True, help="Also volumes that no container uses")
@click.option("--force", "-f", is_flag=True, help="Do not ask")
@click.pass_context
def prune(ctx: click.Context, all_: bool, with_volumes: bool, force: bool) -> None:
    """Remove ended containers, and networks, images and build cache that nothing uses, on every host."""
    what = ["ended containers", "unused networks", "unused images" if all_ else "images without a name"]
    what += ["volumes that no container uses"] if with_volumes else []
    if not force:
        click.confirm(f"All {', '.join(what)} and the build cache will be removed. Go on?", abort=True)
    for title, command, words in (
        ("Containers", containers.prune, {}),
        ("Networks", networks.prune, {"filters": ()}),
        *((("Volumes", volumes.prune, {"all_": False, "node": ""}),) if with_volumes else ()),
        ("Images", imagespace.prune, {"all_": all_, "filters": (), "node": ""}),
        ("Build cache", builder.prune, {"all_": all_, "keep_storage": "", "filters": (), "node": ""}),
    ):
        out(f"{title}:")
        ctx.invoke(command, force=True, **words)
