"""`flota update`: what can be changed of a container while it lives."""

from __future__ import annotations

from typing import Any

import click

from cli.commands.networks import await_limited, await_wired
from cli.context import App, each, pass_app, segment
from cli.options import limit_options
from cli.parse.container import limits_of
from cli.parse.networks import bandwidth as parse_bandwidth
from cli.parse.ports import parse_publish
from model.api import UpdateBandwidth, UpdatePorts
from model.codec import to_plain
from model.errors import InvalidInput
from model.limits import UpdateLimits


@click.command()
@click.option("--publish-add", multiple=True, help="[IP:][HOST:]CONTAINER[/PROTOCOL], as with run -p")
@click.option("--publish-rm", multiple=True, help="CONTAINER[/PROTOCOL], or the whole of a published port")
@click.option("--bandwidth", default="", help="[name=NETWORK,]in=100mbit,out=20mbit; 0: no limit")
@limit_options
@click.argument("refs", nargs=-1, required=True, metavar="CONTAINER…")
@pass_app
def update(
    app: App,
    refs: tuple[str, ...],
    publish_add: tuple[str, ...],
    publish_rm: tuple[str, ...],
    bandwidth: str,
    **flags: Any,
) -> None:
    """Change limits, restart policy, published ports and bandwidth of containers, running or not."""
    wish = limits_of(flags)
    if not publish_add and not publish_rm and not bandwidth and wish == UpdateLimits():
        hint = "Give for example --memory, --cpus, --restart, --publish-add, --publish-rm or --bandwidth"
        raise InvalidInput("there is nothing to change", hint=hint)
    limits = _limits(bandwidth) if bandwidth else None
    request = UpdatePorts(
        add=tuple(port for text in publish_add for port in parse_publish(text)),
        remove=tuple(port for text in publish_rm for port in parse_publish(text)),
    )

    def act(ref: str) -> None:
        if limits is not None:
            app.call("POST", f"/v1/instances/{segment(ref)}/bandwidth", body=to_plain(limits))
        if publish_add or publish_rm:
            app.call("POST", f"/v1/instances/{segment(ref)}/ports", body=to_plain(request))
        if publish_add or publish_rm or limits is not None:
            await_wired(app, ref)
        if wish != UpdateLimits():
            app.call("POST", f"/v1/instances/{segment(ref)}/limits", body=to_plain(wish))
            await_limited(app, ref)

    each(refs, act)


def _limits(text: str) -> UpdateBandwidth:
    network, rates = parse_bandwidth(text)
    return UpdateBandwidth(network=network, bandwidth_in=rates.get("in"), bandwidth_out=rates.get("out"))
