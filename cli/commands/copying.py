"""`flota image copy`: an image from host to host, without a registry."""

from __future__ import annotations

import click

from cli.context import App, pass_app
from cli.progress import Display
from model.errors import InvalidInput


@click.command()
@click.option("--quiet", "-q", is_flag=True, help="Only the result")
@click.option("--to", multiple=True, metavar="NODE", help="To this host; may be repeated")
@click.option("--all", "-a", "all_", is_flag=True, help="To every host")
@click.option("--from", "from_", default="", metavar="NODE", help="From this host; any that has it without")
@click.argument("ref", metavar="IMAGE")
@pass_app
def copy(app: App, ref: str, quiet: bool, to: tuple[str, ...], all_: bool, from_: str) -> None:
    """Copy an image to other hosts, from those that have it; layers that are there are not moved."""
    if bool(to) == all_:
        raise InvalidInput("where is it to be copied?", hint="Say --to NODE, or --all")
    Display(quiet=quiet).run(app.client.lines("POST", "/v1/images/copy", ref=ref, to=list(to), host=from_))
