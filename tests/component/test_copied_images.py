"""Copies of images onto this host, when several of one name come at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.imageapi import ImageApi
from image.fake import record
from image.reference import Reference, parse
from image.registry.source import NoSource, Remote
from model.blobs import BlobPeers, CopyImage
from model.errors import Unavailable
from model.image import Progress
from model.registries import NOBODY, Login
from model.status import Platform
from tests.support.agentlab import AgentLab
from tests.support.images import digest
from tests.support.peerhosts import Fleet, PeerHost

NAME = "registry.example/app:1"
AMD64 = Platform(os="linux", arch="amd64")


class Elsewhere(NoSource):
    async def resolve(self, reference: Reference, platform: Platform, login: Login = NOBODY) -> Remote:
        raise AssertionError("the registry is asked for what hosts offer")


def copy_of(content: bytes) -> CopyImage:
    return CopyImage(ref=NAME, digest=digest(content), answer=BlobPeers())


@pytest.mark.parametrize("second", [b"one", b"two"])
async def test_a_copy_that_ends_leaves_the_offer_of_another_by_its_name(
    tmp_path: Path, second: bytes
) -> None:
    host = PeerHost(Fleet(tmp_path), 1, Elsewhere())
    source = host.source
    first, other = source.offered(copy_of(b"one")), source.offered(copy_of(second))
    first.__enter__()
    other.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(Unavailable, match="no host gives"):
        await source.resolve(parse(NAME), AMD64)
    other.__exit__(None, None, None)
    with pytest.raises(AssertionError):
        await source.resolve(parse(NAME), AMD64)
    await source.close()


@pytest.mark.parametrize(("wanted", "end"), [(record(NAME).id, "done"), (digest(b"another"), "failed")])
async def test_a_copy_is_done_only_with_the_image_that_was_to_come(
    tmp_path: Path, wanted: str, end: str
) -> None:
    """A pull of that name that is under way already is joined, whatever it brings."""
    host, lab = PeerHost(Fleet(tmp_path), 1, NoSource()), AgentLab(tmp_path)
    lab.images.source = host.source
    lab.images.available[parse(NAME).name] = record(NAME)
    async with lab.agent() as agent:
        request = CopyImage(ref=NAME, digest=wanted, answer=BlobPeers())
        lines: list[Progress] = [line async for line in ImageApi(agent).copy_image(request)]
    assert lines[-1].status == end
    assert ("is another image" in lines[-1].error) is (end == "failed")
    await host.source.close()
