"""`flota manifest`: look at manifests in registries, and put images of several platforms under one name.

A list that is being put together lies on this machine, a file each in the operator's folder, until it is
pushed.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

import click
import msgspec

from cli.context import App, node_option, out, pass_app
from cli.parse import manifests as lists
from model.codec import UNREADABLE
from model.errors import InvalidInput, NotFound
from model.remoteimages import RemoteImage


@click.group()
def manifest() -> None:
    """Look at manifests in registries, and put images of several platforms under one name."""


@manifest.command("inspect")
@click.option("--verbose", "-v", is_flag=True, help="With digest, media type and platforms")
@node_option
@click.argument("ref", metavar="IMAGE|LIST")
@pass_app
def inspect(app: App, ref: str, verbose: bool, node: str) -> None:
    """Show the manifest or index that a name means at its registry, without pulling; or a list of this
    machine's."""
    kept = _read(ref)
    if kept is not None:
        out(json.dumps(json.loads(lists.document(kept)), indent=3))
        return
    found = app.call("GET", "/v1/distribution", login=app.login_for(ref), ref=ref, host=node)
    document = json.loads(found["document"])
    if verbose:
        descriptor = {
            "mediaType": found.get("media_type", ""),
            "digest": found["digest"],
            "size": found.get("size", 0),
            "platforms": found.get("platforms", []),
        }
        document = {"Ref": found["ref"], "Descriptor": descriptor, "Manifest": document}
    out(json.dumps(document, indent=3))


@manifest.command("create")
@click.option("--amend", "-a", is_flag=True, help="Add to a list that is there")
@node_option
@click.argument("target", metavar="LIST")
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE…")
@pass_app
def create(app: App, target: str, refs: tuple[str, ...], amend: bool, node: str) -> None:
    """Begin a list of images that lie in registries, to be pushed under one name. Of an index all that it
    names is taken."""
    _checked(target)
    new: list[lists.Member] = []
    before = lists.amended(_read(target), target, (), amend=amend)
    for ref in refs:
        query = {"ref": ref, "config": True, "host": node}
        reply = app.call("GET", "/v1/distribution", login=app.login_for(ref), **query)
        new += lists.members_of(ref, msgspec.convert(reply, RemoteImage))
    _write(lists.amended(before, target, new, amend=True))
    out(f"Created manifest list {target}")


@manifest.command("annotate")
@click.option("--os", "os_", default="", help="Operating system")
@click.option("--arch", default="", help="Architecture")
@click.option("--variant", default="", help="Variant of the architecture")
@click.option("--os-version", default="")
@click.option("--os-features", multiple=True)
@click.argument("target", metavar="LIST")
@click.argument("ref", metavar="IMAGE")
def annotate(target: str, ref: str, os_: str, arch: str, variant: str, **more: Any) -> None:
    """Say for what platform an image of a list is made."""
    wishes = {
        "os": os_,
        "architecture": arch,
        "variant": variant,
        "os.version": more["os_version"],
        "os.features": list(more["os_features"]),
    }
    _write(lists.annotated(_needed(target), ref, wishes))


@manifest.command("push")
@click.option("--purge", "-p", is_flag=True, help="Forget the list here once it is pushed")
@node_option
@click.argument("target", metavar="LIST")
@pass_app
def push(app: App, target: str, purge: bool, node: str) -> None:
    """Push a list to its registry, by one host; images that lie in other repositories are put beside it."""
    found = _needed(target)
    body = {"document": lists.document(found), "origins": lists.origins(found)}
    login = app.login_for(target)
    out(app.call("POST", "/v1/manifests", body=body, login=login, ref=target, host=node)["digest"])
    if purge:
        os.unlink(_path(target))


@manifest.command("rm")
@click.argument("targets", nargs=-1, required=True, metavar="LIST…")
def rm(targets: tuple[str, ...]) -> None:
    """Forget lists of this machine's; what was pushed stays."""
    for target in targets:
        _needed(target)
    for target in targets:
        os.unlink(_path(target))
        out(target)


def _checked(target: str) -> None:
    if "@" in target or not target.strip():
        raise InvalidInput(f"{target!r} is no name for a manifest list", hint="Write NAME:TAG")


def _path(target: str) -> str:
    from deploy.operatorhome import operator_home

    return os.path.join(operator_home(), "manifests", f"{quote(target, safe='')}.json")


def _read(target: str) -> lists.ManifestList | None:
    """Raises InvalidInput for a file that somebody has spoilt."""
    try:
        with open(_path(target), "rb") as file:
            return msgspec.json.decode(file.read(), type=lists.ManifestList)
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        raise InvalidInput(
            f"{_path(target)} can't be read: {error}", hint="Remove it and begin again"
        ) from error


def _needed(target: str) -> lists.ManifestList:
    found = _read(target)
    if found is None:
        raise NotFound(f"no manifest list {target} is here", hint="Begin one: flota manifest create")
    return found


def _write(found: lists.ManifestList) -> None:
    path = _path(found.ref)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    aside = f"{path}.{os.getpid()}"
    with open(aside, "wb") as file:
        file.write(msgspec.json.encode(found))
    os.replace(aside, path)
