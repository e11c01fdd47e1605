"""Which registries a build will speak to, as far as its words say: whose logins go with it. Pure.

Invariant: no login leaves this machine for a registry that neither the Dockerfile nor the command line names.
"""

from __future__ import annotations

from collections.abc import Iterator

from cli.build.request import Wish
from image.dockerfile.instruction import Copy, Dockerfile, Run
from image.dockerfile.parser import parse
from image.dockerfile.words import expand
from model.build import BuildRequest
from model.errors import InvalidInput
from model.registries import registry_of


def registries(wish: Wish, request: BuildRequest) -> tuple[str, ...]:
    """Their hosts. A Dockerfile that can't be read names none: its host will tell what is wrong."""
    refs = [where.ref for where in wish.contexts.values() if where.place == "image"]
    refs += [one.options["ref"] for one in (*request.cache_from, *request.cache_to) if one.options.get("ref")]
    if any(output.kind == "registry" for output in request.outputs):
        refs += request.names
    try:
        refs += _images(parse(request.dockerfile), request) if request.dockerfile else ()
    except InvalidInput:
        pass
    return tuple(dict.fromkeys(registry_of(ref) for ref in refs if ref and "$" not in ref))


def _images(dockerfile: Dockerfile, request: BuildRequest) -> Iterator[str]:
    """What stages begin with and files come from; names of stages among them do no harm."""
    values = {pair.key: pair.value for arg in dockerfile.args for pair in arg.args}
    values |= {key: value for key, value in request.args.items() if key in values}
    names = {stage.head.name for stage in dockerfile.stages if stage.head.name}
    for stage in dockerfile.stages:
        yield from _expanded(stage.head.image, values, names, dockerfile.escape)
        for one in stage.instructions:
            if isinstance(one, Copy):
                yield from _expanded(one.origin, values, names, dockerfile.escape)
            elif isinstance(one, Run):
                for mount in one.mounts:
                    yield from _expanded(mount.origin, values, names, dockerfile.escape)


def _expanded(text: str, values: dict[str, str | None], names: set[str], escape: str) -> Iterator[str]:
    unset: list[str] = []

    def value(name: str) -> str | None:
        found = values.get(name)
        unset.extend([name] if found is None else ())
        return found

    try:
        found = expand(text, value, escape=escape) if "$" in text else text
    except InvalidInput:
        return
    if found and not unset and found.lower() not in names and found != "scratch" and not found.isdecimal():
        yield found
