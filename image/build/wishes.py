"""What of a request decides steps. Pure."""

from __future__ import annotations

from image.build.evaluate import Wishes
from model.build import BuildRequest
from model.errors import InvalidInput

EPOCH = "SOURCE_DATE_EPOCH"


def wishes_of(request: BuildRequest, escape: str) -> Wishes:
    """`escape` is the Dockerfile's. Raises InvalidInput."""
    epoch = epoch_of(request)
    return Wishes(
        args=request.args,
        network=request.network,
        allow=frozenset(request.allow),
        hosts=request.hosts,
        resources=request.resources,
        shm_size=request.shm_size,
        ulimits=request.ulimits,
        epoch=epoch,
        latest=epoch if _rewrites(request) else None,
        escape=escape,
        file=request.file,
    )


def epoch_of(request: BuildRequest) -> int | None:
    text = request.args.get(EPOCH, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise InvalidInput(f"{EPOCH}={text[:40]!r} is no time", hint="Give whole seconds since 1970")
    return int(text)


def _rewrites(request: BuildRequest) -> bool:
    """Whether files' times are to be no later than the epoch."""
    return any(output.options.get("rewrite-timestamp") == "true" for output in request.outputs)
