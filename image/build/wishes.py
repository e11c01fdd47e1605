"""What of a request decides steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from image.build.evaluate import Wishes
from model.build import BuildRequest
from model.errors import InvalidInput

EPOCH = "SOURCE_DATE_EPOCH"


def wishes_of(request: BuildRequest, escape: str) -> Wishes:
    """`escape` is the Dockerfile's. Raises InvalidInput."""
    return Wishes(
        args=request.args,
        network=request.network,
        allow=frozenset(request.allow),
        hosts=request.hosts,
        resources=request.resources,
        shm_size=request.shm_size,
        ulimits=request.ulimits,
        epoch=epoch_of(request.args),
        rewrites=_rewrites(request),
        escape=escape,
        file=request.file,
    )


def epoch_of(args: Mapping[str, str]) -> int | None:
    """Unix seconds. Raises InvalidInput."""
    text = args.get(EPOCH, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise InvalidInput(f"{EPOCH}={text[:40]!r} is no time", hint="Give whole seconds since 1970")
    return int(text)


def dated(wishes: Wishes, given: Mapping[str, str]) -> Wishes:
    """With what ARGs before the first FROM say: arguments, and the epoch where the request names none."""
    epoch = wishes.epoch if wishes.epoch is not None else epoch_of(given)
    latest = epoch if wishes.rewrites else None
    return replace(wishes, given=given, epoch=epoch, latest=latest)


def _rewrites(request: BuildRequest) -> bool:
    """Whether files' times are to be no later than the epoch."""
    return any(output.options.get("rewrite-timestamp") == "true" for output in request.outputs)
