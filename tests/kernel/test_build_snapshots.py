"""Steps of builds on a real store: overlays that become layers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image.build.upper import settled_path
from image.drivers.vfs import VfsDriver
from image.store import ImageStore
from model.build import Output
from model.buildcache import CachePrune
from model.errors import Unsupported
from tests.support.buildstore import StoreLab, remove
from tests.support.imagestores import made, reopened, tree
from tests.support.waiting import until

pytestmark = pytest.mark.kernel


def put(path: str, data: str = "x") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_text(data)


COMMANDS = {
    "one": lambda root: put(f"{root}/one", "1"),
    "two": lambda root: put(f"{root}/etc/two", "2"),
    "gone": lambda root: os.unlink(f"{root}/one"),
    "anew": lambda root: anew(f"{root}/etc"),
    "nothing": lambda root: None,
    "passing": lambda root: passing(f"{root}/etc"),
    "data": lambda root: put(f"{root}/data/file", "changed"),
    "link": lambda root: linked(root),
    "dated": lambda root: dated(root),
    "dated2": lambda root: dated(root),
    "fail": lambda root: fail(f"{root}/half"),
    "deep": lambda root: deep(root),
}


def fail(path: str) -> int:
    put(path)
    return 1


def anew(folder: str) -> None:
    remove(folder)
    put(f"{folder}/three", "3")


def passing(folder: str) -> None:
    """As a mount point is made and taken away."""
    status = os.stat(folder)
    put(f"{folder}/stub")
    os.unlink(f"{folder}/stub")
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))


def linked(root: str) -> None:
    """/link/v is /data."""
    os.mkdir(f"{root}/link")
    os.symlink("../data", f"{root}/link/v")


def dated(root: str) -> None:
    """The same layer whenever it is made."""
    put(f"{root}/dated")
    for path in (f"{root}/dated", root):
        os.utime(path, (1, 1))


def deep(root: str) -> None:
    """More folders below each other than Python calls functions."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


async def settled(store: ImageStore) -> None:
    await until(lambda: not store.build_cache.settling, deadline=20)


def lab(store: ImageStore) -> StoreLab:
    return StoreLab(store, **COMMANDS)


async def files_of(store: ImageStore, ident: str) -> dict[str, bytes]:
    await store.prepare_root("look", ident)
    root = await store.mount_root("look")
    try:
        return tree(root.path)
    finally:
        await store.remove_root("look")


async def test_build_from_scratch_gives_an_image_with_its_files(store: ImageStore) -> None:
    it = lab(store)
    it.runner.context["a"] = b"content"
    image = await it.image("FROM scratch\nCOPY a /a\nRUN one\nRUN two\nRUN gone\nRUN anew\n", names=("app",))
    assert await files_of(store, image.id) == {"a": b"content", "etc/three": b"3"}
    assert store.find("app").id == image.id
    assert len(image.layers) == 5
    assert image.size == len("content") + 3


async def test_saved_image_is_the_same_after_loading_it_elsewhere(store: ImageStore, tmp_path: Path) -> None:
    """Its blobs are those of its files: whoever unpacks them has what was built."""
    it = lab(store)
    image = await it.image("FROM scratch\nRUN one\nRUN two\nRUN gone\nRUN anew\n", names=("app",))
    async with reopened(tmp_path / "other") as other:
        (loaded,) = await other.load(store.save(["app"]))
        assert loaded.id == image.id
        assert await files_of(other, loaded.id) == await files_of(store, image.id)


async def test_rebuild_after_a_restart_takes_all_from_the_cache(store: ImageStore, tmp_path: Path) -> None:
    it = lab(store)
    first = await it.image("FROM scratch\nRUN one\nRUN two\n")
    await settled(store)
    await store.build_cache.written()
    await store.close()
    async with reopened(tmp_path) as again:
        it = lab(again)
        second = await it.image("FROM scratch\nRUN one\nRUN two\n")
        assert it.ran() == []
        assert second.id == first.id


async def test_step_that_changed_nothing_makes_an_empty_layer(store: ImageStore) -> None:
    it = lab(store)
    image = await it.image("FROM scratch\nRUN two\nRUN nothing\nRUN passing\n")
    assert image.layers[1] == image.layers[2]
    assert image.layer_sizes == (1, 0, 0)
    assert os.listdir(store._layers.path(store.builds.of_image(image).layers[-1])) == []


async def test_run_leaves_a_declared_volume_as_it_was(store: ImageStore) -> None:
    it = lab(store)
    it.runner.context["a"] = b"first"
    text = "FROM scratch\nCOPY a /data/file\nVOLUME /data\nRUN data\nRUN two\n"
    image = await it.image(text)
    assert (await files_of(store, image.id))["data/file"] == b"first"
    later = await it.image(text + "COPY a /data/more\n")
    assert "data/more" in await files_of(store, later.id)


async def test_volume_behind_a_link_of_the_image_is_left_as_it_was(store: ImageStore) -> None:
    it = lab(store)
    it.runner.context["a"] = b"first"
    text = "FROM scratch\nCOPY a /data/file\nRUN link\nVOLUME /link/v\nRUN data\n"
    image = await it.image(text)
    assert (await files_of(store, image.id))["data/file"] == b"first"


def test_path_of_a_volume_never_leads_out_of_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in/side").mkdir(parents=True)
    (root / "up").symlink_to("../../../..")
    (root / "abs").symlink_to("/in")
    (root / "loop").symlink_to("loop")
    found = {
        path: settled_path(str(root), path) for path in ("/up/in", "/abs/side", "/loop/x", "/../in", "/new")
    }
    assert found == {
        "/up/in": "/in", "/abs/side": "/in/side", "/loop/x": "/loop/x", "/../in": "/in", "/new": "/new",
    }  # fmt: skip


async def test_volume_that_a_run_makes_first_stays_an_empty_folder(store: ImageStore) -> None:
    image = await lab(store).image("FROM scratch\nVOLUME /data\nRUN data\n")
    await store.prepare_root("look", image.id)
    root = await store.mount_root("look")
    assert os.listdir(f"{root.path}/data") == []
    await store.remove_root("look")


async def test_steps_with_equal_content_share_one_layer(store: ImageStore, tmp_path: Path) -> None:
    it = lab(store)
    await it.build("FROM scratch AS a\nRUN dated\nFROM scratch\nRUN dated2\nCOPY --from=a /dated /copy\n")
    assert sorted(it.ran()) == ["copy /dated", "dated", "dated2"]
    await settled(store)
    chains = {layer.chain for layer in store._layers}
    assert len(chains) == 2
    await store.deleted()
    assert len(os.listdir(tmp_path / "images/layers")) == 2


async def test_failed_or_cancelled_step_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    it = lab(store)
    with pytest.raises(Exception, match="exit code 1"):
        await it.build("FROM scratch\nRUN fail\n")
    assert os.listdir(tmp_path / "images/builds") == []
    assert os.listdir(tmp_path / "images/layers") == []
    assert not any("images/builds" in line for line in Path("/proc/mounts").read_text().splitlines())


async def test_layers_of_the_cache_stay_when_the_image_goes_and_go_with_it(
    store: ImageStore, tmp_path: Path
) -> None:
    it = lab(store)
    image = await it.image("FROM scratch\nRUN one\nRUN two\n", names=("app",))
    await settled(store)
    assert [entry.shared for entry in store.build_cache.entries()] == [True, True]
    await store.remove("app")
    assert {entry.shared for entry in store.build_cache.entries()} == {False}
    again = await it.image("FROM scratch\nRUN one\nRUN two\n")
    assert it.ran() == ["one", "two"]
    assert again.id == image.id
    await store.remove(again.id)
    freed = await store.build_cache.prune(CachePrune(all=True))
    assert len(freed.entries) == 2 and freed.freed > 0
    await store.deleted()
    assert os.listdir(tmp_path / "images/layers") == []


async def test_room_is_made_of_the_cache_before_any_image_goes(store: ImageStore) -> None:
    it = lab(store)
    kept = await it.image("FROM scratch\nRUN one\n", names=("kept",))
    await it.image("FROM scratch\nRUN two\n", names=("gone",))
    await settled(store)
    await store.remove("gone")
    removed = await store.free(1, spare={}, unused_for=0)
    assert removed.deleted == () and removed.freed > 0
    assert [image.id for image in store.list()] == [kept.id]
    assert [entry.source for entry in store.build_cache.entries()] == ["RUN one"]


async def test_many_steps_stand_on_each_other(store: ImageStore) -> None:
    """B27: more than the old limit of 127 layers; what is too much is refused before anything is done."""
    commands = {f"n{n}": lambda root, n=n: put(f"{root}/f{n}") for n in range(140)}
    it = StoreLab(store, **commands)
    image = await it.image("FROM scratch\n" + "".join(f"RUN n{n}\n" for n in range(140)), names=("deep",))
    assert len(await files_of(store, image.id)) == 140
    with pytest.raises(Exception, match="would have 501 layers"):
        await it.build("FROM deep\n" + "".join(f"RUN n{n}\n" for n in range(361)))
    with pytest.raises(Exception, match="more than 500 instructions that make layers"):
        await it.build("FROM scratch\n" + "".join(f"RUN n{n}\n" for n in range(501)))


async def test_killed_build_leaves_nothing_that_a_later_one_would_find(tmp_path: Path) -> None:
    """The store is left as a kill would leave it: mounted, half-made."""
    store = made(tmp_path)
    await store.open()
    it = lab(store)
    await it.build("FROM scratch\nRUN one\n")
    await settled(store)
    files = store.builds.of_image(None)
    context = store.builds.work(files)
    work = await context.__aenter__()
    put(f"{work.root}/half")
    await store._supervisor.close()
    await store._layers.close()
    async with reopened(tmp_path) as again:
        assert os.listdir(tmp_path / "images/builds") == []
        it = lab(again)
        await it.build("FROM scratch\nRUN one\n")
        assert it.ran() == []
    assert not any(str(tmp_path) in line for line in Path("/proc/mounts").read_text().splitlines())


async def test_build_with_whole_trees_gives_what_overlays_give(store: ImageStore, tmp_path: Path) -> None:
    """A driver without upper directories."""
    text = (
        "FROM scratch\nCOPY a /data/file\nRUN one\nRUN two\nRUN gone\nRUN anew\nRUN nothing\n"
        "VOLUME /data /made\nRUN data\n"
    )
    whole = made(tmp_path / "whole", VfsDriver())
    await whole.open()
    found = []
    for one in (store, whole):
        it = lab(one)
        it.runner.context["a"] = b"first"
        image = await it.image(text)
        found.append(await files_of(one, image.id))
        assert len(image.layers) == 7
        assert image.layer_sizes[-1] == 0
        await it.image(text)
        assert it.ran() == ["copy a", "one", "two", "gone", "anew", "nothing", "data"]
    await whole.close()
    assert found[0] == found[1] == {"data/file": b"first", "etc/three": b"3"}


async def test_build_with_an_epoch_and_rewritten_times_is_the_same_again(
    store: ImageStore, tmp_path: Path
) -> None:
    wishes = {
        "args": {"SOURCE_DATE_EPOCH": "1000"},
        "outputs": (Output(options={"rewrite-timestamp": "true"}),),
    }
    text = "FROM scratch\nRUN one\nRUN two\nRUN anew\n"
    first = await lab(store).image(text, **wishes)
    again = await lab(store).image(text, no_cache=True, **wishes)
    assert again.id == first.id
    async with reopened(tmp_path / "other") as other:
        assert (await lab(other).image(text, **wishes)).id == first.id
    plain = await lab(store).image(text, args=wishes["args"])
    assert plain.layers != first.layers


@pytest.mark.parametrize("options", [{}, {"rewrite-timestamp": "true"}])
async def test_folders_too_deep_for_a_layer_are_refused_in_words(
    store: ImageStore, options: dict[str, str]
) -> None:
    with pytest.raises(Unsupported, match="/d/d/"):
        await lab(store).image(
            "FROM scratch\nRUN deep\n",
            args={"SOURCE_DATE_EPOCH": "1"},
            outputs=(Output(options=options),),
        )
