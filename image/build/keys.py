"""Under which name a step's result is kept: what it stands on, what it does, what it reads. Pure.

Docker's rule: the text of an instruction and all that it sees, and of COPY and ADD the checksum of the files;
one miss makes all that follows miss. A COPY or ADD with `--link` makes a layer on nothing: what it stands on
does not count, and the layer is known by the key, as its files are a function of it. Limits of resources
don't decide a result, nor do proxies, nor where in the Dockerfile a step stands.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec.structs import replace

from image.build.step import CopyStep, FromContext, PlacedMount, RunStep, Step, WorkdirStep
from image.dockerfile.instruction import Spot
from model.spec import Resources
from model.status import Platform

VERSION = 1
"""Of what a step does: another release whose steps come to other results counts up."""
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def definition(step: Step) -> bytes:
    """Canonical: equal steps give equal bytes. Whose files are read is not in it but in the content's key."""
    match step:
        case RunStep():
            mounts = tuple(_placed(placed) for placed in step.mounts)
            step = replace(step, proxies=(), mounts=mounts, spot=_NOWHERE)
            step = replace(step, resources=Resources(), shm_size=0, ulimits={})
        case CopyStep():
            step = replace(step, origin=FromContext(), spot=_NOWHERE)
        case WorkdirStep():
            step = replace(step, spot=_NOWHERE)
    return _encoder.encode(step)


def key_of(parent: str, step: Step, content: tuple[str, ...], platform: Platform) -> str:
    """`parent` is the id of the files below; `content` are keys of what the step reads, in order."""
    made = (VERSION, parent, definition(step), content, (platform.os, platform.arch, platform.variant))
    return "sha256:" + hashlib.sha256(_encoder.encode(made)).hexdigest()


def stacked_id(parent: str, linked: str) -> str:
    """Of a layer over files: equal for equal ones, so that what stands on them is found again."""
    return "sha256:" + hashlib.sha256(_encoder.encode((VERSION, parent, linked))).hexdigest()


def guess_of(step: Step, sources: tuple[str, ...]) -> str:
    """As a name for what a step chose of sources with these ids: the same choice, as equal ids mean equal
    files."""
    return "sha256:" + hashlib.sha256(_encoder.encode((VERSION, definition(step), sources))).hexdigest()


_NOWHERE = Spot(line=0)


def _placed(placed: PlacedMount) -> PlacedMount:
    """By which name files are called does not count, but that there are some."""
    mount = replace(placed.mount, origin="")
    return PlacedMount(mount=mount, origin=None if placed.origin is None else FromContext())
