"""Repositories as build contexts: what a hostile one may not do."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from aio.together import together
from image.context.fetcher import BuildFetcher
from image.context.guard import Address, Guard
from image.context.objects import Lease, Objects
from model.errors import CommandFailed, Exhausted, FlotaError, Forbidden, InvalidInput
from tests.component.test_context_git import FILES, fetcher, host, lease, objects, repository, root
from tests.support.contexts import content
from tests.support.gitserver import GitHost, Repository, git

__all__ = ["host", "lease", "objects", "repository", "root"]


async def test_folder_behind_a_link_is_refused_b19(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    repository.commit(FILES | {"etc": "/etc", "up": ".."})
    for folder in ("etc", "link", "up", "link/x"):
        with pytest.raises(Forbidden, match="is behind a link"):
            await fetcher(objects, lease).git(f"{host[1]}/a#main:{folder}", private=True)


async def test_submodules_come_along_judged_each_b19(
    host: tuple[GitHost, str], root: Path, repository: Repository, objects: Objects, lease: Lease
) -> None:
    library = Repository(root / "lib")
    pinned = library.commit({"lib.c": b"old"})
    library.commit({"lib.c": b"new"})
    repository.commit({"f": b"f"})
    git(repository.folder, "submodule", "--quiet", "add", "--", f"{root}/lib", "vendor/lib")
    git(repository.folder / "vendor/lib", "checkout", "--quiet", pinned)
    git(repository.folder, "config", "-f", ".gitmodules", "submodule.vendor/lib.url", "../lib")
    repository.commit({})
    one = fetcher(objects, lease)
    found = content(objects, await one.git(f"{host[1]}/a", private=True))
    assert found["vendor/lib/lib.c"] == b"old" and "vendor/lib/.git" not in found
    without = content(objects, await one.git(f"{host[1]}/a?submodules=false", private=True))
    assert "vendor/lib/lib.c" not in without
    for url in (f"file://{root}/lib", f"{root}/lib", "ext::sh -c touch% /tmp/x", "git://10.0.0.1/x"):
        git(repository.folder, "config", "-f", ".gitmodules", "submodule.vendor/lib.url", url)
        repository.commit({})
        guard = Guard(lookup=_only_loopback)
        with pytest.raises((InvalidInput, Forbidden), match=r"submodule|10\.0\.0\.1"):
            await BuildFetcher(objects, lease, guard).git(f"{host[1]}/a", private=True)


async def test_token_goes_to_no_host_that_a_repository_names_b19(
    host: tuple[GitHost, str], root: Path, repository: Repository, objects: Objects, lease: Lease
) -> None:
    Repository(root / "lib").commit({"f": b"f"})
    git(repository.folder, "submodule", "--quiet", "add", "--", f"{root}/lib", "lib")
    url = "https://elsewhere.example:1/lib.git"
    git(repository.folder, "config", "-f", ".gitmodules", "submodule.lib.url", url)
    repository.commit({})
    asked: list[str] = []

    async def secret(ident: str) -> bytes | None:
        asked.append(ident)
        return b"for the repository that was asked for" if ident == "GIT_AUTH_TOKEN" else None

    async def lookup(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.1")]

    one = BuildFetcher(objects, lease, Guard(lookup=lookup), secret=secret)
    with pytest.raises(FlotaError, match=r"elsewhere\.example"):
        await one.git(f"{host[1]}/a", private=True)
    assert asked == ["GIT_AUTH_HEADER.elsewhere.example", "GIT_AUTH_TOKEN.elsewhere.example"]
    asked.clear()
    with pytest.raises(FlotaError, match=r"elsewhere\.example"):
        await one.git(url, private=True)
    assert asked[-1] == "GIT_AUTH_TOKEN"


async def test_repository_that_two_builds_fetch_at_once_is_there_for_all(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    repository.commit(FILES)
    one = fetcher(objects, lease)
    roots = await together(one.git(f"{host[1]}/a", private=True) for _ in range(12))
    assert all(content(objects, root)["run.sh"] == b"#!" for root in roots)


async def _only_loopback(host: str, port: int) -> list[Address]:
    del port
    if host != "127.0.0.1":
        raise Forbidden(f"{host} is not to be asked")
    return [ipaddress.ip_address(host)]


async def test_hostile_repository_runs_nothing_and_writes_nowhere_else_b19(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "sentinel").write_bytes(b"untouched")
    touch = f"touch {outside}/ran"
    repository.commit(
        {
            ".gitattributes": b"* filter=evil diff=evil merge=evil\n",
            ".gitconfig": f'[filter "evil"]\n\tsmudge = {touch}\n[core]\n\tfsmonitor = {touch}\n'.encode(),
            ".lfsconfig": b"[lfs]\n\turl = http://10.0.0.1/\n",
            "f": b"f",
        }
    )
    with objects.leased() as lease:
        found = content(objects, await fetcher(objects, lease).git(f"{host[1]}/a", private=True))
        assert found["f"] == b"f"
    blob = repository.blob(b"evil")
    target = repository.blob(os.fsencode(outside))
    below = git(repository.folder, "mktree", stdin=f"100644 blob {blob}\tran\n".encode())
    for entries in (
        [("100644", blob, "..")],
        [("040000", below, "..")],
        [("040000", below, ".git")],
        [("040000", below, ".GIT")],
        [("120000", target, "a"), ("040000", below, "a")],
    ):
        repository.raw_tree(*entries)
        with objects.leased() as lease:
            try:
                await fetcher(objects, lease).git(f"{host[1]}/a#raw", private=True)
            except FlotaError as error:
                assert "\n" not in str(error)
        assert sorted(os.listdir(outside)) == ["sentinel"]
    assert (outside / "sentinel").read_bytes() == b"untouched"
    assert not [name for name in os.listdir(tmp_path / "objects/git") if name.startswith("fetch-")]


async def test_repository_of_folders_without_end_is_refused_and_leaves_nothing(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    """One that stayed would have kept the agent from starting again: Python can't take it away."""
    tree = git(repository.folder, "mktree", stdin=f"100644 blob {repository.blob(b'f')}\tf\n".encode())
    for _ in range(600):
        tree = git(repository.folder, "mktree", stdin=f"040000 tree {tree}\td\n".encode())
    repository.raw_tree(("040000", tree, "d"))
    with pytest.raises(Exhausted, match="512 folders below each other"):
        await fetcher(objects, lease).git(f"{host[1]}/a#raw", private=True)
    assert not [name for name in os.listdir(f"{objects.folder}/git") if name.startswith("fetch-")]


async def test_repository_larger_than_may_come_is_not_checked_out(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, tmp_path: Path
) -> None:
    blob = repository.blob(bytes(1 << 20))
    tree = git(
        repository.folder, "mktree", stdin="".join(f"100644 blob {blob}\tf{n}\n" for n in range(100)).encode()
    )
    repository.raw_tree(*(("040000", tree, f"d{n}") for n in range(100)))
    with pytest.raises(Exhausted, match="than this host takes"), objects.leased(1 << 30) as lease:
        await fetcher(objects, lease).git(f"{host[1]}/a#raw", private=True)
    assert not objects.size


async def test_pack_larger_than_may_come_is_refused(
    host: tuple[GitHost, str], repository: Repository, objects: Objects
) -> None:
    repository.commit({"noise": os.urandom(4 << 20)})
    with pytest.raises((Forbidden, FlotaError)) as failure, objects.leased(2 << 20) as lease:
        await fetcher(objects, lease).git(f"{host[1]}/a", private=True)
    assert not isinstance(failure.value, CommandFailed) and not objects.size


async def test_many_files_of_a_pack_and_modules_have_the_room_of_one_together(
    host: tuple[GitHost, str], root: Path, repository: Repository, objects: Objects
) -> None:
    """Each fits by itself, and none of the files is large."""
    many = {f"noise-{number}": os.urandom(256 << 10) for number in range(6)}
    for name in ("one", "two", "three"):
        Repository(root / name).commit(many)
        git(repository.folder, "submodule", "--quiet", "add", "--", f"{root}/{name}", name)
        git(repository.folder, "config", "-f", ".gitmodules", f"submodule.{name}.url", f"../{name}")
    repository.commit({"f": b"f"})
    with objects.leased(8 << 20) as lease:
        assert await fetcher(objects, lease).git(f"{host[1]}/one", private=True)
    with pytest.raises(FlotaError, match="than this host takes") as failure, objects.leased(8 << 20) as lease:
        await fetcher(objects, lease).git(f"{host[1]}/a", private=True)
    assert not isinstance(failure.value, CommandFailed)
    assert not [name for name in os.listdir(f"{objects.folder}/git") if name.startswith("fetch-")]
