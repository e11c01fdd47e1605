"""Results of builds' steps from other hosts: who gets what, what is not believed. No registry is asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from image.digest import chain_ids
from image.packed import Packed
from image.part import Part
from image.peers.client import Papers
from image.peers.records import Offer, remote_of
from image.pull import LayerPull
from image.registry.source import NoSource
from model.blobs import BlobPeer
from model.errors import Damaged, FlotaError, Unavailable
from model.sharedcache import SharedLayer, SharedRecord
from tests.support.images import digest, image, member, tar
from tests.support.peerhosts import Fleet, PeerHost

KEY = digest(b"a step")
TARS = [tar(member("base", b"b" * 100_000)), tar(member("made", b"by a RUN"))]


class Given:
    def __init__(self, *records: SharedRecord) -> None:
        self._records = {record.key: record for record in records}

    def keys(self) -> Iterable[str]:
        return self._records

    def get(self, key: str) -> SharedRecord | None:
        return self._records.get(key)


@contextlib.asynccontextmanager
async def hosts(tmp_path: Path) -> AsyncIterator[tuple[Fleet, PeerHost, PeerHost, SharedRecord]]:
    """The first has done the step; its controller knows that."""
    fleet = Fleet(tmp_path)
    one, two = (PeerHost(fleet, number, NoSource()) for number in (1, 2))
    async with one.serving(), two.serving():
        record = await done(one)
        one.source.shelf.records = Given(record)
        fleet.swarms.told(one.own, one.source.shelf.digests())
        two.layers.open()
        try:
            yield fleet, one, two, record
        finally:
            await one.layers.close()
            await two.layers.close()


async def done(host: PeerHost) -> SharedRecord:
    built = image(TARS)
    blobs = [blob for key, blob in built.blobs.items() if key != built.id]
    diffs = tuple(digest(layer) for layer in TARS)
    chains = chain_ids(diffs)
    host.layers.open()
    for number, blob in enumerate(blobs):
        path = host.folder / f"blob{number}"
        path.write_bytes(blob)
        packed = Packed(digest=digest(blob), size=len(blob))
        await host.layers.unpack(
            Part(path=str(path)), chains[number], diffs[number], below=chains[:number], packed=packed
        )
    layers = tuple(
        SharedLayer(diff=diff, blob=digest(blob), size=len(blob))
        for diff, blob in zip(diffs, blobs, strict=True)
    )
    return SharedRecord(key=KEY, ident="1f" * 32, layers=layers, source="RUN make", kind="run", created=5.0)


async def pull(host: PeerHost, offer: Offer) -> None:
    (host.folder / "tmp").mkdir(exist_ok=True)
    await LayerPull(host.source, host.layers, host.folder / "tmp", lambda _: None).run(remote_of(offer))


async def test_a_step_that_a_host_has_done_comes_from_it_with_its_layers(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (_, _, two, record):
        offer = await two.source.record(KEY)
        assert offer is not None and offer.record == record
        await pull(two, offer)
        top = chain_ids(tuple(layer.diff for layer in record.layers))[-1]
        assert (Path(two.layers.path(top)) / "made").read_bytes() == b"by a RUN"


async def test_a_step_that_nobody_has_done_is_nobodys(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (fleet, one, two, _):
        assert await two.source.record(digest(b"another")) is None
        assert await one.source.record(KEY) is None, "it is told of others alone"
        fleet.away = True
        assert await two.source.record(KEY) is None


async def test_a_step_whose_host_is_gone_is_nobodys(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (_, one, two, _):
        offer = await two.source.record(KEY)
        assert offer is not None
        one.source.shelf.records = Given()
        assert await two.source.record(KEY) is None
        with pytest.raises(Unavailable, match="no host gives layer"):
            await pull(two, offer)
        assert not list(two.layers)


@pytest.mark.parametrize("record", ["another's", "no layers", "no digest", "too large"])
async def test_a_record_that_can_not_be_is_not_taken(tmp_path: Path, record: str) -> None:
    async with hosts(tmp_path) as (_, one, two, good):
        layer = good.layers[0]
        bad = {
            "another's": replace(good, key=digest(b"x")),
            "no layers": replace(good, layers=()),
            "no digest": replace(good, layers=(replace(layer, diff="../../etc"),)),
            "too large": replace(good, layers=(replace(layer, size=1 << 60),)),
        }[record]
        one.source.shelf.records = Given(bad)
        one.source.shelf.records._records[KEY] = bad
        assert await two.source.record(KEY) is None


async def test_a_layer_that_is_not_what_its_digest_says_is_not_taken(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (_, one, two, record):
        top = chain_ids(tuple(layer.diff for layer in record.layers))[-1]
        kept = one.layers.blob(top)
        assert kept is not None
        data = bytearray(kept[1].read_bytes())
        data[-1] ^= 1
        kept[1].write_bytes(data)
        offer = await two.source.record(KEY)
        assert offer is not None
        with pytest.raises(Damaged, match="came wrong"):
            await pull(two, offer)
        assert two.layers.get(top) is None


async def test_a_ticket_for_one_step_gives_nothing_else(tmp_path: Path) -> None:
    async with hosts(tmp_path) as (fleet, one, two, record):
        place = fleet.places[one.own]
        peer = BlobPeer(host=one.own, address=place.address, port=place.port, whole=True)
        blob = record.layers[-1]
        other = Papers(ticket=fleet.ticket(two.enrolled, records=(digest(b"another"),)))
        image_of = Papers(ticket=fleet.ticket(two.enrolled, KEY))
        for papers in (other, image_of):
            with pytest.raises(FlotaError, match="404"):
                await two.client.record(peer, KEY, papers)
            with pytest.raises(FlotaError, match="404"):
                await two.client.piece(peer, blob.blob, blob.size, 0, papers)
        right = Papers(ticket=fleet.ticket(two.enrolled, records=(KEY,)))
        assert len(await two.client.piece(peer, blob.blob, blob.size, 0, right)) == blob.size
