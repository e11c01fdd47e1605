"""`flota builder`: what builds keep on hosts' disks."""

from __future__ import annotations

import click

from cli import render
from cli.commands.build import build
from cli.context import App, format_option, node_option, now, out, pass_app, short, show
from cli.render import Column
from model.buildcache import CacheEntry
from model.errors import InvalidInput
from model.quantity import format_size, parse_bytes, parse_duration


@click.group()
def builder() -> None:
    """What builds keep, on every host or with --node on one."""


builder.add_command(build, "build")


@builder.command("du")
@click.option("--verbose", is_flag=True, help="Whole ids and instructions")
@click.option(
    "--filter", "filters", multiple=True, help="type=run|copy|workdir|mount|context, inuse=, shared="
)
@node_option
@format_option
@pass_app
def du(app: App, verbose: bool, filters: tuple[str, ...], node: str, format_: str) -> None:
    """List results of steps, shared folders and sent files, the longest unused first."""
    wanted = _wanted(filters)
    rows = [
        {**entry, "host": host.get("host", "")}
        for host in app.call("GET", "/v1/builder/cache", host=node)
        for entry in host.get("entries", ())
        if all(str(entry.get(key, False)).lower() == value for key, value in wanted.items())
    ]
    show(rows, _columns(verbose), of=CacheEntry, format_=format_)
    if not format_:
        whole = sum(row.get("size", 0) for row in rows)
        free = sum(row.get("size", 0) for row in rows if not row.get("shared") and not row.get("in_use"))
        out(f"Reclaimable: {format_size(free)}\nTotal: {format_size(whole)}")


@builder.command("prune")
@click.option("--all", "-a", "all_", is_flag=True, help="Also what images share")
@click.option("--force", "-f", is_flag=True, help="Do not ask")
@click.option("--keep-storage", "--reserved-space", default="", metavar="SIZE", help="So much may stay")
@click.option("--filter", "filters", multiple=True, help="until=24h: not used for so long")
@node_option
@pass_app
def prune(app: App, all_: bool, force: bool, keep_storage: str, filters: tuple[str, ...], node: str) -> None:
    """Remove what builds keep and no build uses now, on every host."""
    wish = {
        "all": all_,
        "unused_for": _unused(filters),
        "keep": parse_bytes(keep_storage) if keep_storage else 0,
    }
    if not force:
        what = "All of the build cache" if all_ else "The build cache that no image shares"
        click.confirm(f"{what} will be removed on {node or 'every host'}. Go on?", abort=True)
    freed = 0
    for host in app.call("POST", "/v1/builder/prune", body=wish, host=node):
        for ident in host.get("entries", ()):
            out(f"{host.get('host', '')}: {short(ident)}")
        freed += host.get("freed", 0)
    out(f"Total reclaimed space: {format_size(freed)}")


def _unused(filters: tuple[str, ...]) -> float:
    longest = 0.0
    for text in filters:
        key, _, value = text.partition("=")
        if key not in ("until", "unused-for"):
            raise InvalidInput(f"--filter {text[:60]!r} is not known", hint="Write until=24h")
        longest = max(longest, parse_duration(value))
    return longest


def _wanted(filters: tuple[str, ...]) -> dict[str, str]:
    keys = {"type": "kind", "inuse": "in_use", "shared": "shared"}
    found = {}
    for text in filters:
        key, _, value = text.partition("=")
        if key not in keys:
            raise InvalidInput(f"--filter {text[:60]!r} is not known", hint=f"There are {', '.join(keys)}")
        found[keys[key]] = value.lower()
    return found


def _columns(whole: bool) -> list[Column]:
    at = now()
    return [
        ("ID", lambda r: r["id"] if whole else short(r["id"])),
        ("NODE", lambda r: r["host"]),
        ("TYPE", lambda r: r.get("kind", "run")),
        ("SIZE", lambda r: format_size(r.get("size", 0))),
        ("LAST USED", lambda r: render.age(r.get("used", 0), at)),
        ("SHARED", lambda r: "true" if r.get("shared") else "false"),
        ("WHAT", lambda r: r.get("source", "") if whole else r.get("source", "")[:60]),
    ]
