"""What one build gets from the network: files and repositories of ADD, and contexts of URLs.

`image.build.base.Fetcher`. Invariant: all that it returns is held by the build's lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from msgspec.structs import replace

from aio.supervisor import in_thread
from image.build.base import FileSource, Material
from image.context.find import find, regular
from image.context.git import Found, Git, Secret, Ssh, no_secret
from image.context.guard import Guard
from image.context.http import Http
from image.context.objects import Lease, Objects
from image.context.sinks import tar_into
from image.context.survey import lacking
from image.context.tarcontext import HEAD, kind_of_stream
from image.context.urls import Fetched, Urls
from model.build import Context
from model.contexttree import Entry, Tree, encode
from model.errors import Damaged, InvalidInput, NotFound

MAX_DOCKERFILE = 16 << 20


class BuildFetcher:
    """`ssh` opens the client's agent; `secret` gives GIT_AUTH_TOKEN and such, if the client has them."""

    def __init__(
        self,
        objects: Objects,
        lease: Lease,
        guard: Guard,
        *,
        http: Http | None = None,
        secret: Secret = no_secret,
        ssh: Ssh | None = None,
    ) -> None:
        self._objects = objects
        self._lease = lease
        self._guard = guard
        self._secret = secret
        self._ssh = ssh
        self._urls = Urls(objects, lease, http or Http(guard))
        self.materials: list[Material] = []

    @contextlib.asynccontextmanager
    async def file(self, url: str, *, checksum: str = "", private: bool = False) -> AsyncIterator[FileSource]:
        fetched = await self._urls.fetch(url, checksum=checksum, private=private)
        self.materials.append(_material(fetched))
        yield FileSource(
            path=self._objects.path(fetched.digest), name=fetched.name, mtime_ns=fetched.mtime_ns
        )

    async def git(
        self, url: str, *, checksum: str = "", keep_git_dir: bool = False, private: bool = False
    ) -> str:
        git = Git(
            self._objects, self._lease, self._guard, private=private, secret=self._secret, ssh=self._ssh
        )
        root = await git.tree(url, checksum=checksum, keep_git_dir=keep_git_dir)
        if git.found is not None:
            self.materials.append(_commit(git.found))
        return root

    async def context(self, context: Context, *, private: bool = False) -> str:
        """Of one of git or http; a URL of a plain file is that of a Dockerfile without files."""
        if context.kind == "git":
            return await self.git(_spelt(context.ref), private=private)
        if context.kind != "http":
            raise InvalidInput(f"a context of the kind {context.kind} is not fetched")
        fetched = await self._urls.fetch(context.ref, private=private)
        self.materials.append(_material(fetched))
        if fetched.root and not await in_thread(self._lacks, fetched.root):
            return fetched.root
        root: str = await in_thread(self._unpacked, context.ref, fetched)
        return root

    async def read(self, root: str, path: str, limit: int = MAX_DOCKERFILE) -> bytes:
        """A file of a context, such as its Dockerfile. Raises NotFound, InvalidInput, Damaged."""
        data: bytes = await in_thread(self._read, root, path, limit)
        return data

    def _read(self, root: str, path: str, limit: int) -> bytes:
        entry = regular(find(self._objects.tree, root, path), path, limit)
        return self._objects.read(entry.digest, limit)

    def _lacks(self, root: str) -> bool:
        try:
            return bool(lacking(self._objects, self._lease, root))
        except (Damaged, NotFound):
            return True

    def _unpacked(self, url: str, fetched: Fetched) -> str:
        path = self._objects.path(fetched.digest)
        with open(path, "rb") as file:
            kind = kind_of_stream(file.read(HEAD))
        if kind == "empty":
            raise InvalidInput(f"{fetched.url} is empty, so it is no build context")
        if kind == "tar":
            with open(path, "rb") as source:
                root, _ = tar_into(self._objects, self._lease, source)
        else:
            root = self._alone(fetched)
        self._urls.remember(url, replace(fetched, root=root))
        return root

    def _alone(self, fetched: Fetched) -> str:
        if fetched.size > MAX_DOCKERFILE:
            raise InvalidInput(f"{fetched.url} is neither a tar nor a Dockerfile")
        entry = Entry(name=b"Dockerfile", size=fetched.size, digest=fetched.digest)
        return self._objects.put(encode(Tree(entries=(entry,))), self._lease)


def _material(fetched: Fetched) -> Material:
    return Material(uri=fetched.url, digest={"sha256": fetched.digest.removeprefix("sha256:")})


def _commit(found: Found) -> Material:
    kind = "sha256" if len(found.commit) == 64 else "sha1"
    ref = f"#{found.url.ref}" if found.url.ref else ""
    return Material(uri=f"{found.url.shown.partition('?')[0]}{ref}", digest={kind: found.commit})


def _spelt(ref: str) -> str:
    """`github.com/…` is short for its HTTPS URL, in contexts alone, as Docker has it."""
    if "://" not in ref and ref.lower().startswith("github.com/"):
        return f"https://{ref}"
    return ref
