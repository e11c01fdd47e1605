"""The flags of `flota build` to a BuildRequest and what the client keeps for itself. Pure.

`flags` is what click collected, by parameter name; the environment is handed in. Invariant: all that is wrong
with a command line is told at once, each with its flag, and nothing was done then.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from cli.build import words
from cli.build.words import Destination, SecretPlace
from cli.parse.container import labels, parse_ulimit, resources
from image.context.layouts import SCHEME, layout_of
from image.platforms import parsed_platform
from image.reference import parse
from model.build import BuildRequest, CacheWay, Context, Output
from model.errors import InvalidInput, Problem
from model.quantity import parse_bytes
from model.spec import Struct

T = TypeVar("T")
Place = Literal["stdin", "path", "git", "http", "image", "layout"]
ALLOWED = ("network.host", "security.insecure", "device")
EPOCH = "SOURCE_DATE_EPOCH"


class Where(Struct):
    """Where a context is: `ref` is a path, an URL or a reference."""

    place: Place
    ref: str


class Wish(Struct):
    """`request` lacks the Dockerfile, and its contexts are as `contexts` say once these were looked at."""

    request: BuildRequest
    contexts: Mapping[str, Where]
    """By name; the main one's is empty."""
    file: str = ""
    """Of the Dockerfile: a path, `-`; empty: `Dockerfile` in the context."""
    secrets: Mapping[str, SecretPlace] = {}
    agents: Mapping[str, tuple[str, ...]] = {}
    outputs: tuple[Destination, ...] = ()
    iidfile: str = ""
    metadata_file: str = ""
    progress: str = "auto"
    host: str = ""


class _Faults:
    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, flag: str, message: str) -> None:
        self.found.append(Problem(path=flag, message=message))

    def take(self, flag: str, read: Callable[[], T], otherwise: T) -> T:
        """What `read` gives; where it can't, that is one fault more."""
        try:
            return read()
        except InvalidInput as error:
            self.add(flag, str(error))
            return otherwise

    def each(self, flag: str, texts: Iterable[str], read: Callable[[str], T]) -> list[T]:
        found: list[T] = []
        for text in texts:
            try:
                found.append(read(text))
            except InvalidInput as error:
                self.add(flag, str(error))
        return found


def wish(flags: Mapping[str, Any], context: str, environ: Mapping[str, str]) -> Wish:
    """Raises InvalidInput with every problem."""
    faults = _Faults()
    contexts = {"": _where(context), **_named(flags["build_context"], faults)}
    outputs = _outputs(flags, faults)
    made = Wish(
        request=_request(flags, environ, outputs, faults),
        contexts=contexts,
        file=flags["file"],
        secrets=dict(faults.each("--secret", flags["secret"], lambda t: words.secret(t, environ))),
        agents=dict(faults.each("--ssh", flags["ssh"], lambda t: words.agent(t, environ))),
        outputs=outputs,
        iidfile=flags["iidfile"],
        metadata_file=flags["metadata_file"],
        progress="quiet" if flags["quiet"] else flags["progress"],
        host=flags["host"],
    )
    _together(made, flags, faults)
    if faults.found:
        raise InvalidInput.of("flota build", tuple(faults.found))
    request = replace(made.request, secrets=tuple(made.secrets), ssh=tuple(made.agents))
    return replace(made, request=request)


def _request(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    outputs: tuple[Destination, ...],
    faults: _Faults,
) -> BuildRequest:
    none: dict[str, str] = {}
    args = faults.take("--build-arg", lambda: words.pairs(flags["build_arg"], environ), none)
    if EPOCH in environ:
        args.setdefault(EPOCH, environ[EPOCH])
    ways: dict[bool, list[CacheWay]] = {
        to: faults.each(
            "--cache-to" if to else "--cache-from",
            flags["cache_to" if to else "cache_from"],
            partial(words.cache, to=to),
        )
        for to in (False, True)
    }
    more = _split(one.output.options.get("name", "") for one in outputs)
    stated, sbom = _attestations(flags, faults)
    limits = {u.name: (u.soft, u.hard) for u in faults.each("--ulimit", flags["ulimit"], parse_ulimit)}
    return BuildRequest(
        dockerfile=b"",
        target=flags["target"],
        args=args,
        labels=faults.take("--label", lambda: labels(flags), {}),
        names=tuple(dict.fromkeys(faults.each("--tag", [*flags["tag"], *more], _name))),
        platforms=tuple(faults.each("--platform", _split(flags["platform"]), _platform)),
        no_cache=flags["no_cache"],
        no_cache_stages=tuple(_split(flags["no_cache_filter"])),
        pull=flags["pull"],
        network=flags["network"],
        hosts=tuple(faults.each("--add-host", flags["add_host"], _add_host)),
        resources=faults.take("--memory, --cpus", lambda: resources(flags), resources({})),
        shm_size=faults.take("--shm-size", lambda: _bytes(flags["shm_size"]), 0),
        ulimits=limits,
        allow=tuple(faults.each("--allow", _split(flags["allow"]), _allowed)),
        cache_from=tuple(ways[False]),
        cache_to=tuple(ways[True]),
        outputs=tuple(one.output for one in outputs),
        provenance=stated.mode,
        provenance_version=stated.version,
        builder_id=stated.builder_id,
        sbom=sbom,
        check=flags["check"],
        on_failure="shell" if flags["on_failure"] == "shell" else "",
        private_addresses=flags["private_addresses"],
    )


def _outputs(flags: Mapping[str, Any], faults: _Faults) -> tuple[Destination, ...]:
    found = faults.each("--output", flags["output"], words.output)
    if flags["push"]:
        if found and any(one.output.kind not in ("image", "registry") for one in found):
            faults.add("--push", "an output is asked for that is not pushed. Leave out one of them")
        options = {k: v for one in found for k, v in one.output.options.items()}
        found = [Destination(output=Output(kind="registry", options=options))]
        if flags["load"]:
            found.append(Destination(output=Output()))
    elif flags["load"] and all(one.output.kind != "image" for one in found):
        found.append(Destination(output=Output()))
    return tuple(found or [Destination(output=Output())])


def _attestations(flags: Mapping[str, Any], faults: _Faults) -> tuple[words.Provenance, bool]:
    said = dict(faults.each("--attest", flags["attest"], words.attestation))
    for kind in ("provenance", "sbom"):
        if flags[kind]:
            said[kind] = flags[kind]
    none = words.Provenance()
    stated = faults.take("--provenance", lambda: words.provenance(said.get("provenance", "false")), none)
    return stated, faults.take("--sbom", lambda: words.sbom(said.get("sbom", "false")), False)


def _together(made: Wish, flags: Mapping[str, Any], faults: _Faults) -> None:
    """What fits by itself and not with the rest."""
    if made.file == "-" and made.contexts[""].place == "stdin":
        faults.add("--file", "the context and the Dockerfile can't both come from standard input")
    kinds = {one.output.kind for one in made.outputs}
    if "registry" in kinds and not made.request.names:
        faults.add("--push", "the image has no name to be pushed to. Give one by --tag")
    if sum(one.dest == "-" for one in made.outputs) > 1:
        faults.add("--output", "two outputs can't both be written to standard output")
    if flags["on_failure"] not in ("", "shell"):
        faults.add("--on-failure", f"{flags['on_failure'][:40]!r} is not known. Write shell")


def _where(text: str) -> Where:
    if text == "-":
        return Where(place="stdin", ref="-")
    if words.GIT.match(text):
        return Where(place="git", ref=text)
    if words.HTTP.match(text):
        return Where(place="http", ref=text)
    return Where(place="path", ref=text)


def _named(entries: Iterable[str], faults: _Faults) -> dict[str, Where]:
    found: dict[str, Where] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name or not value:
            faults.add("--build-context", f"{entry[:80]!r} is no NAME=PLACE")
        elif value == "-":
            faults.add("--build-context", f"{name[:80]} can't come from standard input")
        elif value.startswith("docker-image://"):
            found[name.lower()] = Where(place="image", ref=value.removeprefix("docker-image://"))
        elif value.startswith(SCHEME):
            ref = value.removeprefix(SCHEME)
            faults.each("--build-context", [ref], layout_of)
            found[name.lower()] = Where(place="layout", ref=ref)
        else:
            found[name.lower()] = _where(value)
    return found


def context_of(name: str, where: Where) -> Context:
    """As the host hears of it; a path is the client's to send."""
    kinds: Mapping[str, Literal["local", "git", "http", "image", "layout"]] = {
        "git": "git", "http": "http", "image": "image", "layout": "layout",
    }  # fmt: skip
    return Context(name=name, kind=kinds.get(where.place, "local"), ref=where.ref)


def usual_place(made: Wish, cwd: str) -> str:
    """What builds of the same things are known by, wherever they are started: an URL, or a folder's name, and
    the Dockerfile's."""
    main = made.contexts[""]
    if main.place in ("git", "http"):
        name = main.ref.partition("#")[0]
    else:
        name = posixpath.basename(posixpath.normpath(posixpath.join(cwd, main.ref)))
    return f"{name}:{posixpath.basename(made.file) or 'Dockerfile'}"


def _name(text: str) -> str:
    reference = parse(text)
    if reference.digest:
        raise InvalidInput(f"{text[:80]!r}: an image that is to be made has no digest yet")
    return text


def _platform(text: str) -> str:
    parsed_platform(text)
    return text


def _add_host(text: str) -> str:
    name, _, address = text.replace("=", ":", 1).partition(":")
    if not name or not address:
        raise InvalidInput(f"{text[:80]!r} is no NAME:ADDRESS")
    return f"{name}:{address}"


def _allowed(text: str) -> str:
    if text.partition("=")[0] not in ALLOWED:
        raise InvalidInput(f"there is no entitlement {text[:60]!r}", hint=f"There are {', '.join(ALLOWED)}")
    return text


def _bytes(text: str) -> int:
    return parse_bytes(text) if text else 0


def _split(texts: Iterable[str]) -> list[str]:
    """Of a flag that may be given several times, or once with commas."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]
