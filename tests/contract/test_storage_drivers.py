"""What every storage driver promises: an image's layers as one tree, private writes, nothing left behind."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from image.drivers.base import StorageDriver
from image.drivers.btrfs import BtrfsDriver
from image.drivers.choice import choose, try_out
from image.drivers.mounts import is_mounted
from image.drivers.overlay import OverlayDriver
from image.drivers.vfs import VfsDriver
from model.errors import FlotaError, Unsupported
from tests.support import btrfs

pytestmark = pytest.mark.kernel

DRIVERS: dict[str, Callable[[], StorageDriver]] = {
    "overlay": OverlayDriver,
    "overlay-by-options": lambda: OverlayDriver(appending=False),
    "btrfs": BtrfsDriver,
    "vfs": VfsDriver,
}


class Bench:
    """Layers and roots of one driver below a folder."""

    def __init__(self, folder: Path, driver: StorageDriver) -> None:
        self.folder = folder
        self.driver = driver
        self.used: set[str] = set()

    def layer(self, **files: str) -> str:
        path = self.folder / "layers" / str(len(os.listdir(self.folder / "layers")) + 1) / "fs"
        path.mkdir(parents=True)
        for name, content in files.items():
            (path / name).write_text(content)
        return str(path)

    def root(self, name: str, *layers: str) -> Path:
        path = str(self.folder / "roots" / name)
        self.used.add(path)
        self.driver.prepare(path, layers)
        return Path(self.driver.mount(path, layers))

    def close(self) -> None:
        for path in self.used:
            self.driver.unmount(path)
            assert not is_mounted(os.path.join(path, "root"))


@contextmanager
def place_for(driver: str, folder: Path) -> Iterator[Path]:
    """Where the driver works."""
    if driver != BtrfsDriver.name:
        yield folder
        return
    with btrfs.mounted(folder) as place:
        yield place


@pytest.fixture(params=DRIVERS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with place_for(request.param, tmp_path) as place:
        folder = place / "store"
        (folder / "layers").mkdir(parents=True)
        bench = Bench(folder, DRIVERS[request.param]())
        yield bench
        bench.close()
        shutil.rmtree(folder)


def whiteout(path: str) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def test_layers_upper_ones_win(bench: Bench) -> None:
    root = bench.root("a", bench.layer(one="1", both="low"), bench.layer(two="2", both="high"))
    assert {p.name: p.read_text() for p in root.iterdir()} == {"one": "1", "two": "2", "both": "high"}


def test_whiteout_hides_what_is_below(bench: Bench) -> None:
    low, high = bench.layer(gone="x", stays="y"), bench.layer()
    whiteout(f"{high}/gone")
    assert os.listdir(bench.root("a", low, high)) == ["stays"]


def test_opaque_folder_hides_what_the_folder_held_below(bench: Bench) -> None:
    low, high = bench.layer(), bench.layer()
    for layer, name in ((low, "old"), (high, "new")):
        os.mkdir(f"{layer}/d")
        Path(layer, "d", name).touch()
    os.setxattr(f"{high}/d", "trusted.overlay.opaque", b"y")
    root = bench.root("a", low, high)
    assert os.listdir(root / "d") == ["new"]


def test_file_over_folder_and_folder_over_file(bench: Bench) -> None:
    low, high = bench.layer(b="file"), bench.layer(a="file")
    os.mkdir(f"{low}/a")
    os.mkdir(f"{high}/b")
    root = bench.root("x", low, high)
    assert (root / "a").is_file() and (root / "b").is_dir()


def test_attributes_are_those_of_the_layer(bench: Bench) -> None:
    layer = bench.layer(tool="#!")
    path = f"{layer}/tool"
    os.chown(path, 7, 8)
    os.setxattr(path, "user.note", b"hello")
    os.chmod(path, 0o4751)
    os.link(path, f"{layer}/twin")
    os.symlink("/nowhere", f"{layer}/link")
    os.mkfifo(f"{layer}/pipe")
    os.mknod(f"{layer}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.utime(path, ns=(1, 1_500_000_000))
    root = bench.root("a", layer)
    status = os.lstat(root / "tool")
    assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFREG | 0o4751, 7, 8)
    assert status.st_mtime_ns == 1_500_000_000
    assert os.getxattr(root / "tool", "user.note") == b"hello"
    assert os.stat(root / "twin").st_ino == status.st_ino
    assert os.readlink(root / "link") == "/nowhere"
    assert stat.S_ISFIFO(os.lstat(root / "pipe").st_mode)
    assert os.lstat(root / "null").st_rdev == os.makedev(1, 3)


def test_writes_are_private_to_a_root(bench: Bench) -> None:
    layer = bench.layer(shared="image")
    first, second = bench.root("a", layer), bench.root("b", layer)
    (first / "shared").write_text("mine")
    (first / "new").write_text("new")
    os.unlink(second / "shared")
    assert (first / "shared").read_text() == "mine"
    assert os.listdir(second) == []
    assert Path(layer, "shared").read_text() == "image"
    assert os.listdir(layer) == ["shared"]


def test_writes_outlive_an_unmount(bench: Bench) -> None:
    layer = bench.layer(file="image")
    root = bench.root("a", layer)
    (root / "file").write_text("written")
    bench.driver.unmount(str(bench.folder / "roots/a"))
    assert (bench.root("a", layer) / "file").read_text() == "written"


def test_removed_and_made_again_hides_what_was_below(bench: Bench) -> None:
    layer = bench.layer()
    os.mkdir(f"{layer}/d")
    Path(layer, "d", "old").touch()
    root = bench.root("a", layer)
    shutil.rmtree(root / "d")
    assert os.listdir(root) == []
    os.mkdir(root / "d")
    assert os.listdir(root / "d") == []
    assert os.listdir(f"{layer}/d") == ["old"]


def test_renamed_file_leaves_its_old_name_and_keeps_its_content(bench: Bench) -> None:
    root = bench.root("a", bench.layer(old="content", replaced="x"))
    os.rename(root / "old", root / "replaced")
    assert os.listdir(root) == ["replaced"]
    assert (root / "replaced").read_text() == "content"


def test_first_write_copies_attributes_up(bench: Bench) -> None:
    layer = bench.layer(file="low")
    os.chown(f"{layer}/file", 7, 8)
    os.chmod(f"{layer}/file", 0o640)
    os.setxattr(f"{layer}/file", "user.note", b"kept")
    path = bench.root("a", layer) / "file"
    with open(path, "a") as file:
        file.write("+")
    status = os.stat(path)
    assert (path.read_text(), stat.S_IMODE(status.st_mode), status.st_uid) == ("low+", 0o640, 7)
    assert os.getxattr(path, "user.note") == b"kept"


def test_new_hard_link_is_the_same_file(bench: Bench) -> None:
    root = bench.root("a", bench.layer(file="low"))
    os.link(root / "file", root / "twin")
    (root / "twin").write_text("changed")
    assert (root / "file").read_text() == "changed"
    assert os.stat(root / "file").st_nlink == 2


def test_busy_root_is_taken_away_and_can_be_mounted_again(bench: Bench) -> None:
    layer = bench.layer(file="low")
    root = bench.root("a", layer)
    with open(root / "file") as held:
        bench.driver.unmount(str(bench.folder / "roots/a"))
        assert held.read() == "low"
    assert (bench.root("a", layer) / "file").read_text() == "low"


def test_every_call_may_be_repeated(bench: Bench) -> None:
    layer = bench.layer(file="image")
    root = bench.root("a", layer)
    (root / "file").write_text("written")
    assert bench.root("a", layer) == root
    assert (root / "file").read_text() == "written"
    for _ in range(2):
        bench.driver.unmount(str(bench.folder / "roots/a"))
    bench.driver.unmount(str(bench.folder / "roots/never-there"))


def test_image_without_layers_is_an_empty_root(bench: Bench) -> None:
    root = bench.root("a")
    assert os.listdir(root) == []
    (root / "file").touch()


def test_root_folder_has_the_top_layers_mode(bench: Bench) -> None:
    layer = bench.layer()
    os.chmod(layer, 0o711)
    os.chown(layer, 5, 6)
    status = os.stat(bench.root("a", bench.layer(), layer))
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o711, 5, 6)


def test_many_layers_stack(bench: Bench) -> None:
    layers = [bench.layer(**{f"f{number}": str(number), "top": str(number)}) for number in range(130)]
    root = bench.root("c" * 64, *layers)
    assert len(os.listdir(root)) == 131
    assert (root / "top").read_text() == "129"


def test_paths_longer_than_one_mount_option_work(bench: Bench) -> None:
    deep = bench.folder / ("d" * 200)
    (deep / "layers").mkdir(parents=True)
    bench.folder = deep
    root = bench.root("r" * 100, bench.layer(low="1"), bench.layer(high="2"))
    assert sorted(os.listdir(root)) == ["high", "low"]


def test_store_folder_with_the_characters_of_mount_options_works(bench: Bench) -> None:
    odd = bench.folder / "a:b,c\\d e"
    (odd / "layers").mkdir(parents=True)
    bench.folder = odd
    root = bench.root("r", bench.layer(low="1"), bench.layer(high="2"))
    assert sorted(os.listdir(root)) == ["high", "low"]


def test_half_made_copy_is_begun_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, VfsDriver())
    (tmp_path / "layers").mkdir()
    (tmp_path / "roots/a/building").mkdir(parents=True)
    (tmp_path / "roots/a/building/half").touch()
    assert os.listdir(bench.root("a", bench.layer(whole="1"))) == ["whole"]


def test_more_layers_than_overlayfs_stacks_are_refused(tmp_path: Path) -> None:
    driver = OverlayDriver()
    folder = str(tmp_path / "r")
    driver.prepare(folder, [str(tmp_path)])
    with pytest.raises(Unsupported, match="501 layers"):
        driver.mount(folder, ["/x"] * 501)


def test_layer_that_is_gone_is_an_error_in_words(tmp_path: Path) -> None:
    driver = OverlayDriver()
    folder = str(tmp_path / "r")
    driver.prepare(folder, [])
    with pytest.raises(FlotaError, match="overlay mount"):
        driver.mount(folder, [str(tmp_path / "gone")])


def test_choice_is_overlay_where_it_works_and_a_copy_where_not(tmp_path: Path) -> None:
    driver, why = choose(tmp_path)
    assert (driver.name, why) == ("overlay2", "overlayfs works on this file system")
    nested = Bench(tmp_path, OverlayDriver())
    (tmp_path / "layers").mkdir()
    try:
        root = nested.root("a", nested.layer(file="1"))
        driver, why = choose(root)
        assert driver.name == "vfs"
        assert "overlay2 does not work" in why and "(it is no btrfs); each container is a copy" in why
        assert os.listdir(root) == ["file"]
        with pytest.raises(Unsupported, match="storage driver overlay2 does not work"):
            choose(root, "overlay2")
    finally:
        nested.close()


def test_choice_of_an_unknown_driver_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="overlay2, btrfs, vfs"):
        choose(tmp_path, "aufs")


def test_choice_clears_a_trial_that_a_crash_left(tmp_path: Path) -> None:
    left = tmp_path / "trial-left"
    (left / "lower").mkdir(parents=True)
    driver = OverlayDriver()
    driver.prepare(str(left), [str(left / "lower")])
    driver.mount(str(left), [str(left / "lower")])
    choose(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", DRIVERS)
def test_trial_leaves_nothing(name: str, tmp_path: Path) -> None:
    with place_for(name, tmp_path) as place:
        before = os.listdir(place)
        assert try_out(DRIVERS[name](), place) == ""
        assert os.listdir(place) == before


def test_discarded_root_is_gone_and_its_layers_stay(bench: Bench) -> None:
    layer = bench.layer(file="low")
    bench.root("a", layer)
    folder = str(bench.folder / "roots/a")
    for _ in range(2):
        bench.driver.unmount(folder)
        bench.driver.discard(folder)
    shutil.rmtree(folder)
    assert (bench.root("b", layer) / "file").read_text() == "low"


def test_driver_knows_its_own_roots(bench: Bench) -> None:
    layer = bench.layer(file="low")
    folder = str(bench.folder / "roots/a")
    assert not bench.driver.made(folder)
    bench.root("a", layer)
    assert [make().name for make in (OverlayDriver, BtrfsDriver, VfsDriver) if make().made(folder)] == [
        bench.driver.name
    ]
