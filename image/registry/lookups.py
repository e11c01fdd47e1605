"""Questions to a registry as a whole: does it take a login, which images has it.

Sources: OCI distribution-spec 1.1, "Endpoints" (end-1); distribution's `_catalog`; Docker Hub's search of its
first API, the only one that needs no account.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

import msgspec
from yarl import URL

from image.reference import Reference
from image.registry.access import Access
from image.registry.endpoints import Endpoint
from image.registry.refusals import bounded, refusal, translated
from image.registry.transport import Transport
from model.api import FoundImage
from model.codec import NO_URL, UNREADABLE
from model.errors import Damaged, Exhausted, NotFound, Unauthenticated, Unavailable, Unsupported
from model.registries import DEFAULT_HOST, NOBODY

MAX_REPLY = 4 << 20
MAX_FOUND = 100
PAGES, PAGE = 50, 1000
MAX_TAGS, MAX_TAG_PAGES = 100_000, 2000
"""Of one repository; a registry may have pages as short as it likes."""
_LINK = re.compile(r'\s*<(?:https?://[^/<>]*)?(/(?!/)[^<>]{1,4000})>\s*;\s*rel="?next"?', re.ASCII)
_HUB = "https://index.docker.io/v1/search"


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Hit(msgspec.Struct):
    name: str = ""
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False


class _Hits(msgspec.Struct):
    results: list[_Hit] = []


async def check_login(transport: Transport, access: Access) -> None:
    """Raises Unauthenticated when the registry does not take it."""
    try:
        url = URL(f"{access.endpoint.base}/v2/", encoded=True)
        response = await transport.patiently(access, "GET", url, good=(200,))
        if access.volunteer(url):  # it lets us in by a certificate, or everybody: it has not seen the login
            response.release()
            response = await transport.once(access, "GET", url)
            if response.status in (401, 403):
                raise await refusal(response, access.reference)
    except Unauthenticated as error:
        raise Unauthenticated(
            f"registry {access.reference.host}: the user name or the password is wrong",
            hint="Some registries want a token in place of the password",
        ) from error
    except NotFound as error:
        raise Unavailable(f"{access.reference.host} is no registry: it has no /v2/") from error
    response.release()


async def search(transport: Transport, access: Access, word: str, limit: int) -> Sequence[FoundImage]:
    """Names that hold `word`, at most `limit`. Raises Unsupported where a registry tells no names."""
    limit = max(1, min(limit, MAX_FOUND))
    if access.reference.host == DEFAULT_HOST:
        return await _hub(transport, access, word, limit)
    return await _catalog(transport, access, word, limit)


async def _hub(transport: Transport, access: Access, word: str, limit: int) -> Sequence[FoundImage]:
    del access  # the Hub's search knows no logins
    endpoint = Endpoint(base="https://index.docker.io", registry=DEFAULT_HOST)
    anyone = Access(Reference(host=DEFAULT_HOST, path=""), endpoint, login=NOBODY)
    url = URL(_HUB).with_query({"q": word, "n": str(limit)})
    return hits((await _page(transport, anyone, url))[0], limit)


def hits(data: bytes, limit: int) -> list[FoundImage]:
    """Of the Hub's answer to a search. Raises Unavailable for another's, as a proxy's on the way may be."""
    try:
        found = msgspec.json.decode(data, type=_Hits).results
    except UNREADABLE as error:
        raise Unavailable(
            f"the search of {DEFAULT_HOST} is answered with nonsense: {error}",
            hint="Is there a proxy on the way that wants a login?",
        ) from error
    return [
        FoundImage(name=h.name, description=h.description or "", stars=h.star_count, official=h.is_official)
        for h in found[:limit]
    ]


async def _catalog(transport: Transport, access: Access, word: str, limit: int) -> Sequence[FoundImage]:
    found: list[FoundImage] = []
    last = ""
    first = URL(f"{access.endpoint.base}/v2/_catalog", encoded=True)
    url = first.with_query({"n": str(PAGE)})
    for _ in range(PAGES):
        try:
            data, then = await _page(transport, access, url)
            names = msgspec.json.decode(data, type=_Catalog).repositories or []
        except (NotFound, Unauthenticated, *UNREADABLE) as error:
            raise Unsupported(
                f"registry {access.reference.host} tells nobody which images it has",
                hint="Ask its own web page; a name that you know can be pulled all the same",
            ) from error
        host = access.reference.host
        fitting = (name for name in names if word in name)
        found += [FoundImage(name=f"{host}/{name}"[:300]) for name in islice(fitting, limit - len(found))]
        if len(found) >= limit or (then is None and (len(names) < PAGE or names[-1] == last)):
            break
        last = names[-1] if names else last
        url = then or first.with_query({"n": str(PAGE), "last": last})
    return found[:limit]


async def tags(transport: Transport, access: Access) -> Sequence[str]:
    """Of the access's repository, in the registry's order. Raises NotFound, Damaged; Exhausted for more than
    anybody has."""
    found: dict[str, None] = {}
    first = access.url("tags/list")
    url = first.with_query({"n": str(PAGE)})
    for _ in range(MAX_TAG_PAGES):
        data, then = await _page(transport, access, url)
        try:
            page = msgspec.json.decode(data, type=_Tags).tags or []
        except UNREADABLE as error:
            raise Damaged(
                f"registry {access.reference.host} answers nonsense for its tags: {error}"
            ) from error
        before = len(found)
        found |= dict.fromkeys(page)
        if len(found) > MAX_TAGS:
            break
        if then is None and (len(page) < PAGE or len(found) == before):
            return tuple(found)
        url = then or first.with_query({"n": str(PAGE), "last": page[-1]})
    raise Exhausted(
        f"registry {access.reference.host} has more tags of {access.reference.path} than {MAX_TAGS},"
        f" or more pages of them than {MAX_TAG_PAGES}",
        hint="Name the tags that you want",
    )


async def _page(transport: Transport, access: Access, url: URL) -> tuple[bytes, URL | None]:
    """And where the next one is, if the registry says so: some have shorter pages than they are asked for."""
    response = await transport.patiently(access, "GET", url, good=(200,))
    try:
        with translated(access.endpoint.host):
            data = await bounded(response, MAX_REPLY)
        return data, following(response.headers.get("Link", ""), url)
    finally:
        response.release()


def following(link: str, url: URL) -> URL | None:
    """Of a Link header (RFC 8288), at the server that was asked, whatever it says."""
    found = _LINK.match(link)
    try:
        return url.join(URL(found[1], encoded=True)) if found else None
    except NO_URL:
        return None
