"""A pull of several layers: which of them wait for which."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from image.digest import chain_ids, of
from image.layers import Layer, LayerStore
from image.manifest import Configuration, Descriptor
from image.packed import Packed
from image.part import Part
from image.pull import LayerPull
from image.reference import parse
from image.registry.source import NoSource, Remote
from image.trash import Trash
from image.unpacking import Transit
from model.image import ImageConfig
from model.status import Platform

DIFFS = tuple(of(bytes((number,))) for number in range(3))
CHAINS = chain_ids(DIFFS)


class Registry(NoSource):
    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        path.write_bytes(b"x")


class Layers(LayerStore):
    """The middle one of three is here; the lowest is made once the highest waits for those below it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "layers", Trash(folder / "trash"))
        self.here = [CHAINS[1]]
        self.highest_waits = asyncio.Event()

    def blob(self, chain: str) -> tuple[Packed, Path] | None:
        return (Packed(digest=chain), Path()) if chain in self.here else None

    async def unpack(
        self,
        blob: Part,
        chain: str,
        diff: str,
        *,
        below: Sequence[str] = (),
        packed: Packed | None = None,
        transit: Transit | None = None,
    ) -> Layer:
        assert transit is not None
        if chain == CHAINS[0]:
            await self.highest_waits.wait()
            for _ in range(5):
                await asyncio.sleep(0)
        else:
            self.highest_waits.set()
            await transit.below()
            assert all(other in self.here for other in below)
        self.here.append(chain)
        return Layer(chain=chain, diff=diff)


async def test_layer_waits_for_all_below_that_are_missing_not_only_the_next(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    layers = Layers(tmp_path)
    remote = Remote(
        reference=parse("registry.example/app:1"),
        config=b"",
        parsed=Configuration(
            platform=Platform(os="linux", arch="amd64"), diff_ids=DIFFS, config=ImageConfig()
        ),
        layers=tuple(Descriptor(digest=diff, size=1) for diff in DIFFS),
        pinned="",
    )
    async with asyncio.timeout(10):
        await LayerPull(Registry(), layers, tmp_path / "tmp", lambda _: None).run(remote)
    assert layers.here == [CHAINS[1], CHAINS[0], CHAINS[2]]
