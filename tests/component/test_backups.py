"""`flota backup` and `flota restore` by the command line: files, folders, refusals, death in the middle."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.backup import archive
from controller.backup.restore import before_upgrade, in_place, restore
from controller.pki import Authority
from controller.store.sqlite import SqliteStore
from model.errors import AlreadyExists, InUse, NotFound
from tests.component.test_store_migrations import of_schema_1
from tests.support.servedfleet import ServedFleet, served
from tests.unit.test_backup_archive import state

ROOT = Path(__file__).resolve().parents[2]
DYING = """
import os, signal, sys
from pathlib import Path
from controller.backup import archive
from controller.backup.restore import restore
backup = archive.read(Path(sys.argv[1]).read_bytes())
left = int(sys.argv[3])
def count(event, args):
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
restore(backup, Path(sys.argv[2]), 5000000000.0)
"""
"""Restores, and is killed when it is about to open, make, rename or remove the file of that number."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def phrase(tmp_path: Path) -> str:
    path = tmp_path / "phrase"
    path.write_bytes(b"correct horse battery\n")
    return str(path)


def made(folder: Path) -> archive.Backup:
    data = archive.make(state(), 3, Authority.new("fleet"), "h1:7420", 100.0)
    (folder / "made.backup").write_bytes(data)
    return archive.read(data)


def test_backup_with_a_passphrase_is_unreadable_without_and_verified_with_it(
    fleet: ServedFleet, tmp_path: Path, phrase: str
) -> None:
    fleet.ok("service", "create", "--name", "web", "box:1")
    file = str(tmp_path / "fleet.backup")
    assert fleet.ok("backup", "--passphrase-file", phrase, file) == f"{file}\n"
    data = Path(file).read_bytes()
    assert b"PRIVATE" not in data and b"web" not in data
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert "fleet flota" in fleet.ok("backup", "verify", "--passphrase-file", phrase, file)
    refused = fleet.flota("backup", "verify", file)
    assert (refused.returncode, refused.stderr.decode()) == (
        1,
        f"flota: {file} is encrypted. Give --passphrase-file FILE\n",
    )
    Path(file).write_bytes(data[:-3])
    refused = fleet.flota("backup", "verify", "--passphrase-file", phrase, file)
    assert refused.returncode == 1 and b"flota: " in refused.stderr


def test_backup_needs_the_word_to_be_readable(fleet: ServedFleet, tmp_path: Path, phrase: str) -> None:
    refused = fleet.flota("backup", str(tmp_path / "x"))
    assert b"whoever reads it rules the fleet" in refused.stderr
    refused = fleet.flota("backup", "--insecure-plain", "--passphrase-file", phrase, str(tmp_path / "x"))
    assert refused.returncode
    assert not (tmp_path / "x").exists()
    done = fleet.flota("backup", "--insecure-plain", "-")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["manifest.json", "store.db", "pki/ca.pem", "pki/ca.key"]


def test_backup_to_a_folder_keeps_the_newest_of_this_fleet_and_what_is_none(
    fleet: ServedFleet, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    old = [f"flota-2026010{n}T000000Z.flota-backup" for n in range(1, 5)]
    others = ["notes.txt", "other-20200101T000000Z.flota-backup", "flota-x.flota-backup"]
    for name in (*old, *others):
        (folder / name).write_text(name)
    written = Path(fleet.ok("backup", "--insecure-plain", "--keep", "3", str(folder)).strip())
    assert {p.name for p in folder.iterdir()} == {written.name, *old[2:], *others}
    refused = fleet.flota("backup", "--insecure-plain", "--keep", "3", str(tmp_path / "none"))
    assert b"is no folder" in refused.stderr


def test_backup_replaces_no_device_and_no_link(fleet: ServedFleet, tmp_path: Path) -> None:
    """As /dev/null and /dev/stdout are."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    for where in (pipe, tmp_path):
        refused = fleet.flota("backup", "--insecure-plain", str(where))
        assert refused.returncode == 1 and b"is no file" in refused.stderr
    assert pipe.is_fifo()
    target.touch()
    link.symlink_to(target)
    fleet.ok("backup", "--insecure-plain", str(link))
    assert link.is_symlink() and archive.read(target.read_bytes())


def test_fleet_that_was_never_restored_waits_for_nobody(fleet: ServedFleet) -> None:
    assert fleet.ok("fleet", "recovery") == "all hosts have told what they know\n"
    assert fleet.ok("fleet", "recovery", "--format", "json") == "{}\n"
    for words in (("settle",), ("admit", "n9"), ("recovery", "--format", "xml")):
        refused = fleet.flota("fleet", *words)
        assert refused.returncode == 1 and refused.stderr.startswith(b"flota: ")


def test_restore_makes_a_state_once_and_touches_none_that_is_there(tmp_path: Path) -> None:
    backup, folder = made(tmp_path), tmp_path / "root" / "controller"
    told = restore(backup, folder, 5e9)
    assert told.awaited == ()
    assert sorted(p.name for p in folder.iterdir()) == ["pki", "store.db"]
    assert [p.stat().st_mode & 0o777 for p in (folder, folder / "pki", folder / "pki" / "ca.key")] == [
        0o700,
        0o700,
        0o600,
    ]
    before = (folder / "store.db").read_bytes()
    with pytest.raises(AlreadyExists, match=r"pki, store\.db"):
        restore(backup, folder, 6e9)
    assert (folder / "store.db").read_bytes() == before


async def test_restore_leads_with_an_epoch_beyond_the_backups(tmp_path: Path) -> None:
    folder = tmp_path / "controller"
    restore(made(tmp_path), folder, 5e9)
    store = await SqliteStore.open(folder)
    assert await store.lead() == 5_000_000_001
    assert store.snapshot().services == state().services
    with pytest.raises(InUse):
        before_upgrade(folder, 6e9)
    await store.close()


async def test_restore_into_the_folder_of_a_controller_that_has_just_begun_is_refused(tmp_path: Path) -> None:
    from controller.store.sqlite_file import FolderLock

    folder = tmp_path / "controller"
    lock = FolderLock(folder)
    with pytest.raises(InUse):
        restore(made(tmp_path), folder, 5e9)
    lock.release()
    restore(made(tmp_path), folder, 5e9)


def test_restore_killed_anywhere_leaves_nothing_or_all_and_can_be_asked_for_again(tmp_path: Path) -> None:
    backup = made(tmp_path)
    whole, number = 0, 0
    while True:
        folder = tmp_path / str(number) / "controller"
        folder.mkdir(parents=True)
        (folder / "lock").touch()
        words = [sys.executable, "-c", DYING, str(tmp_path / "made.backup"), str(folder), str(number)]
        done = subprocess.run(words, cwd=ROOT, check=False)
        assert done.returncode in (0, -signal.SIGKILL)
        if folder.exists() and any(p.name != "lock" for p in folder.iterdir()):
            whole += 1
        else:
            restore(backup, folder, 5e9)
        store = asyncio.run(opened(folder))
        assert store.services == state().services
        assert Authority.open(folder / "pki", "fleet").pem == backup.certificate
        if done.returncode == 0:
            break
        number += 1
    assert number > 10 and whole > 1


async def opened(folder: Path) -> object:
    store = await SqliteStore.open(folder)
    await store.close()
    return store.snapshot()


def test_restore_of_before_an_upgrade_brings_it_back_and_keeps_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "controller"
    with pytest.raises(NotFound, match="no controller's state"):
        before_upgrade(folder, 5e9)
    folder.mkdir()
    before = of_schema_1(folder / "store.db")
    asyncio.run(opened(folder))
    told = before_upgrade(folder, 5e9)
    assert told.kept == str(folder / "store.db.schema-2")
    again = asyncio.run(opened(folder))
    assert again.services == before.services  # type: ignore[attr-defined]


async def test_file_that_was_copied_back_is_restored_where_it_is_with_its_log(tmp_path: Path) -> None:
    folder, copy = tmp_path / "controller", tmp_path / "copy"
    with pytest.raises(NotFound, match="no controller's state"):
        in_place(folder, 6e9)
    restore(made(tmp_path), folder, 5e9)
    store = await SqliteStore.open(folder)
    assert await store.lead() == 5_000_000_001
    with pytest.raises(InUse):
        in_place(folder, 6e9)
    copy.mkdir()
    for name in ("store.db", "store.db-wal"):  # as a controller that was killed left them
        (copy / name).write_bytes((folder / name).read_bytes())
    await store.close()
    told = in_place(copy, 6e9)
    assert told.kept == str(copy / "store.db.schema-2")
    again = await SqliteStore.open(copy)
    assert await again.lead() == 6_000_000_001, "beyond all that the one that is left can have led with"
    found = again.snapshot()
    assert found.services == state().services and found.revision > store.snapshot().revision
    assert found.settings.restored_at == 6e9
    await again.close()
