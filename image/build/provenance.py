"""How an image was built, as a provenance predicate: by whom, when, of what, as who asked for it. Pure.

`min` tells what went in and when; `max` also arguments, labels, ids of secrets and agents, the Dockerfile and
each step. Invariants: a secret's value, a login, a password or query of a URL and a proxy's address are in
neither, unless the Dockerfile itself has them; with an epoch, equal builds give equal bytes.
Sources: SLSA provenance v0.2 and v1.0; BuildKit's "SLSA definitions" for what stands where.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from image.attestations import Predicate, canonical, package_url
from image.build.base import Material
from image.build.plan import Plan
from image.build.step import CopyStep, FromContext, FromStage, Origin, RunStep
from image.build.variables import is_proxy
from image.config_blob import timestamp
from image.context.layouts import SCHEME
from image.digest import of
from image.reference import parse
from model.build import ANY, BuildRequest, Context
from model.errors import InvalidInput
from model.image import ImageRecord
from model.spec import Struct
from model.status import Platform
from model.version import VERSION

V02, V1 = "https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:flota:build:v1"
"""What tells readers how parameters and steps are meant: docs/build.md, "Attestations"."""
BUILDER = "urn:flota:builder"
METADATA = f"{BUILD_TYPE}#metadata"
KEY = "buildx.build.provenance"
MAX_TOLD = 1 << 20


class Facts(Struct):
    """Of one platform's build. `images`: each that it began with or read, by the reference as it was asked
    for; `fetched`: what came by the network; `local`: names of the contexts that the client sent files of.
    Times are Unix seconds."""

    platform: Platform
    own: Platform
    images: tuple[tuple[str, Platform, ImageRecord], ...] = ()
    fetched: tuple[Material, ...] = ()
    local: tuple[str, ...] = ()
    online: bool = False
    """A RUN had a network."""
    started: float = 0.0
    finished: float = 0.0
    ident: str = ""
    epoch: int | None = None


def predicate(request: BuildRequest, facts: Facts, steps: Sequence[Mapping[str, Any]]) -> Predicate:
    """As the request wants it: its mode, its version. `steps` as of `steps_of`."""
    full = request.provenance == "max"
    if request.provenance_version == "v1":
        return Predicate(kind=V1, body=canonical(_v1(request, facts, steps if full else ())))
    return Predicate(kind=V02, body=canonical(_v02(request, facts, steps if full else ())))


# -- the two versions -------------------------------------------------------------------------------
def _v02(request: BuildRequest, facts: Facts, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    complete = _complete(request, facts)
    found: dict[str, Any] = {
        "builder": {"id": request.builder_id or BUILDER},
        "buildType": BUILD_TYPE,
        "materials": [{"uri": one.uri, "digest": dict(one.digest)} for one in materials(facts)],
        "invocation": {
            "configSource": {**_source(request, facts), "entryPoint": request.file},
            "parameters": _parameters(request, facts),
            "environment": {"platform": _shown(facts.own)},
        },
        "metadata": {
            **_times(request, facts, "buildInvocationID", "buildStartedOn", "buildFinishedOn"),
            "completeness": {
                "parameters": complete["parameters"],
                "environment": True,
                "materials": complete["materials"],
            },
            "reproducible": False,
            f"{BUILD_TYPE}#hermetic": complete["hermetic"],
        },
    }
    if steps:
        found["buildConfig"] = {"steps": list(steps)}
        found["metadata"][METADATA] = _dockerfile(request)
    return found


def _v1(request: BuildRequest, facts: Facts, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    parameters = _parameters(request, facts)
    internal: dict[str, Any] = {"builderPlatform": _shown(facts.own)}
    metadata = _times(request, facts, "invocationId", "startedOn", "finishedOn")
    metadata["flota_completeness"] = _complete(request, facts)
    if steps:
        internal["buildConfig"] = {"steps": list(steps)}
        metadata["flota_metadata"] = _dockerfile(request)
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "configSource": {**_source(request, facts), "path": request.file},
                "request": parameters,
            },
            "internalParameters": internal,
            "resolvedDependencies": [
                {"uri": one.uri, "digest": dict(one.digest)} for one in materials(facts)
            ],
        },
        "runDetails": {
            "builder": {"id": request.builder_id or BUILDER, "version": {"flota": VERSION}},
            "metadata": metadata,
        },
    }


# -- parts ------------------------------------------------------------------------------------------
def materials(facts: Facts) -> list[Material]:
    """Each once, in an order that no timing decides."""
    found = [_of_image(ref, platform, record) for ref, platform, record in facts.images if ref]
    unique = {canonical([one.uri, dict(one.digest)]): one for one in (*found, *facts.fetched)}
    return [unique[key] for key in sorted(unique)]


def _of_image(ref: str, platform: Platform, record: ImageRecord) -> Material:
    """By the digest that registries know it by; of one that none has had, by its id, which is said. Of an OCI
    layout of the client, by the name that the build gave it."""
    if ref.startswith(SCHEME):
        name, _, digest = record.digests[0].rpartition("@")
        said = f"digest={quote(digest, safe='')}&platform={quote(_shown(platform), safe='')}"
        return Material(uri=f"pkg:oci/{quote(name)}?{said}", digest=_sha256(digest))
    try:
        reference = parse(ref)
    except InvalidInput:  # asked for by its id
        return Material(uri=f"urn:flota:image:{record.id}", digest=_sha256(record.id))
    pinned = [text.rpartition("@") for text in record.digests]
    same = [digest for repository, _, digest in pinned if repository == reference.repository]
    digest = reference.digest or next(iter(same or [digest for *_, digest in pinned]), "")
    if not digest:
        return Material(uri=package_url(reference, platform) + "&known_by=config", digest=_sha256(record.id))
    return Material(uri=package_url(reference, platform), digest=_sha256(digest))


def _sha256(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _source(request: BuildRequest, facts: Facts) -> dict[str, Any]:
    """Where the Dockerfile and its context came from, if it was not the client."""
    main = main_of(request)
    if main is None or main.kind not in ("git", "http"):
        return {}
    uri = public(main.ref)
    found = [one for one in facts.fetched if one.uri.partition("#")[0] == uri.partition("#")[0]]
    return {"uri": uri, "digest": dict(found[0].digest)} if found else {"uri": uri}


def _parameters(request: BuildRequest, facts: Facts) -> dict[str, Any]:
    args: dict[str, str] = {}
    if request.target:
        args["target"] = request.target
    if request.network:
        args["force-network-mode"] = request.network
    if request.no_cache or request.no_cache_stages:
        args["no-cache"] = ",".join(request.no_cache_stages)
    if request.pull:
        args["image-resolve-mode"] = "pull"
    found: dict[str, Any] = {"frontend": "dockerfile.v0"}
    if request.provenance == "max":
        said = {key: value for key, value in request.args.items() if not is_proxy(key)}
        args |= {f"build-arg:{key}": value for key, value in said.items()}
        args |= {f"label:{key}": value for key, value in request.labels.items()}
        found["secrets"] = _named(request.secrets)
        found["ssh"] = _named(request.ssh)
    found["args"] = dict(sorted(args.items()))
    found["locals"] = [{"name": name or "context"} for name in sorted(facts.local)]
    return {key: value for key, value in found.items() if value}


def _named(idents: Sequence[str]) -> list[dict[str, Any]]:
    return [{"id": ident, "optional": True} for ident in sorted(idents) if ident != ANY]


def _complete(request: BuildRequest, facts: Facts) -> dict[str, bool]:
    """What can be believed to be all. Files of the client have no digest that anybody else could look up;
    which secrets it has is not known where it is asked for any."""
    lent = (*request.secrets, *request.ssh)
    hidden = (
        any(map(is_proxy, request.args))
        or ANY in lent
        or (request.provenance != "max" and bool(request.args or request.labels or lent))
    )
    whole = not facts.local and not facts.online
    return {"parameters": not hidden, "materials": not facts.local, "hermetic": whole}


def _times(request: BuildRequest, facts: Facts, ident: str, started: str, finished: str) -> dict[str, Any]:
    """With an epoch all that differs between two equal builds is made of what doesn't."""
    if facts.epoch is None:
        return {
            ident: facts.ident,
            started: timestamp(facts.started),
            finished: timestamp(facts.finished),
        }
    same = canonical([_parameters(request, facts), request.dockerfile.hex(), _shown(facts.platform)])
    at = timestamp(float(facts.epoch))
    return {ident: of(same).removeprefix("sha256:"), started: at, finished: at}


def _dockerfile(request: BuildRequest) -> dict[str, Any]:
    data = base64.b64encode(request.dockerfile).decode("ascii")
    return {"source": {"infos": [{"filename": request.file, "data": data, "language": "Dockerfile"}]}}


def steps_of(plan: Plan, diffs: Mapping[tuple[int, int], str]) -> list[dict[str, Any]]:
    """Every instruction of the stages that were needed, in order. `diffs`: layers that are in the image, by
    the stage's index and the line's number."""
    found = []
    for stage in plan.stages.values():
        for number, line in enumerate(stage.lines):
            if not line.source and not line.created_by:
                continue
            told: dict[str, Any] = {"stage": stage.node.name, "instruction": line.source or line.created_by}
            if line.spot.line:
                told["line"] = line.spot.line
            if (stage.node.index, number) in diffs:
                told["layer"] = diffs[stage.node.index, number]
            found.append(told)
    return found


def layers_of(plan: Plan, diffs: Sequence[str]) -> dict[tuple[int, int], str]:
    """Which step made which of the image's own layers, for `steps_of`; `diffs` bottom first, the base's
    too."""
    chain = [plan.target]
    while isinstance(origin := chain[0].node.base, FromStage):
        chain.insert(0, plan.stages[origin.index])
    places = [
        (stage.node.index, number)
        for stage in chain
        for number, line in enumerate(stage.lines)
        if line.step is not None
    ]
    return dict(zip(places, diffs[len(diffs) - len(places) :], strict=True))


def online(plan: Plan) -> bool:
    """Whether a step's process could reach anybody."""
    steps = (line.step for stage in plan.stages.values() for line in stage.steps)
    return any(isinstance(step, RunStep) and step.network != "none" for step in steps)


def local_contexts(request: BuildRequest, plan: Plan) -> tuple[str, ...]:
    """Names of those that steps read and that are the client's; the main one's is empty."""
    kinds = {context.name: context.kind for context in request.contexts}
    read: set[str] = set()
    for stage in plan.stages.values():
        for line in stage.steps:
            read.update(origin.name for origin in _origins(line.step) if isinstance(origin, FromContext))
    return tuple(sorted(name for name in read if kinds.get(name) == "local"))


def _origins(step: object) -> list[Origin]:
    match step:
        case CopyStep():
            return [step.origin] if step.sources else []
        case RunStep():
            return [placed.origin for placed in step.mounts if placed.origin is not None]
        case _:
            return []


def main_of(request: BuildRequest) -> Context | None:
    return next((context for context in request.contexts if not context.name), None)


def public(url: str) -> str:
    """A URL without a user's name, a password or a query."""
    head, mark, rest = url.partition("://")
    if not mark:
        return url
    plain, sharp, fragment = rest.partition("#")
    host, slash, path = plain.partition("?")[0].partition("/")
    return f"{head}{mark}{host.rpartition('@')[2]}{slash}{path}{sharp}{fragment}"


def metadata(platforms: Sequence[str], stated: Sequence[Sequence[Predicate]]) -> dict[str, str]:
    """As `--metadata-file` shows it, by docker buildx's keys; nothing of what would not fit in a message."""
    found: dict[str, str] = {}
    for platform, predicates in zip(platforms, stated, strict=True):
        for one in predicates:
            if one.kind in (V02, V1):
                key = KEY if len(platforms) == 1 else f"{KEY}/{platform}"
                found[key] = one.body.decode()
    return found if sum(map(len, found.values())) <= MAX_TOLD else {}


def _shown(platform: Platform) -> str:
    return "/".join(filter(None, (platform.os, platform.arch, platform.variant)))
