"""The fleet's registry on a disk that is full for real."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.registry.server.limits import Limits
from tests.support.fleetregistry import serving
from tests.support.images import digest, image, member, tar

pytestmark = pytest.mark.kernel
BUILT = image([tar(member("a", b"a"))])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """16 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("reserve", [0, 1 << 30])
async def test_push_to_a_full_disk_is_507_and_its_space_comes_back(disk: Path, reserve: int) -> None:
    """With and without what is to stay free."""
    async with serving(disk / "registry", limits=Limits(reserve=reserve)) as served:
        client = served.client
        await client.push("app", BUILT, "1")
        before = free(disk)
        where = await client.begin("app")
        reply = await client.ask("PATCH", where, b"x" * (20 << 20))
        assert reply.status == 507 and b"disk" in reply.body
        assert (await client.ask("GET", where)).status == 404
        assert before - free(disk) < 1 << 20
        assert (await client.ask("GET", "/v2/app/manifests/1")).body == BUILT.manifest
        data = b"y" * (4 << 20)
        await client.push_blob("app", data)
        assert (await client.ask("GET", f"/v2/app/blobs/{digest(data)}")).body == data


async def test_index_on_a_full_disk_refuses_and_recovers(disk: Path) -> None:
    async with serving(disk / "registry", limits=Limits(reserve=0)) as served:
        client = served.client
        await client.push("app", BUILT, "1")
        with open(disk / "filler", "wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"z" * 4096)
                except OSError:
                    break
        refused = await client.ask("POST", "/v2/app/blobs/uploads/")
        assert refused.status == 507, refused
        assert (await client.ask("GET", f"/v2/app/blobs/{BUILT.id}")).body == BUILT.config
        (disk / "filler").unlink()
        await client.push("app", BUILT, "2")
        assert (await client.ask("GET", "/v2/app/tags/list")).json["tags"] == ["1", "2"]
