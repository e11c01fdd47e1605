"""What is stated about an image that a build has made: where it comes from, and what is in it.

Invariant: nothing is stated that was not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from image.attestations import Predicate
from image.build import provenance
from image.build.base import Files
from image.build.parts import Parts
from image.build.plan import Plan
from image.build.telling import Teller
from image.reference import parse as reference
from image.sbom import spdx
from model.build import BuildRequest
from model.errors import Unsupported
from model.image import ImageRecord
from model.status import Platform


@dataclass(frozen=True, slots=True)
class Stated:
    """`images`: reference, platform, image of each that was used; `began`: when it did, Unix seconds."""

    request: BuildRequest
    plan: Plan
    files: Files
    platform: Platform
    images: tuple[tuple[str, Platform, ImageRecord], ...]
    began: float


async def stated(made: Stated, parts: Parts, teller: Teller, prefix: str) -> tuple[Predicate, ...]:
    """`prefix` stands before the names of its steps. Raises Unsupported, and what a scan does."""
    found: list[Predicate] = []
    if made.request.sbom:
        with teller.step(f"{prefix}listing the image's packages"):
            found.append(await _contents(made, parts))
    if made.request.provenance:
        with teller.step(f"{prefix}stating the image's provenance"):
            found.append(await _provenance(made, parts))
    return tuple(found)


async def _provenance(made: Stated, parts: Parts) -> Predicate:
    request, plan = made.request, made.plan
    diffs = [diff for _, diff in await parts.snapshots.settled(made.files)]
    facts = provenance.Facts(
        platform=made.platform,
        own=parts.platform,
        images=made.images,
        fetched=tuple(parts.fetcher.materials),
        local=provenance.local_contexts(request, plan),
        online=provenance.online(plan),
        started=made.began,
        finished=parts.clock.now(),
        ident=parts.new_id(),
        epoch=plan.epoch,
    )
    return provenance.predicate(request, facts, provenance.steps_of(plan, provenance.layers_of(plan, diffs)))


async def _contents(made: Stated, parts: Parts) -> Predicate:
    scan, epoch = parts.scan, made.plan.epoch
    if scan is None:
        raise Unsupported("this builder lists no image's packages", hint="Leave out --sbom")
    async with parts.snapshots.shown(made.files) as root:
        inventory = await scan(root)
    names = [reference(name).familiar for name in made.request.names]
    return spdx.predicate(
        inventory, next(iter(names), "image"), parts.clock.now() if epoch is None else float(epoch)
    )
