"""The btrfs driver: images and roots as subvolumes that share blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aio.deletion import deletion
from image.drivers.btrfs import BtrfsDriver, create, is_subvolume
from image.drivers.choice import choose
from image.drivers.mounts import is_mounted
from model.errors import Exhausted, InUse, Unsupported
from tests.contract.test_storage_drivers import Bench
from tests.support import btrfs

pytestmark = pytest.mark.kernel


@pytest.fixture
def on_btrfs(tmp_path: Path) -> Iterator[Bench]:
    with btrfs.mounted(tmp_path) as place:
        (place / "layers").mkdir()
        yield Bench(place, BtrfsDriver())


def test_btrfs_image_is_made_once_and_of_the_nearest_below(on_btrfs: Bench) -> None:
    low, high = on_btrfs.layer(low="1", both="1"), on_btrfs.layer(high="2", both="2")
    on_btrfs.root("a", low)
    tree = os.path.dirname(low) + "/tree"
    (Path(tree) / "mark").touch()  # not of the layer: whoever has it was made of this subvolume
    root = on_btrfs.root("b", low, high)
    assert sorted(os.listdir(root)) == ["both", "high", "low", "mark"]
    assert (root / "both").read_text() == "2"
    assert on_btrfs.root("c", low, high).joinpath("mark").exists()


def test_btrfs_container_shares_its_images_blocks(on_btrfs: Bench) -> None:
    layer = on_btrfs.layer()
    Path(layer, "big").write_bytes(os.urandom(32 << 20))
    on_btrfs.root("first", layer)
    os.sync()
    before = os.statvfs(on_btrfs.folder)
    for number in range(8):
        on_btrfs.root(str(number), layer)
    os.sync()
    after = os.statvfs(on_btrfs.folder)
    assert (before.f_bfree - after.f_bfree) * after.f_frsize < 4 << 20


def test_btrfs_half_made_image_is_begun_again(on_btrfs: Bench) -> None:
    layer = on_btrfs.layer(whole="1")
    left = os.path.dirname(layer) + "/tree.new"
    create(left)
    Path(left, "half").touch()
    assert os.listdir(on_btrfs.root("a", layer)) == ["whole"]


def test_btrfs_root_with_a_containers_own_subvolume_goes_with_its_folder(on_btrfs: Bench) -> None:
    root = on_btrfs.root("a", on_btrfs.layer(file="low"))
    create(str(root / "inner"))
    (root / "inner/file").touch()
    folder = on_btrfs.folder / "roots/a"
    on_btrfs.driver.discard(str(folder))
    assert is_subvolume(str(root))
    for _ in deletion(folder):
        pass
    assert not folder.exists()


def test_btrfs_image_goes_with_its_layer(on_btrfs: Bench) -> None:
    layer = on_btrfs.layer(file="low")
    root = on_btrfs.root("a", layer)
    for _ in deletion(Path(layer).parent):
        pass
    assert (root / "file").read_text() == "low"


def test_btrfs_full_disk_is_told_and_leaves_no_root(on_btrfs: Bench) -> None:
    layer = on_btrfs.layer()
    with open(on_btrfs.folder / "filler", "wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            os.write(file.fileno(), bytes(1 << 20))
    for number in range(20_000):
        try:
            Path(layer, f"f{number}").write_bytes(b"x" * 1500)
        except OSError:
            break
    with pytest.raises(Exhausted, match="btrfs"):
        for number in range(200):
            on_btrfs.root(str(number), layer)
    assert not (on_btrfs.folder / f"roots/{number}/root").exists()
    assert not list(on_btrfs.folder.rglob("*.new")), "half a copy takes no room"


def test_btrfs_elsewhere_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="it is no btrfs"):
        choose(tmp_path, "btrfs")
    assert os.listdir(tmp_path) == []


def test_choice_asked_for_on_btrfs_is_taken_and_kept(on_btrfs: Bench) -> None:
    state = on_btrfs.folder
    assert choose(state)[0].name == "overlay2"
    assert [choose(state, "btrfs")[0].name, choose(state, "btrfs")[1]] == ["btrfs", "asked for"]
    on_btrfs.root("a", on_btrfs.layer())
    (state / "roots/a/root.json").touch()
    driver, why = choose(state)
    assert (driver.name, why) == ("btrfs", "containers here were made by it")
    with pytest.raises(InUse, match="were made by btrfs"):
        choose(state, "overlay2")


def test_root_of_a_subvolume_is_no_mount(on_btrfs: Bench) -> None:
    assert not is_mounted(str(on_btrfs.root("a", on_btrfs.layer())))
    assert is_mounted(str(on_btrfs.folder))
