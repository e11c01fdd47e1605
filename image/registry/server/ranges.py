"""Ranges: which bytes of a blob are asked for (RFC 9110, 14), which of an upload are sent; and pages. Pure.

Invariant: a span lies within the blob, a page is no longer than the registry's limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from image.registry.server.refusal import Refusal
from model.spec import Struct

_BYTES = re.compile(r"bytes=(\d{0,19})-(\d{0,19})\Z", re.ASCII)
_CHUNK = re.compile(r"(?:bytes )?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?\Z", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}\Z", re.ASCII)


class Span(Struct):
    """Bytes `start` to `end`, the latter not included."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def of_blob(header: str, size: int) -> Span | None:
    """The one range that a Range header asks for; None where all is to be sent: without a header, for other
    units, for several ranges, for what can't be read (RFC 9110, 14.2 lets a server ignore it). Raises Refusal
    (416) for a range beyond the blob."""
    found = _BYTES.match(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or (not first and int(last) == 0):
        raise Refusal(
            "SIZE_INVALID",
            f"the range {header[:60]!r} is not within the {size} bytes of the blob",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return Span(start=start, end=end)


def of_chunk(header: str, length: int | None) -> Span | None:
    """What a Content-Range of an upload says (`first-last`: distribution-spec, "Pushing a blob in chunks");
    None without one. Raises Refusal where it is none, or contradicts the body's length."""
    if not header:
        return None
    found = _CHUNK.match(header.strip())
    if found is None or int(found[2]) < int(found[1]):
        raise Refusal(
            "BLOB_UPLOAD_INVALID", f"the Content-Range {header[:60]!r} is none", hint="Write FIRST-LAST"
        )
    span = Span(start=int(found[1]), end=int(found[2]) + 1)
    if length is not None and length != span.size:
        raise Refusal("SIZE_INVALID", f"the Content-Range has {span.size} bytes, the body {length}")
    return span


def of_upload(size: int) -> str:
    """The Range header of an upload that has so many bytes; it can't say that there is none."""
    return f"0-{max(size - 1, 0)}"


class Page(Struct):
    """At most `number` entries after `last`."""

    number: int
    last: str = ""


def page(query: Mapping[str, str], most: int) -> Page:
    """Of `n` and `last`. Raises Refusal for an `n` that is no number."""
    n = query.get("n", "")
    if n and not _NUMBER.match(n):
        raise Refusal("UNSUPPORTED", f"n={n[:20]!r} is no number of entries", status=400)
    return Page(number=min(int(n), most) if n else most, last=query.get("last", ""))


def cut(found: Sequence[str], wanted: Page) -> tuple[tuple[str, ...], str]:
    """(the page, the `last` of the next one or nothing) of one more entry than the page has."""
    kept = tuple(found[: wanted.number])
    return kept, kept[-1] if len(found) > wanted.number and kept else ""


def link(path: str, query: Mapping[str, str]) -> str:
    """A Link header (RFC 8288) to the next page."""
    words = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query.items())
    return f'<{path}?{words}>; rel="next"'
