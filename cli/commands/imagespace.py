"""Commands about the room that images and what containers write take on hosts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from cli.context import App, familiar, filter_in_seconds, format_option, node_option, out, pass_app, show
from cli.render import Column
from model.disk import DiskUse
from model.errors import InvalidInput
from model.quantity import format_size

_KINDS = {
    "images": "Images",
    "containers": "Containers",
    "volumes": "Local Volumes",
    "build cache": "Build Cache",
}


@click.command("prune")
@click.option("--all", "-a", "all_", is_flag=True, help="All that nothing uses, also those with a name")
@click.option("--force", "-f", is_flag=True, help="Do not ask")
@click.option("--filter", "filters", multiple=True, help="until=24h or a time, label=KEY[=VALUE], label!=…")
@node_option
@pass_app
def prune(app: App, all_: bool, force: bool, filters: tuple[str, ...], node: str) -> None:
    """Remove unused images, on every host. What a container or a service is made of stays, and what a service
    may go back to."""
    if not force:
        what = "that no container or service uses" if all_ else "without a name that nothing uses"
        click.confirm(f"All images {what} will be removed on {node or 'every host'}. Go on?", abort=True)
    wanted = [filter_in_seconds(text) for text in filters]
    _tell(app.call("POST", "/v1/images/prune", all=all_, filter=wanted, host=node))


@click.command("gc")
@click.option("--to", "to", default="", metavar="PERCENT", help="Until the disk is at most so full")
@node_option
@pass_app
def gc(app: App, to: str, node: str) -> None:
    """Make room for images now, on every host: the longest unused go first. Without --to only where the disk
    is fuller than the fleet's settings allow (`flota fleet update --image-gc-high`)."""
    _tell(app.call("POST", "/v1/images/gc", to=percent(to, "--to"), host=node))


def percent(text: str, option: str) -> int | None:
    """`85%` or `85`; None when it is not given. Raises InvalidInput."""
    if not text:
        return None
    digits = text.removesuffix("%")
    if not digits.isdecimal() or int(digits) > 100:
        raise InvalidInput(f"{option} {text[:40]!r} is no percentage", hint="Write 85 or 85%")
    return int(digits)


def _tell(removed: Iterable[dict[str, Any]]) -> None:
    freed = 0
    for host in removed:
        name = host.get("host", "")
        lines = [f"untagged: {familiar(ref)}" for ref in host.get("untagged", ())]
        lines += [f"deleted: {ident}" for ident in host.get("deleted", ())]
        lines += [f"kept: {familiar(ref)}: {why}" for ref, why in host.get("spared", {}).items()]
        for line in lines:
            out(f"{name}: {line}")
        freed += host.get("freed", 0)
    out(f"Total reclaimed space: {format_size(freed)}")


@click.command("df")
@node_option
@format_option
@pass_app
def df(app: App, node: str, format_: str) -> None:
    """What images, containers and volumes take of each host's disk, and what could be had back."""
    rows = [
        {**use, "host": disk.get("host", ""), "full": _full(disk)}
        for disk in app.call("GET", "/v1/disk", host=node)
        for use in disk["uses"]
    ]
    show(rows, _COLUMNS, of=DiskUse, format_=format_)


def _full(disk: dict[str, Any]) -> str:
    capacity = disk["capacity"]
    used = capacity - disk["free"]
    share = f"{100 * used / capacity:.0f}%" if capacity else "-"
    return f"{share} of {format_size(capacity)}"


def _reclaimable(row: dict[str, Any]) -> str:
    share = f" ({100 * row['reclaimable'] / row['size']:.0f}%)" if row["size"] else ""
    return f"{format_size(row['reclaimable'])}{share}"


_COLUMNS: list[Column] = [
    ("NODE", lambda r: r["host"]),
    ("TYPE", lambda r: _KINDS.get(r["kind"], r["kind"])),
    ("TOTAL", lambda r: str(r["total"])),
    ("ACTIVE", lambda r: str(r["active"])),
    ("SIZE", lambda r: format_size(r["size"])),
    ("RECLAIMABLE", _reclaimable),
    ("DISK", lambda r: r["full"]),
]
