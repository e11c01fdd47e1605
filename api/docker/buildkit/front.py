"""What BuildKit's clients ask for, as a request to our own builder. Pure.

`POST /build` says it in its query, `/grpc` by attributes of the frontend `dockerfile.v0`; both come to a
BuildRequest whose local contexts are streams of the session's folders. Source: moby, builder-next/builder.go;
buildkit, frontend/dockerui. Invariant: what can't be done is refused by its name before anything is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from api.docker.images.names import joined
from model.build import ANY, BuildRequest, CacheWay, Output
from model.errors import InvalidInput, Unsupported
from model.ignorefile import patterns_of
from model.registries import DEFAULT_HOST, registry_of
from model.spec import Struct

CONTEXT, DOCKERFILE = "context", "dockerfile"
"""What clients call the folders of a build."""
SECRETS = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
SSH = "/moby.sshforward.v1.SSH/ForwardAgent"
MAX_REGISTRIES = 32
_KINDS: Mapping[str, Literal["image", "docker", "oci", "tar", "local"]] = {
    "moby": "image",
    "image": "image",
    "docker": "docker",
    "oci": "oci",
    "tar": "tar",
    "local": "local",
}
_OPTIONS = frozenset(
    {"name", "push", "load", "dest", "tar", "unpack", "store", "buildinfo", "prefer-image-digest"}
)
_REWRITES = "rewrite-timestamp"
_REGISTRY = re.compile(
    rb"(?:^|[\s=\"',])((?:[\w-]+(?:\.[\w-]+)+(?::\d{1,5})?|localhost|[\w-]+:\d{1,5}))/[\w.]"
)
_INLINE = "BUILDKIT_INLINE_CACHE"


class Folder(Struct):
    """A folder that the client gives: by which name, of which session (empty: the build's own)."""

    name: str
    session: str = ""
    excludes: tuple[str, ...] = ()


class Plan(Struct):
    """`request` lacks the Dockerfile where `dockerfile` names a folder that has it."""

    request: BuildRequest
    dockerfile: Folder | None = None
    folders: Mapping[str, Folder] = {}
    """By the names of the request's contexts."""


class _Exporter(msgspec.Struct, rename="pascal"):
    type: str = ""
    attrs: dict[str, str] | None = None


def exporters_of(text: str) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """The `outputs` of a query: type and attributes of each. Raises InvalidInput."""
    if not text:
        return ()
    try:
        found = msgspec.json.decode(text, type=list[_Exporter] | None) or []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"outputs: {error}") from error
    return tuple((one.type, one.attrs or {}) for one in found)


def outputs_of(exporters: Sequence[tuple[str, Mapping[str, str]]]) -> tuple[Output, ...]:
    """None given: an image in the fleet. Raises InvalidInput, Unsupported."""
    if not exporters:
        return (Output(),)
    found: list[Output] = []
    for type_, attrs in exporters:
        if type_ in ("", "cacheonly"):
            continue
        kind = _KINDS.get(type_)
        if kind is None:
            raise InvalidInput(f"output of type {type_[:40]!r}: image, docker, oci, tar and local are known")
        for name, value in attrs.items():
            if name not in _OPTIONS and name != _REWRITES and value not in ("", "false"):
                raise Unsupported(f"output {type_}: {name[:60]} is not known here", hint="Leave it out")
        options = {_REWRITES: "true"} if attrs.get(_REWRITES) == "true" else {}
        found.append(Output(kind="registry" if kind == "image" and pushed(attrs) else kind, options=options))
    return tuple(found)


def names_of(exporters: Sequence[tuple[str, Mapping[str, str]]]) -> Iterator[str]:
    """What exporters call the image."""
    for _, attrs in exporters:
        yield from (joined(name, "") for name in attrs.get("name", "").split(",") if name)


def pushed(attrs: Mapping[str, str]) -> bool:
    return attrs.get("push", "").lower() in ("true", "1", "t")


def cache_ways(references: Sequence[str], args: Mapping[str, str]) -> dict[str, Any]:
    """`cache_from` and `cache_to` of a request."""
    found: dict[str, Any] = {}
    if references:
        found["cache_from"] = tuple(
            CacheWay(kind="registry", options={"ref": ref}) for ref in references if ref
        )
    if args.get(_INLINE, "").lower() in ("1", "true", "t"):
        found["cache_to"] = (CacheWay(kind="inline"),)
    return found


def given(serves: Callable[[str], bool]) -> dict[str, Any]:
    """`secrets` and `ssh` of a request: whatever a step asks for, if the client serves any."""
    return {"secrets": (ANY,) if serves(SECRETS) else (), "ssh": (ANY,) if serves(SSH) else ()}


def ignored(text: bytes | None, file: str) -> tuple[str, ...]:
    """The patterns of an ignore file, as clients take them. Raises InvalidInput."""
    if text is None:
        return ()
    return tuple(pattern for _, pattern in patterns_of(text, file))


def registries_named(text: bytes, *references: str) -> tuple[str, ...]:
    """Whose logins a build may need: of images that its Dockerfile names, and of its references. The default
    one is always among them."""
    named = [one.decode("ascii", "replace") for one in _REGISTRY.findall(text)]
    every = dict.fromkeys((DEFAULT_HOST, *(registry_of(ref) for ref in references if ref), *named))
    return tuple(every)[:MAX_REGISTRIES]
