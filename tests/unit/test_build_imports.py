"""What builds learn from imported caches, honest ones and others, and who else comes to know it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from image.build.base import Files
from image.build.cache import MemoryCache, NoRemote, Record
from image.build.caching import Remembering
from image.digest import chain_ids, of
from model.build import Done
from tests.support.builds import Lab

TEXT = "FROM base AS a\nRUN one\nRUN two\nFROM base\nCOPY --from=a /f /f\nRUN three\n"
NAMES = itertools.count(1)
PLAIN = Remembering(MemoryCache(), lambda: 0.0)


class Cache(NoRemote):
    """What somebody wrote into a cache: records by the keys that builds ask for."""

    def __init__(self, records: dict[str, Record], diffs: dict[str, str]) -> None:
        self.records = records
        self.diffs = diffs

    async def find(self, key: str) -> Record | None:
        return self.records.get(key)

    async def bring(self, record: Record) -> bool:
        return record.key in self.records


class Host(Lab):
    def __init__(self) -> None:
        super().__init__()
        numbers = itertools.count(1)
        name = next(NAMES)
        self.parts = dataclasses.replace(self.parts, new_id=lambda: f"{name}-{next(numbers)}")
        self.runner.contents["/f"] = "f"
        self.remembering = PLAIN

    async def importing(self, text: str = TEXT, /, **imports: Cache) -> Done:
        """A build with `--cache-from` of each of them."""
        self.remembering = Remembering(self.cache, self.clock.now, imports)
        self.parts = dataclasses.replace(self.parts, cache=self.remembering)
        for one in imports.values():
            self.snapshots.diffs.update(one.diffs)
        return await self.build(text)

    def layers(self, done: Done) -> tuple[str, ...]:
        return self.images.images[done.images[0].image].layers


@pytest.fixture
async def exported() -> Cache:
    """Of a host that has done it all."""
    host, found = Host(), dict[str, Record]()
    await host.importing()
    diffs: dict[str, str] = {}
    for key, kept in host.remembering.used.items():
        record = host.cache.records[kept]
        own = tuple(host.snapshots.diffs[layer] for layer in record.files.layers)
        diffs.update(zip(chain_ids(own), own, strict=True))
        found[key] = replace(record, key=key, files=Files(id=record.files.id, layers=chain_ids(own)))
    return Cache(found, diffs)


def planted(cache: Cache, instruction: str) -> Cache:
    """The same, with other files for one step, under the key and the id that the right ones have."""
    wrong = of(b"planted")
    made = {
        key: replace(record, files=Files(id=record.files.id, layers=chain_ids((wrong,))))
        for key, record in cache.records.items()
        if instruction in record.source
    }
    assert made
    return Cache(made, {chain_ids((wrong,))[0]: wrong})


async def test_import_spares_all_steps_and_is_kept_for_those_who_name_it(exported: Cache) -> None:
    host = Host()
    await host.importing(registry=exported)
    assert host.ran() == []
    exported.records = {}
    await host.importing(registry=exported)
    assert host.ran() == [], "the host has it, and whoever names the source believes it"


async def test_import_is_nothing_to_a_build_that_does_not_name_it(exported: Cache) -> None:
    host = Host()
    await host.importing(registry=exported)
    await host.importing()
    assert sorted(host.ran()) == ["copy /f", "one", "three", "two"]
    await host.importing(other=Cache({}, {}))
    assert host.ran() == [], "what was done here is true for all"


@pytest.mark.parametrize("instruction", ["RUN one", "RUN two", "COPY --from=a"])
async def test_planted_step_stays_with_those_who_believe_its_writer(
    exported: Cache, instruction: str
) -> None:
    """Also what was done on its files, or with files copied from it, under an id that is somebody else's."""
    victim, clean = Host(), Host()
    expected = clean.layers(await clean.importing())
    exported.records |= planted(exported, instruction).records
    exported.diffs |= planted(exported, instruction).diffs
    await victim.importing(registry=exported)
    assert len(victim.ran()) < 4, "something was believed"
    assert victim.layers(await victim.importing()) == expected


async def test_steps_on_planted_files_are_nobody_elses(exported: Cache) -> None:
    victim, clean = Host(), Host()
    text = "FROM base\nRUN one\nRUN more\n"
    expected = clean.layers(await clean.importing(text))
    believed = victim.layers(await victim.importing(text, registry=planted(exported, "RUN one")))
    assert believed != expected and victim.ran() == ["more"]
    assert victim.layers(await victim.importing(text)) == expected and victim.ran() == ["one", "more"]


async def test_step_of_which_the_host_knows_the_result_is_not_imported(exported: Cache) -> None:
    host = Host()
    expected = host.layers(await host.importing())
    assert host.layers(await host.importing(registry=planted(exported, "RUN one"))) == expected


async def test_exports_name_steps_by_their_own_keys(exported: Cache) -> None:
    host = Host()
    await host.importing(registry=exported)
    assert set(host.remembering.used) == set(exported.records)
    assert not set(host.remembering.used.values()) & set(exported.records)


async def test_two_imports_are_another_belief_than_one(exported: Cache) -> None:
    host = Host()
    await host.importing(registry=exported)
    gone: dict[str, Any] = {"registry": Cache({}, {}), "folder": Cache({}, {})}
    await host.importing(**gone)
    assert sorted(host.ran()) == ["copy /f", "one", "three", "two"]
