"""Repositories as contexts and for ADD, from git hosts on loopback: right, once, and never a way out."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from image.context.fetcher import BuildFetcher
from image.context.guard import Address, Guard
from image.context.objects import Lease, Objects
from model.build import Context
from model.errors import Damaged, FlotaError, Forbidden, NotFound
from tests.support.contexts import content, listed, store
from tests.support.gitserver import GitHost, Repository, daemon, git, over_ssh, served


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "served"


@pytest.fixture
def repository(root: Path) -> Repository:
    return Repository(root / "a")


@pytest.fixture
async def host(root: Path, repository: Repository) -> AsyncIterator[tuple[GitHost, str]]:
    async with served(root) as found:
        yield found


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return store(tmp_path / "objects")


@pytest.fixture
def lease(objects: Objects) -> Iterator[Lease]:
    with objects.leased() as one:
        yield one


def fetcher(objects: Objects, lease: Lease) -> BuildFetcher:
    return BuildFetcher(objects, lease, Guard())


def read(files: dict[str, bytes | str | None], name: str) -> bytes:
    found = files[name]
    assert isinstance(found, bytes)
    return found


FILES: dict[str, bytes | str] = {
    "Dockerfile": b"FROM scratch",
    "dir/sub/f": b"f",
    "link": "dir/sub",
    "run.sh": b"#!",
}


async def test_repository_is_a_tree_of_its_commit(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    repository.commit(FILES)
    (repository.folder / "run.sh").chmod(0o755)
    first = repository.commit({})
    git(repository.folder, "tag", "-a", "v1", "-m", "one")
    git(repository.folder, "checkout", "--quiet", "-b", "side")
    repository.commit({"Dockerfile": b"FROM side"})
    git(repository.folder, "checkout", "--quiet", "main")
    repository.commit({"Dockerfile": b"FROM main"})
    url, one = f"{host[1]}/a", fetcher(objects, lease)

    async def dockerfile(ref: str) -> bytes:
        return await one.read(await one.git(url + ref, private=True), "Dockerfile")

    assert (
        await dockerfile("")
        == await dockerfile("#main")
        == await dockerfile("#refs/heads/main")
        == b"FROM main"
    )
    assert (
        await dockerfile("#v1")
        == await dockerfile(f"#{first}")
        == await dockerfile("?tag=v1")
        == b"FROM scratch"
    )
    assert await dockerfile("#side") == await dockerfile("?branch=side") == b"FROM side"
    root = await one.git(f"{url}#v1", private=True)
    assert content(objects, root) == FILES | {"dir": None, "dir/sub": None}
    folder = await one.context(Context(kind="git", ref=f"{url}#v1:dir/sub"), private=True)
    assert content(objects, folder) == {"f": b"f"}
    modes = {name: entry.mode for name, entry in listed(objects, await one.git(url, private=True)).items()}
    assert (modes["run.sh"], modes["dir"], modes["Dockerfile"]) == (0o755, 0o755, 0o644)


async def test_ref_that_did_not_move_is_not_fetched_again(
    host: tuple[GitHost, str], repository: Repository, objects: Objects
) -> None:
    repository.commit(FILES)
    roots = []
    for _ in range(2):
        with objects.leased() as lease:
            roots.append(await fetcher(objects, lease).git(f"{host[1]}/a", private=True))
    fetched = len(host[0].asked)
    assert roots[0] == roots[1]
    repository.commit({"new": b"n"})
    with objects.leased() as lease:
        moved = await fetcher(objects, lease).git(f"{host[1]}/a", private=True)
        assert content(objects, moved)["new"] == b"n"
    assert len(host[0].asked) > fetched
    asked = len(host[0].asked)
    with objects.leased() as lease:
        commit = git(repository.folder, "rev-parse", "HEAD")
        assert await fetcher(objects, lease).git(f"{host[1]}/a#{commit}", private=True) == moved
    assert len(host[0].asked) == asked, "a commit that is known asks nobody"


async def test_repository_of_gits_own_protocol_is_reached_by_its_judged_address(
    root: Path, repository: Repository, objects: Objects, lease: Lease
) -> None:
    repository.commit(FILES)
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address("127.0.0.1" if len(asked) == 1 else "10.9.9.9")]

    async with daemon(root) as url:
        one = BuildFetcher(objects, lease, Guard(lookup=lookup))
        found = await one.git(url.replace("127.0.0.1", "git.example") + "/a", private=True)
    assert content(objects, found)["Dockerfile"] == b"FROM scratch" and asked == ["git.example"]


async def test_git_dir_is_kept_where_it_is_asked_for(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    commit = repository.commit(FILES)
    one = fetcher(objects, lease)
    kept = content(objects, await one.git(f"{host[1]}/a", keep_git_dir=True, private=True))
    assert kept[".git/HEAD"] in (commit.encode() + b"\n",) and b"origin" in read(kept, ".git/config")
    assert not any(name.startswith((".git/hooks/", ".git/logs")) for name in kept)
    for secret in ("user:canary", "canary"):
        url = host[1].replace("://", f"://{secret}@")
        with_login = content(objects, await one.git(f"{url}/a", keep_git_dir=True, private=True))
        assert b"origin" in read(with_login, ".git/config")
        assert not [name for name, data in with_login.items() if b"canary" in os.fsencode(data or b"")]
    assert ".git" not in content(objects, await one.git(f"{host[1]}/a", private=True))
    asked = await one.git(f"{host[1]}/a?keep-git-dir=1", private=True)
    assert ".git/HEAD" in content(objects, asked)


async def test_commit_that_is_not_the_expected_one_is_refused(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    commit = repository.commit(FILES)
    one = fetcher(objects, lease)
    assert await one.git(f"{host[1]}/a", checksum=commit, private=True)
    assert await one.git(f"{host[1]}/a?checksum={commit[:12]}", private=True)
    with pytest.raises(Damaged, match=f"is at the commit {commit}, not 0000"):
        await one.git(f"{host[1]}/a", checksum="0" * 40, private=True)


async def test_repository_that_is_not_there_says_so(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease, tmp_path: Path
) -> None:
    one = fetcher(objects, lease)
    with pytest.raises(NotFound, match="has no commit yet"):
        await one.git(f"{host[1]}/a", private=True)
    repository.commit(FILES)
    for url, says in (
        (f"{host[1]}/none", "no such repository"),
        (f"{host[1]}/a#nowhere", "no branch, tag or commit 'nowhere'"),
        (f"{host[1]}/a#{'0' * 40}", "no commit 0000|no such branch"),
        (f"{host[1]}/a#main:nowhere", "has no folder 'nowhere'"),
        (f"{host[1]}/a#main:Dockerfile", "has no folder"),
    ):
        with pytest.raises(NotFound, match=says):
            await one.git(url, private=True)
    assert not [name for name in os.listdir(tmp_path / "objects/git") if name.startswith("fetch-")]


async def test_git_host_of_the_site_is_refused_unless_allowed_b19(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    repository.commit(FILES)
    with pytest.raises(Forbidden, match="loopback"):
        await fetcher(objects, lease).git(f"{host[1]}/a")
    with pytest.raises(Forbidden, match="loopback"):
        await fetcher(objects, lease).git(f"git@127.0.0.1:a#{'0' * 40}")
    with pytest.raises(NotFound, match=r"no SSH agent was given.*--ssh"):
        await fetcher(objects, lease).git("git@127.0.0.1:a", private=True)
    assert not host[0].asked


async def test_redirect_of_a_git_host_is_not_followed_b19(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    repository.commit(FILES)
    host[0].redirect = "http://10.9.9.9"
    with pytest.raises(FlotaError):
        await fetcher(objects, lease).git(f"{host[1]}/a", private=True)


async def test_token_does_not_go_out_in_the_clear(
    host: tuple[GitHost, str], repository: Repository, objects: Objects, lease: Lease
) -> None:
    repository.commit(FILES)
    host[0].token = "Basic eC1hY2Nlc3MtdG9rZW46dA=="

    async def secret(ident: str) -> bytes | None:
        return b"t" if ident == "GIT_AUTH_TOKEN" else None

    with pytest.raises(Forbidden, match="needs a login"):
        await BuildFetcher(objects, lease, Guard(), secret=secret).git(f"{host[1]}/a", private=True)
    assert {header for _, header in host[0].asked} == {""}


async def test_repository_over_ssh_is_fetched_with_the_clients_agent(
    root: Path, repository: Repository, objects: Objects, lease: Lease, tmp_path: Path
) -> None:
    repository.commit(FILES)
    async with over_ssh(root, tmp_path / "ssh") as (url, agent, _):

        @contextlib.asynccontextmanager
        async def ssh() -> AsyncIterator[str]:
            yield agent

        one = BuildFetcher(objects, lease, Guard(), ssh=ssh)
        found = await one.git(f"{url}/a", private=True)
        assert content(objects, found)["Dockerfile"] == b"FROM scratch"
        with pytest.raises(NotFound, match="no such repository"):
            await one.git(f"{url}/none", private=True)

        @contextlib.asynccontextmanager
        async def nobody() -> AsyncIterator[str]:
            yield os.fspath(tmp_path / "no-agent")

        with pytest.raises(Forbidden, match="lets nobody in"):
            await BuildFetcher(objects, lease, Guard(), ssh=nobody).git(f"{url}/a", private=True)
    known = tmp_path / "objects/git/known_hosts"
    other = await _key(tmp_path / "other")
    assert b"ssh-ed25519" in known.read_bytes()
    async with over_ssh(root, tmp_path / "again") as (url, agent, _):
        port = url.rpartition(":")[2].encode()
        known.write_bytes(b"[127.0.0.1]:" + port + b" " + b" ".join(other.split()[:2]) + b"\n")
        with pytest.raises(Forbidden, match="shows another key than before"):
            await BuildFetcher(objects, lease, Guard(), ssh=ssh).git(f"{url}/a", private=True)


async def _key(path: Path) -> bytes:
    """A public one."""
    made = await asyncio.create_subprocess_exec(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)
    )
    assert await made.wait() == 0
    return path.with_suffix(".pub").read_bytes()
