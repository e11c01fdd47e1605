"""ADD of URLs and contexts of URLs, against a server that may be anything."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from aio.together import together
from image.context.fetcher import BuildFetcher
from image.context.guard import Address, Guard
from image.context.http import Http
from image.context.objects import Lease, Objects
from image.context.urls import name_of, time_of
from model.build import Context
from model.errors import Damaged, DeadlineExceeded, Exhausted, Forbidden, InvalidInput, NotFound, Unavailable
from tests.support.contexts import content, store
from tests.support.images import member, tar

FILE = b"the file " * 1000
SUM = "sha256:" + hashlib.sha256(FILE).hexdigest()
MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
TAR = gzip.compress(tar(member("Dockerfile", b"FROM scratch"), member("src/a", b"a")))


class Site:
    """A server of files; `asked` lists path, If-None-Match and Host of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.body = FILE
        self.trouble = 0
        self.redirect = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("If-None-Match", ""), request.host))
        match request.path:
            case "/file.txt" | "/a b.txt":
                if request.headers.get("If-None-Match") == f'"{len(self.body)}"':
                    return web.Response(status=304)
                return web.Response(
                    body=self.body, headers={"ETag": f'"{len(self.body)}"', "Last-Modified": MODIFIED}
                )
            case "/plain":
                return web.Response(body=self.body)
            case "/trouble":
                self.trouble += 1
                return web.Response(status=503) if self.trouble < 3 else web.Response(body=b"at last")
            case "/redirect":
                return web.Response(status=302, headers={"Location": self.redirect})
            case "/loop":
                return web.Response(status=307, headers={"Location": "/loop"})
            case "/named":
                return web.Response(
                    body=b"n", headers={"Content-Disposition": 'attachment; filename="../../etc/x.deb"'}
                )
            case "/context.tar.gz":
                return web.Response(body=TAR, headers={"ETag": '"t"'})
            case "/Dockerfile.remote":
                return web.Response(body=b"FROM remote")
            case "/secret":
                return web.Response(status=403)
            case "/silent":
                await asyncio.Event().wait()
            case "/endless":
                return await self._endless(request)
            case "/short":
                return await self._short(request)
        return web.Response(status=404)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    async def _short(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response


@pytest.fixture
async def site() -> AsyncIterator[tuple[Site, TestServer]]:
    one = Site()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", one.answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield one, server
    finally:
        await server.close()


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return store(tmp_path / "objects")


@pytest.fixture
def lease(objects: Objects) -> Iterator[Lease]:
    with objects.leased() as one:
        yield one


def fetcher(objects: Objects, lease: Lease, guard: Guard | None = None, **bounds: float) -> BuildFetcher:
    guard = guard or Guard()
    return BuildFetcher(objects, lease, guard, http=Http(guard, **bounds))


async def test_file_of_a_url_comes_with_name_and_time(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    url = str(site[1].make_url("/file.txt"))
    async with fetcher(objects, lease).file(url, checksum=SUM, private=True) as file:
        assert Path(file.path).read_bytes() == FILE
        assert (file.name, file.mtime_ns, file.mode) == ("file.txt", 1_700_000_000 * 10**9, 0o600)
    plain = fetcher(objects, lease).file(str(site[1].make_url("/plain?x=/evil")), private=True)
    async with plain as file:
        assert (file.name, file.mtime_ns) == ("plain", 0)


async def test_unchanged_file_is_asked_for_but_not_fetched_again(
    site: tuple[Site, TestServer], objects: Objects
) -> None:
    server, url = site[0], str(site[1].make_url("/file.txt"))
    paths = []
    for _ in range(2):
        with objects.leased() as lease:
            async with fetcher(objects, lease).file(url, private=True) as file:
                paths.append(file.path)
    assert paths[0] == paths[1] and [etag for _, etag, _ in server.asked] == ["", f'"{len(FILE)}"']
    server.body = b"new"
    with objects.leased() as lease:
        async with fetcher(objects, lease).file(url, private=True) as file:
            assert Path(file.path).read_bytes() == b"new"
    objects.prune()
    with objects.leased() as lease:
        async with fetcher(objects, lease).file(url, private=True) as file:
            assert Path(file.path).read_bytes() == b"new"
    assert server.asked[-1][1] == "", "what is no longer here is not asked about"


async def test_file_that_builds_fetch_at_once_is_there_for_all(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    url = str(site[1].make_url("/file.txt"))

    async def fetched() -> bytes:
        async with fetcher(objects, lease).file(url, private=True) as file:
            return Path(file.path).read_bytes()

    assert set(await together(fetched() for _ in range(30))) == {FILE}


async def test_file_with_a_checksum_that_is_here_asks_nobody(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    url = str(site[1].make_url("/file.txt"))
    for _ in range(2):
        async with fetcher(objects, lease).file(url, checksum=SUM, private=True) as file:
            assert Path(file.path).read_bytes() == FILE
    assert len(site[0].asked) == 1


async def test_wrong_checksum_is_refused_and_nothing_kept_b18(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease, tmp_path: Path
) -> None:
    url = str(site[1].make_url("/file.txt"))
    for checksum in ("sha256:" + "0" * 64, "sha512:" + "0" * 128):
        with pytest.raises(Damaged, match=r"file\.txt has the checksum sha\d+:.*, not sha\d+:0000"):
            async with fetcher(objects, lease).file(url, checksum=checksum, private=True):
                pass
    assert not list((tmp_path / "objects/new").glob("*/*")) and not objects.size
    async with fetcher(objects, lease).file(url, private=True):
        pass
    with pytest.raises(Damaged):
        async with fetcher(objects, lease).file(url, checksum="sha256:" + "0" * 64, private=True):
            pass
    for checksum in ("sha256:xyz", "md5:" + "0" * 32, "sha512:" + "0" * 64):
        with pytest.raises(InvalidInput, match="is no checksum"):
            async with fetcher(objects, lease).file(url, checksum=checksum, private=True):
                pass


async def test_loopback_is_refused_unless_allowed_b18(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(Forbidden, match="loopback"):
            async with fetcher(objects, lease).file(f"http://{host}:{site[1].port}/file.txt"):
                pass
    own = Guard([("", site[1].port or 0)])
    with pytest.raises(Forbidden, match="the fleet's own API"):
        async with fetcher(objects, lease, own).file(str(site[1].make_url("/file.txt")), private=True):
            pass
    assert not site[0].asked


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("file:///etc/passwd", "is not fetched"),
        ("ftp://host/x", "is not fetched"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("//10.0.0.1/x", "private"),
        ("http://[fe80::1%25eth0]/x", "link-local"),
        ("gopher:x", "is not fetched"),
        ("http://:80/", ""),
    ],
)
async def test_redirect_to_what_is_not_fetched_is_refused_b18(
    target: str, says: str, site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    """The server itself is public, as far as the guard can tell."""

    async def lookup(host: str, port: int) -> list[Address]:
        if host == "public.example":
            return [ipaddress.ip_address("8.8.8.8")]
        return [ipaddress.ip_address(host.partition("%")[0])]

    class Near(Guard):
        """Who is let pass is answered by the site, whatever its address."""

        async def resolved(self, host: str, port: int, *, private: bool) -> list[Address]:
            await super().resolved(host, port, private=private)
            return [ipaddress.ip_address("127.0.0.1")]

    site[0].redirect = target
    with pytest.raises((Forbidden, Unavailable), match=says or None):
        url = f"http://public.example:{site[1].port}/redirect"
        async with fetcher(objects, lease, Near(lookup=lookup)).file(url):
            pass
    assert [path for path, _, _ in site[0].asked] == ["/redirect"]


async def test_name_that_means_another_address_later_gains_nothing_b18(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address("127.0.0.1" if len(asked) == 1 else "10.9.9.9")]

    url = f"http://rebound.example:{site[1].port}/file.txt"
    async with fetcher(objects, lease, Guard(lookup=lookup)).file(url, private=True) as file:
        assert Path(file.path).read_bytes() == FILE
    assert asked == ["rebound.example"] and site[0].asked[0][2].startswith("rebound.example")


async def test_endless_file_ends_at_what_may_come_b18(
    site: tuple[Site, TestServer], objects: Objects, tmp_path: Path
) -> None:
    with pytest.raises(Exhausted), objects.leased(5 << 20) as lease:
        async with fetcher(objects, lease).file(str(site[1].make_url("/endless")), private=True):
            pass
    assert not list((tmp_path / "objects/new").glob("*/*")) and not objects.size


async def test_slow_or_silent_server_ends_with_its_time_b18(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    with pytest.raises(DeadlineExceeded, match=r"did not come within 0\.3 s"):
        async with fetcher(objects, lease, whole=0.3).file(str(site[1].make_url("/silent")), private=True):
            pass
    with pytest.raises(Unavailable, match="it is silent"):
        async with fetcher(objects, lease, silence=0.05).file(str(site[1].make_url("/silent")), private=True):
            pass


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("/none", NotFound, "answers 404"),
        ("/secret", Forbidden, "answers 403"),
        ("/loop", Unavailable, "more than 10 redirects"),
        ("/short", Unavailable, "can't be fetched"),
    ],
)
async def test_server_that_has_no_file_is_told_by_its_answer(
    path: str, kind: type[Exception], says: str, site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    url = str(site[1].make_url(path).with_user("me").with_password("hidden"))
    with pytest.raises(kind, match=says) as failure:
        async with fetcher(objects, lease).file(url, private=True):
            pass
    assert "hidden" not in str(failure.value) and "\n" not in str(failure.value)


async def test_trouble_that_passes_is_waited_for(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    async with fetcher(objects, lease).file(str(site[1].make_url("/trouble")), private=True) as file:
        assert Path(file.path).read_bytes() == b"at last"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://h/x", "http://", "http:///x", "x", "http://h:99999/"]
)
async def test_url_of_another_kind_is_refused_b18(url: str, objects: Objects, lease: Lease) -> None:
    with pytest.raises(InvalidInput):
        async with fetcher(objects, lease).file(url, private=True):
            pass


async def test_context_of_a_url_is_its_tar_and_unpacked_once(
    site: tuple[Site, TestServer], objects: Objects
) -> None:
    context = Context(kind="http", ref=str(site[1].make_url("/context.tar.gz")))
    roots = []
    for _ in range(2):
        with objects.leased() as lease:
            one = fetcher(objects, lease)
            roots.append(await one.context(context, private=True))
            assert content(objects, roots[0]) == {"Dockerfile": b"FROM scratch", "src": None, "src/a": b"a"}
            assert await one.read(roots[0], "Dockerfile") == b"FROM scratch"
            with pytest.raises(NotFound):
                await one.read(roots[0], "other")
    assert roots[0] == roots[1] and site[0].asked[1][1] == '"t"'


async def test_context_of_a_plain_file_is_a_dockerfile_alone(
    site: tuple[Site, TestServer], objects: Objects, lease: Lease
) -> None:
    context = Context(kind="http", ref=str(site[1].make_url("/Dockerfile.remote")))
    root = await fetcher(objects, lease).context(context, private=True)
    assert content(objects, root) == {"Dockerfile": b"FROM remote"}
    with pytest.raises(Forbidden, match="loopback"):
        await fetcher(objects, lease).context(context)


@pytest.mark.parametrize(
    ("url", "disposition", "name"),
    [
        ("http://h/a/b.txt", "", "b.txt"),
        ("http://h/a/b%20c.txt?q#f", "", "b c.txt"),
        ("http://h/", "", "__unnamed__"),
        ("http://h", "", "__unnamed__"),
        ("http://h/a/", "", "a"),
        ("http://h/x", 'attachment; filename="y.deb"', "x"),
        ("http://h/", 'attachment; filename="../../etc/y.deb"', "y.deb"),
        ("http://h/", "attachment; filename*=UTF-8''%c3%a4.txt", "ä.txt"),
        ("http://h/", 'attachment; filename="dir/"', "__unnamed__"),
        ("http://h/", 'attachment; filename=".."', "__unnamed__"),
        ("http://h/", "nonsense", "__unnamed__"),
        ("http://h/", "a" * 10_000, "__unnamed__"),
        ("http://h/" + "a" * 300, "", "__unnamed__"),
        ("http://h/a%2f..%2fb", "", "b"),
    ],
)
def test_name_of_a_file_is_its_paths_or_its_servers(url: str, disposition: str, name: str) -> None:
    assert name_of(URL(url), disposition) == name


def test_time_of_a_file_is_none_where_its_server_says_nonsense() -> None:
    assert time_of(MODIFIED) == 1_700_000_000 * 10**9
    assert [time_of(text) for text in ("", "yesterday", "Tue, 99 Nov 2023 22:13:20 GMT")] == [0] * 3
