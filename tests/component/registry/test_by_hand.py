"""What people do with the fleet's registry through its API: they see tags and remove what they name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.images import INDEX, MANIFEST, digest, image, index, member, tar
from tests.support.servedregistry import Controlled, controlled

BASE = tar(member("base", b"base"))
BUILT, OTHER = (image([BASE, tar(member(name, name.encode()))]) for name in ("one", "two"))
BOTH = index((BUILT, "amd64"), (OTHER, "arm64"))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controlled]:
    async with controlled(tmp_path) as made, made.client(*made.admin) as admin:
        await admin.push("team/app", BUILT, "1", "latest")
        await admin.push("team/app", OTHER, "2")
        assert (await admin.push_manifest("team/app", "both", BOTH, INDEX)).status == 201
        yield made


async def tags(fleet: Controlled, repository: str = "team/app") -> dict[str, tuple[str, str]]:
    status, found = await fleet.api("GET", f"/v1/registry/tags?repository={quote(repository, safe='')}")
    assert status == 200, found
    return {tag["name"]: (tag["digest"], tag["media_type"]) for tag in found}


async def remove(fleet: Controlled, ref: str) -> tuple[int, str]:
    status, told = await fleet.api("DELETE", f"/v1/registry/manifests?ref={quote(ref, safe='')}")
    return status, told["message"] if told else ""


async def test_tags_are_told_with_what_they_name(fleet: Controlled) -> None:
    assert await tags(fleet) == await tags(fleet, f"{fleet.host}/team/app") == {
        "1": (BUILT.digest, MANIFEST),
        "2": (OTHER.digest, MANIFEST),
        "both": (digest(BOTH), INDEX),
        "latest": (BUILT.digest, MANIFEST),
    }  # fmt: skip
    status, told = await fleet.api("GET", "/v1/registry/tags?repository=never")
    assert status == 404 and "has no repository never" in told["message"]


@pytest.mark.parametrize("own", [True, False])
async def test_tag_that_is_removed_leaves_its_manifest_and_other_tags(fleet: Controlled, own: bool) -> None:
    assert await remove(fleet, f"{fleet.host}/team/app:1" if own else "team/app:1") == (204, "")
    assert set(await tags(fleet)) == {"2", "both", "latest"}
    async with fleet.client(*fleet.admin) as client:
        assert (await client.ask("GET", "/v2/team/app/manifests/1")).status == 404
        reply = await client.ask("GET", f"/v2/team/app/manifests/{BUILT.digest}")
        assert reply.body == BUILT.manifest
    status, words = await remove(fleet, "team/app:1")
    assert status == 404 and "has no team/app:1" in words


async def test_manifest_that_is_removed_takes_its_tags_along(fleet: Controlled) -> None:
    assert await remove(fleet, f"team/app@{BUILT.digest}") == (204, "")
    assert set(await tags(fleet)) == {"2", "both"}


@pytest.mark.parametrize(
    "ref",
    ["", "app", "app:", ":1", "App:1", "a//b:1", "../x:1", "app@1", "app@sha256:x", "app:-x", "h:5/app:1"],
)
async def test_what_names_nothing_of_a_registry_is_refused_and_removes_nothing(
    fleet: Controlled, ref: str
) -> None:
    status, words = await remove(fleet, ref)
    assert status == 400 and "\n" not in words
    assert len(await tags(fleet)) == 4
