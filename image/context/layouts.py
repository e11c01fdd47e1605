"""What the command line calls an OCI layout of the client. Pure.

Source: docker buildx's `--build-context` (`NAME=oci-layout://FOLDER[:TAG][@DIGEST]`).
"""

from __future__ import annotations

from image.digest import is_digest
from model.errors import InvalidInput
from model.spec import Struct

SCHEME = "oci-layout://"
LATEST = "latest"


class Layout(Struct):
    """`tag` counts where there is no digest."""

    folder: str
    tag: str = LATEST
    digest: str = ""


def layout_of(text: str) -> Layout:
    """Of `FOLDER[:TAG][@DIGEST]`. Raises InvalidInput."""
    place, at, digest = text.rpartition("@")
    if not at or "/" in digest:
        place, digest = text, ""
    elif not is_digest(digest):
        raise InvalidInput(f"{digest[:80]!r} is no digest", hint="Write sha256: and 64 digits")
    folder, colon, tag = place.rpartition(":")
    if not colon or "/" in tag:
        folder, colon, tag = place, "", ""
    if not folder or (colon and not tag):
        raise InvalidInput(f"{text[:80]!r} names no OCI layout", hint=f"Write {SCHEME}FOLDER[:TAG][@DIGEST]")
    return Layout(folder=folder, tag=tag or LATEST, digest=digest)
