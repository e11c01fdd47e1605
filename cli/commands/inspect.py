"""`flota inspect` of anything, and `flota why`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cli import render
from cli.context import App, now, out, pass_app, segment, whole
from model.api import HostInfo, ImageInfo, InstanceInfo, NetworkInfo, PolicyInfo, ServiceInfo, VolumeInfo
from model.errors import FlotaError, NotFound
from model.health import HealthLog

KINDS: dict[str, tuple[str, type[Any]]] = {
    "container": ("/v1/instances/{}", InstanceInfo),
    "service": ("/v1/services/{}", ServiceInfo),
    "network": ("/v1/networks/{}", NetworkInfo),
    "policy": ("/v1/policies/{}", PolicyInfo),
    "node": ("/v1/hosts/{}", HostInfo),
    "image": ("/v1/images/{}", ImageInfo),
    "volume": ("/v1/volumes/{}", VolumeInfo),
}
"""In the order in which a bare name is looked up."""


@click.command()
@click.option("--type", "kind", type=click.Choice(list(KINDS)), help="What it is, if a name fits several")
@click.option("--format", "-f", "format_", default="", help="`json`, or a template such as '{{.status.pid}}'")
@click.argument("refs", nargs=-1, required=True, metavar="NAME|ID…")
@pass_app
def inspect(app: App, refs: tuple[str, ...], kind: str | None, format_: str) -> None:
    """Show everything about containers, services, networks, policies, nodes, images or volumes."""
    found: list[Any] = []
    for ref in refs:
        found += find(app, ref, kind)
    shown(found, format_)


def shown(found: list[Any], format_: str) -> None:
    """As `--format` says; JSON for people without."""
    if format_ == "json":
        sys.stdout.write(render.json_lines(found))
    elif format_:
        sys.stdout.write(render.template(format_, (), found))
    else:
        out(json.dumps(found, indent=4, ensure_ascii=False))


def find(app: App, ref: str, kind: str | None, *, platform: str = "") -> list[Any]:
    """The object, as a list (images and volumes are on several hosts). Raises NotFound."""
    for name, (path, type_) in KINDS.items():
        if kind is not None and name != kind:
            continue
        try:
            wish = {"platform": platform} if platform else {}
            value = app.call("GET", path.format(segment(ref)), **wish)
        except NotFound:
            continue
        found = whole(value if isinstance(value, list) else [value], type_)
        return [_with_health(app, item) for item in found] if name == "container" else found
    raise NotFound(f"no such {kind or 'object'}: {ref}")


def _with_health(app: App, item: dict[str, Any]) -> dict[str, Any]:
    """Its last probes are known to its host alone, which may be away."""
    if not item["status"].get("health"):
        return item
    try:
        log = app.call("GET", f"/v1/instances/{item['instance']['id']}/health")
        return {**item, "health": whole([log], HealthLog)[0]}
    except FlotaError as error:
        return {**item, "health": {"status": item["status"]["health"], "error": str(error)}}


@click.command()
@click.option("--format", "format_", default="", help="`json`")
@click.argument("ref", metavar="NAME|ID")
@pass_app
def why(app: App, ref: str, format_: str) -> None:
    """Tell why a container, service or node is as it is."""
    answer = app.call("GET", f"/v1/why/{segment(ref)}")
    if format_ == "json":
        sys.stdout.write(render.json_lines([answer]))
        return
    out(f"{answer['kind']} {render.clean(answer['name'])}: {render.clean(answer['summary'])}")
    for reason in answer.get("reasons", ()):
        out(f"  - {render.clean(reason)}")
    for condition in answer.get("conditions", ()):
        out(f"  ! {condition['type']}: {render.clean(condition['message'])}")
    at = now()
    for event in answer.get("events", ()):
        out(f"  {render.age(event.get('at', 0), at):>24}  {event['action']} {event.get('host', '')}")
