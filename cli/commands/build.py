"""`flota build`, with the flags of docker build and docker buildx build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli.context import App, pass_app

F = Callable[..., Any]
WHAT = (
    click.option("--file", "-f", default="", help="The Dockerfile, anywhere; - for standard input"),
    click.option("--tag", "-t", multiple=True, metavar="NAME[:TAG]", help="Name of the image"),
    click.option("--target", default="", help="The stage that is built; the last without"),
    click.option("--build-arg", multiple=True, metavar="KEY[=VALUE]", help="Value of an ARG"),
    click.option("--build-context", multiple=True, metavar="NAME=PLACE", help="One more context"),
    click.option("--label", multiple=True, metavar="KEY=VALUE", help="Of the image"),
    click.option("--label-file", type=click.File(), multiple=True, help="A file of KEY=VALUE lines"),
    click.option("--platform", multiple=True, metavar="OS/ARCH", help="What it is made for"),
    click.option("--check", is_flag=True, help="Only judge the Dockerfile"),
    click.option(
        "--call", default="build", metavar="WHAT", help="build, check, outline or targets (,format=json)"
    ),
)
HOW = (
    click.option("--no-cache", is_flag=True, help="Do all of it anew"),
    click.option("--no-cache-filter", multiple=True, metavar="STAGE", help="Do these stages anew"),
    click.option("--pull", is_flag=True, help="Ask registries for newer base images"),
    click.option("--cache-from", multiple=True, metavar="NAME|type=…", help="Where to look for steps done"),
    click.option("--cache-to", multiple=True, metavar="NAME|type=…", help="Where to leave them"),
    click.option("--network", default="", help="Of RUN: default, none, host, or a network's name"),
    click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="For /etc/hosts of RUN"),
    click.option("--shm-size", default="", help="Size of /dev/shm in RUN"),
    click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Of RUN"),
    click.option("--memory", "-m", default="", help="Limit of RUN, for example 512m"),
    click.option("--memory-swap", default="", help="Memory and swap together; -1: unlimited"),
    click.option("--cpus", default="", help="Limit of RUN, for example 1.5"),
    click.option("--cpu-shares", "-c", type=int, help="Relative weight of RUN"),
    click.option("--cpuset-cpus", default="", help="For example 0-1"),
    click.option("--secret", multiple=True, metavar="id=…,src=…|env=…", help="For RUN --mount=type=secret"),
    click.option("--ssh", multiple=True, metavar="default|ID=SOCKET", help="For RUN --mount=type=ssh"),
    click.option("--allow", multiple=True, help="network.host, security.insecure, device"),
    click.option("--private-addresses", is_flag=True, help="ADD may fetch from private addresses"),
    click.option("--on-failure", default="", metavar="shell", help="A shell in the step that failed"),
    click.option("--host", "--node", "host", default="", help="Build on this host of the fleet"),
)
RESULT = (
    click.option("--output", "-o", multiple=True, metavar="PATH|type=…", help="What becomes of the result"),
    click.option("--push", is_flag=True, help="Push the image: type=registry"),
    click.option("--load", is_flag=True, help="Keep the image on the host, as without --output"),
    click.option("--copy/--no-copy", default=True, help="Copy the image to every other host, without --host"),
    click.option("--iidfile", default="", metavar="FILE", help="Write the image's id to it"),
    click.option("--metadata-file", default="", metavar="FILE", help="Write what was made to it, as JSON"),
    click.option(
        "--provenance",
        default="",
        metavar="BOOL|mode=…",
        help="State how it was built: mode=min|max, version=v1",
    ),
    click.option("--sbom", default="", metavar="BOOL", help="List the packages in it"),
    click.option("--attest", multiple=True, metavar="type=…", help="The long form of these"),
    click.option("--quiet", "-q", is_flag=True, help="Only the image's id"),
    click.option(
        "--progress",
        type=click.Choice(["auto", "plain", "tty", "quiet", "none", "rawjson"]),
        default="auto",
        help="How it is shown",
    ),
    click.option("--rm", is_flag=True, hidden=True),
    click.option("--force-rm", is_flag=True, hidden=True),
    click.option("--compress", is_flag=True, hidden=True),
)


def _options(command: F) -> F:
    for option in reversed(WHAT + HOW + RESULT):
        command = option(command)
    return command


@click.command()
@_options
@click.argument("context", metavar="PATH|URL|-")
@pass_app
def build(app: App, context: str, **flags: Any) -> int:
    """Build an image from a Dockerfile, on a host of the fleet."""
    from cli.build.command import build as run

    return run(app, context, flags)
