"""Which entries of a build cache go, under which names steps are kept, and what of a journal is believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from image.build import keeping
from image.build.base import Files
from image.build.cache import Record
from image.build.journal import Change, Gone, Journal, Noted, Put
from image.build.keys import definition, key_of
from image.build.remote import kind_of
from image.build.step import CopyStep, FromImage, FromStage, PlacedMount, RunStep
from image.dockerfile.instruction import Mount, Spot
from model.buildcache import CacheEntry, CacheKeeping, CachePrune
from model.spec import Resources
from model.status import Platform

AMD = Platform(os="linux", arch="amd64")
RUN = RunStep(args=("/bin/sh", "-c", "make"), env=("A=1",))


def entry(
    ident: str, used: float, size: int = 10, *, shared: bool = False, in_use: bool = False
) -> CacheEntry:
    return CacheEntry(id=ident, used=used, size=size, shared=shared, in_use=in_use)


OLD, MID, NEW = entry("old", 100), entry("mid", 200), entry("new", 300)


def test_prune_takes_what_no_image_has_and_no_build_uses() -> None:
    entries = [NEW, entry("image", 1, shared=True), entry("busy", 1, in_use=True), OLD]
    assert keeping.pruned(entries, CachePrune(), 1000) == ("old", "new")
    assert keeping.pruned(entries, CachePrune(all=True), 1000) == ("image", "old", "new")


def test_prune_by_age_and_size_takes_the_longest_unused_first() -> None:
    assert keeping.pruned([NEW, OLD, MID], CachePrune(unused_for=750), 1000) == ("old", "mid")
    assert keeping.pruned([NEW, OLD, MID], CachePrune(keep=15), 1000) == ("old", "mid")
    assert keeping.pruned([NEW, OLD, MID], CachePrune(keep=30), 1000) == ()


def test_host_keeps_to_its_limits_by_itself() -> None:
    entries = [NEW, OLD, MID]
    assert keeping.outgrown(entries, CacheKeeping(max_size=20, max_age=0), 1000) == ("old",)
    assert keeping.outgrown(entries, CacheKeeping(max_size=0, max_age=850), 1000) == ("old",)
    assert keeping.outgrown(entries, CacheKeeping(), 1000) == ()


def test_host_keeps_its_disk_free_of_what_is_worth_it() -> None:
    shared = entry("image", 1, shared=True)
    entries = [NEW, OLD, MID, shared]
    none = CacheKeeping(max_size=0, max_age=0)
    assert keeping.outgrown(entries, none, 1000, lacking=1) == ("old",)
    assert keeping.outgrown(entries, none, 1000, lacking=11) == ("old", "mid")
    assert keeping.outgrown(entries, none, 1000, lacking=10**6) == ("old", "mid", "new")
    by_age = CacheKeeping(max_size=0, max_age=850)
    assert keeping.outgrown([NEW, OLD, MID], by_age, 1000, lacking=10) == ("old",), "what goes anyway counts"


def test_need_for_room_takes_no_more_than_it_must() -> None:
    assert keeping.enough([NEW, OLD, MID], 15) == ("old", "mid")
    assert keeping.enough([NEW, OLD, entry("image", 1, shared=True)], 1000) == ("old", "new")


@pytest.mark.parametrize(
    "other",
    [
        replace(RUN, args=("/bin/sh", "-c", "make all")),
        replace(RUN, env=("A=2",)),
        replace(RUN, user="app"),
        replace(RUN, workdir="/x"),
        replace(RUN, network="none"),
        replace(RUN, insecure=True),
        replace(RUN, mounts=(PlacedMount(mount=Mount(kind="tmpfs", target="/t")),)),
        replace(RUN, hosts=("a:1.2.3.4",)),
        replace(RUN, discarded=("/v",)),
        CopyStep(sources=("a",), target="/"),
    ],
)
def test_key_differs_for_whatever_decides_a_result(other: RunStep | CopyStep) -> None:
    assert key_of("p", RUN, (), AMD) != key_of("p", other, (), AMD)


def test_key_differs_by_parent_content_and_platform() -> None:
    made = {
        key_of("p", RUN, (), AMD),
        key_of("q", RUN, (), AMD),
        key_of("p", RUN, ("c",), AMD),
        key_of("p", RUN, (), replace(AMD, arch="arm64")),
    }
    assert len(made) == 4


def test_key_is_the_same_whatever_does_not_decide_a_result() -> None:
    same = replace(RUN, resources=Resources(memory=1 << 20), proxies=("http_proxy=x",), spot=Spot(line=9))
    assert definition(RUN) == definition(same)
    assert definition(RUN) == definition(replace(RUN, shm_size=8 << 20, ulimits={"nofile": (77, 77)}))
    copy = CopyStep(sources=("a",), target="/", origin=FromStage(index=1))
    assert definition(copy) == definition(replace(copy, origin=FromImage(ref="x")))


def test_journal_gives_back_what_was_written_and_no_half_of_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    changes: list[Change] = [
        Put(record=Record(key="k", files=Files(id="i", layers=("a", "b")), source="RUN x")),
        Noted(guess="g", content="c"),
        Gone(keys=("k",)),
    ]
    journal.append(changes[:2])
    journal.append(changes[2:])
    assert Journal(tmp_path / "journal").read() == changes
    whole = (tmp_path / "journal").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "journal").write_bytes(whole[:cut])
        again = Journal(tmp_path / "journal")
        found = again.read()
        assert found == changes[: len(found)] and len(found) < 3
        again.append(changes[2:])
        assert Journal(tmp_path / "journal").read() == [*found, changes[2]]


def test_journal_with_a_flipped_byte_is_believed_up_to_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append([Noted(guess=f"g{n}", content="c") for n in range(3)])
    data = bytearray((tmp_path / "journal").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "journal").write_bytes(data)
    assert len(Journal(tmp_path / "journal").read()) == 1


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("https://a.test/x.tar.gz", "file"),
        ("http://a.test/", "file"),
        ("https://a.test/x.git", "git"),
        ("https://a.test/x.git#v1:sub", "git"),
        ("git://a.test/x", "git"),
        ("ssh://git@a.test/x", "git"),
        ("git@a.test:me/x.git", "git"),
        ("x.git", ""),
        ("a.test/x", ""),
        ("file:///etc/passwd", ""),
        ("dir/me@home", ""),
    ],
)
def test_source_of_add_is_told_by_how_it_is_written(source: str, kind: str) -> None:
    assert kind_of(source) == kind
