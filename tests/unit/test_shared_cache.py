"""What a host tells others of its build cache, and what it takes from them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from image.build import shared
from image.build.base import Files
from image.build.cache import Record
from image.build.shared import FleetCache, GivenRecords, given, taken
from image.digest import chain_ids, of
from image.layers import Layer
from image.packed import Packed
from image.peers.records import Offer, checked
from image.registry.source import Remote
from model.blobs import BlobPeers
from model.errors import Damaged, Unavailable
from model.sharedcache import MAX_SOURCE, SharedRecord

DIFFS = tuple(of(b"%d" % n) for n in range(3))
CHAINS = chain_ids(DIFFS)
LAYERS = {
    chain: Layer(chain=chain, diff=diff, packed=Packed(digest=of(chain.encode()), size=10))
    for chain, diff in zip(CHAINS, DIFFS, strict=True)
}


def record(name: str, layers: int = 3, used: float = 0.0) -> Record:
    files = Files(id=f"id-{name}", layers=CHAINS[:layers])
    return Record(key=of(name.encode()), files=files, created=5.0, used=used, source="RUN x", kind="copy")


class Finder:
    def __init__(self, offer: SharedRecord | None) -> None:
        self.offer = offer

    async def record(self, key: str) -> Offer | None:
        return None if self.offer is None else Offer(record=self.offer, peers=BlobPeers())


def test_record_that_is_given_and_taken_names_the_same_files() -> None:
    one = record("a")
    again = taken(given(one, LAYERS.get))
    assert (again.key, again.files, again.created, again.kind) == (one.key, one.files, 5.0, "copy")
    told = GivenRecords(lambda: {one.key: one}, LAYERS.get, lambda: "n1").get(one.key)
    assert told is not None and taken(told).where == "n1"
    assert given(Record(key="k", files=one.files, source="x" * 9000), LAYERS.get).source == "x" * MAX_SOURCE
    strange = SharedRecord(
        key="k", ident="i", layers=given(one, LAYERS.get).layers, kind="of a later release"
    )
    assert taken(strange).kind == "run"


def test_records_are_told_once_their_layers_are_whole() -> None:
    bare = {**LAYERS, CHAINS[2]: Layer(chain=CHAINS[2], diff=DIFFS[2])}
    young = Record(key=of(b"young"), files=Files(id="y", layers=("step:1",)))
    records = {one.key: one for one in (record("a"), record("b", 2), young)}
    told = GivenRecords(lambda: records, bare.get)
    assert list(told.keys()) == [of(b"b")]
    assert told.get(of(b"a")) is None and told.get(of(b"young")) is None and told.get(of(b"none")) is None
    assert told.get(of(b"b")) is not None


def test_of_very_many_records_those_used_last_are_told() -> None:
    records = {one.key: one for one in (record(str(n), used=float(n)) for n in range(shared.MOST_TOLD + 5))}
    told = set(GivenRecords(lambda: records, LAYERS.get).keys())
    assert len(told) == shared.MOST_TOLD
    assert of(b"4") not in told and of(b"5") in told


async def test_step_of_another_host_is_brought_once_it_was_found() -> None:
    pulled: list[Remote] = []
    rung: list[bool] = []

    async def pull(remote: Remote) -> None:
        pulled.append(remote)

    cache = FleetCache(Finder(given(record("a"), LAYERS.get)), pull, lambda: rung.append(True))
    found = await cache.find(of(b"a"))
    assert found is not None and await cache.bring(found)
    assert pulled[0].parsed.diff_ids == DIFFS and rung == [True]
    assert not await cache.bring(found), "there is an offer for each time that it is found"
    assert await FleetCache(Finder(None), pull, lambda: None).find(of(b"a")) is None


async def test_step_that_can_not_be_brought_is_no_failure() -> None:
    async def pull(remote: Remote) -> None:
        raise Unavailable("no host gives it")

    cache = FleetCache(Finder(given(record("a"), LAYERS.get)), pull, lambda: None)
    found = await cache.find(of(b"a"))
    assert found is not None and not await cache.bring(found)


@pytest.mark.parametrize("ident", ["scratch", "", CHAINS[0], "id-a", "A" * 64, "1" * 65])
def test_record_of_another_that_takes_the_name_of_an_images_files_is_refused(ident: str) -> None:
    one = given(record("a"), LAYERS.get)
    assert checked(replace(one, ident="1" * 64), one.key).ident == "1" * 64
    with pytest.raises(Damaged, match="names no files of a step"):
        checked(replace(one, ident=ident), one.key)
