"""The layers of an archive's images into the layer store."""

from __future__ import annotations

from image.archive import Found
from image.base import OnProgress
from image.digest import chain_ids
from image.layers import LayerStore
from model.image import Progress


async def unpack_all(layers: LayerStore, image: Found, say: OnProgress) -> None:
    """All of one image, bottom first. Raises as `LayerStore.unpack`."""
    chains = chain_ids(image.parsed.diff_ids)
    for number, (chain, diff, blob) in enumerate(
        zip(chains, image.parsed.diff_ids, image.blobs, strict=True)
    ):
        if layers.blob(chain) is None:
            say(Progress(status="Extracting", id=diff[7:19]))
            await layers.unpack(blob, chain, diff, below=chains[:number])
        say(Progress(status="Complete", id=diff[7:19]))
