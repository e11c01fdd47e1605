"""What refers to an image, put beside it in another registry: all of it, however many pages tell of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from image.reference import parse
from image.registry import copying
from image.registry.client import RegistryClient
from image.registry.server.limits import Limits
from model.errors import Unsupported
from tests.support.fleetregistry import Served, serving
from tests.support.images import MANIFEST, descriptor, digest, image, member, tar
from tests.support.registry import FakeRegistry
from tests.support.registry import serving as faked

BUILT = image([tar(member("x", b"x"))])
SIGNATURE = "application/vnd.example.signature"


def referrer(number: int) -> bytes:
    raw = json.loads(BUILT.manifest)
    raw |= {"subject": descriptor(BUILT.manifest, MANIFEST), "artifactType": SIGNATURE}
    return json.dumps({**raw, "annotations": {"number": str(number)}}).encode()


async def filled(served: Served, count: int) -> set[str]:
    """The image in team/app, and that many that refer to it."""
    await served.client.push("team/app", BUILT, "1")
    made = [referrer(number) for number in range(count)]
    for data in made:
        assert (await served.client.push_manifest("team/app", digest(data), data)).status == 201
    return {digest(data) for data in made}


@pytest.mark.parametrize("page", [1, 7, 1000])
async def test_referrers_of_short_pages_are_all_copied(tmp_path: Path, page: int) -> None:
    client = RegistryClient()
    limits = Limits(reserve=0, referrers=page)
    try:
        async with serving(tmp_path / "registry", limits=limits) as served, faked(FakeRegistry()) as other:
            wanted = await filled(served, 45)
            other.push(BUILT, "1")
            origin, target = parse(f"{served.host}/team/app:1"), parse(f"{other.host}/mine:1")
            assert await client.push_referrers(BUILT.digest, origin, target) == 45
            assert wanted <= other.manifests.keys()
    finally:
        await client.close()


async def test_more_referrers_than_anybody_needs_are_refused_and_none_is_copied(tmp_path: Path) -> None:
    client = RegistryClient()
    try:
        async with serving(tmp_path / "registry") as served, faked(FakeRegistry()) as other:
            await filled(served, 1)
            index = served.registry.content.index
            with index.change() as connection:
                ident = index.repository("team/app")
                entry = json.dumps(descriptor(b"x", MANIFEST)).encode()
                rows = [
                    (ident, f"sha256:{number:064x}", MANIFEST, BUILT.digest, SIGNATURE, entry, b"")
                    for number in range(copying.MAX_REFERRERS + 1)
                ]
                connection.executemany("INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            origin, target = parse(f"{served.host}/team/app:1"), parse(f"{other.host}/mine:1")
            with pytest.raises(Unsupported, match="more than 1000 referrers"):
                await client.push_referrers(BUILT.digest, origin, target)
            assert other.manifests == {}
    finally:
        await client.close()
