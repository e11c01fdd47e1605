"""Commands about the fleet's settings."""

from __future__ import annotations

import json

import click

from cli.commands.imagespace import percent
from cli.context import App, out, pass_app, segment
from cli.render import clean
from model.api import UpdateSettings
from model.codec import to_plain
from model.errors import InvalidInput
from model.quantity import parse_bytes, parse_duration


@click.group()
def fleet() -> None:
    """What holds for the whole fleet."""


@fleet.command("inspect")
@pass_app
def inspect(app: App) -> None:
    """Show the fleet's settings."""
    out(json.dumps(app.call("GET", "/v1/settings"), indent=4))


@fleet.command("update")
@click.option("--vxlan-port", type=int, help="UDP port of tunnels (4789)")
@click.option("--vni-range", default="", metavar="FIRST-LAST", help="Numbers of new networks (4096-1048575)")
@click.option(
    "--vxlan-source-ports",
    default="",
    metavar="FIRST-LAST",
    help="UDP ports tunnels send from; auto: the kernel's",
)
@click.option("--image-gc-high", default="", metavar="PERCENT", help="Images go from a disk so full (85%)")
@click.option("--image-gc-low", default="", metavar="PERCENT", help="… until it is at most so full (75%)")
@click.option("--image-gc-min-age", default="", metavar="TIME", help="Not those used within (2m)")
@click.option("--image-keep", type=int, help="Images of each service that stay, for going back (3)")
@click.option("--build-cache-size", default="", metavar="SIZE", help="Results of build steps of a host (20g)")
@click.option("--build-cache-age", default="", metavar="TIME", help="… that were used within (60d)")
@click.option("--build-cache-free", default="", metavar="PERCENT", help="… while so much disk is free (0%)")
@pass_app
def update(
    app: App,
    vxlan_port: int | None,
    vni_range: str,
    vxlan_source_ports: str,
    image_gc_high: str,
    image_gc_low: str,
    image_gc_min_age: str,
    image_keep: int | None,
    build_cache_size: str,
    build_cache_age: str,
    build_cache_free: str,
) -> None:
    """Change the fleet's settings. Another port or other source ports rebuild all tunnels: containers stay,
    what they send each other is lost for a moment."""
    auto = vxlan_source_ports == "auto"
    body = UpdateSettings(
        vxlan_port=vxlan_port,
        vni_range=_range(vni_range),
        source_ports=(0, 0) if auto else _range(vxlan_source_ports),
        image_gc_high=percent(image_gc_high, "--image-gc-high"),
        image_gc_low=percent(image_gc_low, "--image-gc-low"),
        image_keep=image_keep,
        image_min_age=parse_duration(image_gc_min_age) if image_gc_min_age else None,
        build_cache_size=parse_bytes(build_cache_size) if build_cache_size else None,
        build_cache_age=parse_duration(build_cache_age) if build_cache_age else None,
        build_cache_free=percent(build_cache_free, "--build-cache-free"),
    )
    if body == UpdateSettings():
        raise InvalidInput("nothing is to be changed", hint="See `flota fleet update --help`")
    app.call("PATCH", "/v1/settings", body=to_plain(body))


@fleet.command("recovery")
@click.option("--format", "format_", default="", help="`json`")
@pass_app
def recovery(app: App, format_: str) -> None:
    """After a restore: which hosts have yet to tell what they know, and which knock that joined after the
    backup."""
    found = app.call("GET", "/v1/recovery")
    if format_ == "json":
        out(json.dumps(found))
        return
    if format_:
        raise InvalidInput(f"unknown format {format_[:40]!r}", hint="There is json")
    lines = [f"{name}: waited for" for name in found.get("awaited", ())]
    lines += [f"{name}: asked when it comes" for name in found.get("unheard", ())]
    lines += [
        f"{knock['name']} ({knock['id'][:12]}, {knock.get('address', '')}): knocks; it is not in the backup"
        for knock in found.get("knocks", ())
    ]
    for line in lines or ["all hosts have told what they know"]:
        out(clean(line))


@fleet.command("admit")
@click.argument("ref", metavar="NAME|ID")
@pass_app
def admit(app: App, ref: str) -> None:
    """After a restore: let in a host that joined after the backup. What runs there stays."""
    app.call("POST", f"/v1/recovery/admit/{segment(ref)}")


@fleet.command("settle")
@pass_app
def settle(app: App) -> None:
    """After a restore: go on without the hosts that have not told what they know. What they tell later is
    taken as far as nobody else has got it meanwhile."""
    app.call("POST", "/v1/recovery/settle")


@fleet.command("export")
@click.argument("where", metavar="[DIR|-]", required=False, default="-")
@pass_app
def export(app: App, where: str) -> None:
    """Write what people asked this fleet for (settings, networks, volumes, policies, services, containers
    that are labelled flota.export) as YAML: a file each in the folder DIR, or all to stdout."""
    from cli.commands import fleetfiles

    fleetfiles.export(app, where)


@fleet.command("import")
@click.option("--dry-run", is_flag=True, help="Only show what would change")
@click.argument("where", metavar="DIR|-")
@pass_app
def import_(app: App, where: str, dry_run: bool) -> None:
    """Make this fleet as the files say: what is missing is made, what differs is changed, what they don't
    name is left alone. Done twice, the second time changes nothing."""
    from cli.commands import fleetfiles

    fleetfiles.import_(app, where, dry_run=dry_run)


def _range(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    first, _, last = text.partition("-")
    try:
        return int(first), int(last or first)
    except ValueError:
        raise InvalidInput(f"{text[:60]!r} is no range", hint="Write FIRST-LAST") from None
