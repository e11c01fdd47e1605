"""Questions to a registry as a whole: does it take a login, which images has it.

Sources: OCI distribution-spec 1.1, "Endpoints" (end-1); distribution's `_catalog`; Docker Hub's search of its
first API, the only one that needs no account.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from yarl import URL

from image.reference import Reference
from image.registry.access import Access
from image.registry.endpoints import Endpoint
from image.registry.refusals import bounded, translated
from image.registry.transport import Transport
from model.api import FoundImage
from model.errors import Damaged, NotFound, Unauthenticated, Unavailable, Unsupported
from model.registries import DEFAULT_HOST, NOBODY

MAX_REPLY = 4 << 20
MAX_FOUND = 100
PAGES, PAGE = 50, 1000
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
    hits = msgspec.json.decode(await _read(transport, anyone, url), type=_Hits).results
    return [
        FoundImage(name=h.name, description=h.description or "", stars=h.star_count, official=h.is_official)
        for h in hits[:limit]
    ]


async def _catalog(transport: Transport, access: Access, word: str, limit: int) -> Sequence[FoundImage]:
    found: list[FoundImage] = []
    last = ""
    for _ in range(PAGES):
        url = URL(f"{access.endpoint.base}/v2/_catalog", encoded=True)
        query = {"n": str(PAGE), **({"last": last} if last else {})}
        try:
            data = await _read(transport, access, url.with_query(query))
            names = msgspec.json.decode(data, type=_Catalog).repositories or []
        except (NotFound, Unauthenticated, msgspec.DecodeError) as error:
            raise Unsupported(
                f"registry {access.reference.host} tells nobody which images it has",
                hint="Ask its own web page; a name that you know can be pulled all the same",
            ) from error
        host = access.reference.host
        found += [FoundImage(name=f"{host}/{name}"[:300]) for name in names if word in name]
        if len(found) >= limit or len(names) < PAGE or names[-1] == last:
            break
        last = names[-1]
    return found[:limit]


async def tags(transport: Transport, access: Access) -> Sequence[str]:
    """Of the access's repository, in the registry's order. Raises NotFound, Damaged."""
    found: dict[str, None] = {}
    last = ""
    for _ in range(PAGES):
        query = {"n": str(PAGE), **({"last": last} if last else {})}
        data = await _read(transport, access, access.url("tags/list").with_query(query))
        try:
            page = msgspec.json.decode(data, type=_Tags).tags or []
        except msgspec.DecodeError as error:
            raise Damaged(
                f"registry {access.reference.host} answers nonsense for its tags: {error}"
            ) from error
        found |= dict.fromkeys(page)
        if len(page) < PAGE or page[-1] == last:
            break
        last = page[-1]
    return tuple(found)


async def _read(transport: Transport, access: Access, url: URL) -> bytes:
    response = await transport.patiently(access, "GET", url, good=(200,))
    try:
        with translated(access.endpoint.host):
            return await bounded(response, MAX_REPLY)
    finally:
        response.release()
