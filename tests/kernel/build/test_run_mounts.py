"""RUN --mount in real containers: what it shows, what of it stays, and what hostile files get by it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from image.build.base import Bound
from image.dockerfile.instruction import Mount
from model.errors import InvalidInput, NotFound
from tests.support.buildlab import BuildLab, SaidSession

pytestmark = pytest.mark.kernel


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Files of another stage, or a context, with a sentinel beside them."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("sentinel")
    stage = tmp_path / "stage"
    (stage / "src/deep").mkdir(parents=True)
    (stage / "src/a.txt").write_text("a\n")
    (stage / "src/deep/b.txt").write_text("b\n")
    os.symlink("/src/deep", stage / "inner")
    os.symlink("../../../../../../outside", stage / "climbing")
    os.symlink(str(tmp_path / "outside"), stage / "absolute")
    os.mkfifo(stage / "pipe")
    return stage


def census(folder: Path) -> list[tuple[str, int, int, bytes]]:
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found.append((str(path), status.st_mode, status.st_mtime_ns, data))
    return found


# -- bind ---------------------------------------------------------------------------------------------
async def test_bind_shows_other_files_read_only_and_leaves_no_trace(building: BuildLab, other: Path) -> None:
    with building.files() as files:
        mounts = [Mount(target="/proj/in", source="/src"), Mount(target="/one", source="/src/a.txt")]
        script = "cat /proj/in/a.txt /proj/in/deep/b.txt /one; touch /proj/in/x || echo refused"
        bound = [Bound(path=str(other))] * 2
        before = census(other)
        code, said = await building.run(script, files=files, mounts=mounts, bound=bound)
        assert (code, said.out) == (0, b"a\nb\na\nrefused\n")
        assert files.changed() == []
        assert census(other) == before


async def test_writable_bind_takes_changes_into_the_layer_that_is_thrown_away(
    building: BuildLab, other: Path
) -> None:
    mounts = [
        Mount(target="/in", source="/src", read_only=False),
        Mount(target="/one", source="/src/a.txt", read_only=False),
    ]
    script = "echo new > /in/new; rm -r /in/deep; echo over > /one; cat /in/new /one /in/a.txt"
    before = census(other)
    with building.files() as files, building.files(other) as first, building.files(other) as second:
        bound = [Bound(path=first.root), Bound(path=second.root)]
        code, said = await building.run(script, files=files, mounts=mounts, bound=bound)
        assert (code, said.out) == (0, b"new\nover\na\n")
        assert files.changed() == []
    assert census(other) == before


async def test_target_is_of_the_working_folder_where_it_is_relative(building: BuildLab, other: Path) -> None:
    mounts = [Mount(target="in", source="src")]
    code, said = await building.run(
        "cat in/a.txt", mounts=mounts, bound=[Bound(path=str(other))], workdir="/home/app"
    )
    assert (code, said.out) == (0, b"a\n")


async def test_mount_within_a_mount_is_seen(building: BuildLab, other: Path) -> None:
    mounts = [
        Mount(target="/in/deep", source="/src/deep"),
        Mount(kind="tmpfs", target="/in"),
    ]
    bound = [Bound(path=str(other)), None]
    with building.files() as files:
        code, said = await building.run("ls /in; cat /in/deep/b.txt", files=files, mounts=mounts, bound=bound)
        assert (code, said.out) == (0, b"deep\nb\n")
        assert files.changed() == []


@pytest.mark.parametrize(
    "source", ["/climbing", "/absolute", "/climbing/secret", "../../outside", "/../outside"]
)
async def test_source_never_leads_out_of_its_files_b14(building: BuildLab, other: Path, source: str) -> None:
    mounts = [Mount(target="/in", source=source, read_only=False)]
    with pytest.raises(NotFound, match="/in"):
        await building.run("cat /in/secret", mounts=mounts, bound=[Bound(path=str(other))])


async def test_whole_files_with_a_link_for_a_root_stay_theirs(building: BuildLab, other: Path) -> None:
    mounts = [Mount(target="/in", source="/"), Mount(target="/inner", source="/inner")]
    code, said = await building.run("ls /in /inner", mounts=mounts, bound=[Bound(path=str(other))] * 2)
    assert code == 0 and b"b.txt" in said.out and b"climbing" in said.out


async def test_source_that_is_neither_file_nor_folder_is_refused(building: BuildLab, other: Path) -> None:
    with pytest.raises(InvalidInput, match="neither"):
        await building.run(
            "true", mounts=[Mount(target="/in", source="/pipe")], bound=[Bound(path=str(other))]
        )


# -- targets ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "target", ["/", "//", "/.", "/proc", "/proc/self", "/dev", "/sys", "/sys/fs/x", "a\0b", ""]
)
async def test_target_that_the_container_itself_has_is_refused_b14(building: BuildLab, target: str) -> None:
    with pytest.raises(InvalidInput):
        await building.run("true", mounts=[Mount(kind="tmpfs", target=target)])


@pytest.mark.parametrize("to", ["/", "/proc", "../../../..", "/proc/self/fd", "loop"])
async def test_target_behind_a_link_to_such_a_place_is_refused(building: BuildLab, to: str) -> None:
    with building.files() as files:
        os.symlink(to, f"{files.root}/loop")
        before = files.changed()
        with pytest.raises(InvalidInput):
            await building.run("true", files=files, mounts=[Mount(kind="tmpfs", target="/loop")])
        assert files.changed() == before


async def test_target_behind_a_link_is_made_within_the_root(building: BuildLab, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with building.files() as files:
        os.symlink(str(tmp_path / "outside"), f"{files.root}/way")
        mounts = [Mount(kind="tmpfs", target="/way/there")]
        code, said = await building.run(": > /way/there/x; ls /way/there", files=files, mounts=mounts)
        assert (code, said.out) == (0, b"x\n")
        assert files.changed() == ["way"]
    assert list((tmp_path / "outside").iterdir()) == []


async def test_target_swapped_for_a_link_by_the_step_takes_nothing_away_elsewhere(
    building: BuildLab, tmp_path: Path
) -> None:
    """CVE-2024-23652."""
    outside = tmp_path / "outside"
    (outside / "c").mkdir(parents=True)
    before = outside.lstat().st_mtime_ns
    with building.files() as files:
        script = f"mv /a/b /a/moved && ln -s {outside} /a/b && ln -s / /a/up"
        mounts = [Mount(kind="tmpfs", target="/a/b/c"), Mount(kind="tmpfs", target="/a/up2/etc")]
        code, _ = await building.run(script, files=files, mounts=mounts)
        assert code == 0
        assert sorted(os.listdir(f"{files.root}/a")) == ["b", "moved", "up"]
        assert os.listdir(f"{files.root}/a/moved") == []
        assert (Path(files.root) / "etc/passwd").exists()
    assert outside.lstat().st_mtime_ns == before and (outside / "c").is_dir()


async def test_mount_point_that_was_there_stays_as_it_was(building: BuildLab) -> None:
    (building.base / "data").mkdir()
    (building.base / "data/kept").write_text("kept")
    with building.files() as files:
        mounts = [Mount(kind="tmpfs", target="/data")]
        await building.run(": > /data/x; ls /data", files=files, mounts=mounts)
        assert files.changed() == []
        assert (Path(files.root) / "data/kept").read_text() == "kept"


async def test_folder_around_a_mount_point_keeps_what_the_step_wrote(building: BuildLab) -> None:
    with building.files() as files:
        mounts = [Mount(kind="tmpfs", target="/made/in")]
        await building.run(": > /made/own", files=files, mounts=mounts)
        assert files.changed() == ["made", "made/own"]


async def test_more_mounts_than_anybody_needs_are_refused_b14(building: BuildLab) -> None:
    with pytest.raises(InvalidInput, match="1000 mounts"):
        await building.run("true", mounts=[Mount(kind="tmpfs", target=f"/t{n}") for n in range(1000)])


async def test_many_mounts_are_made(building: BuildLab) -> None:
    with building.files() as files:
        mounts = [Mount(kind="tmpfs", target=f"/t/{n}") for n in range(100)]
        _, said = await building.run("grep -c ' /t/' /proc/mounts", files=files, mounts=mounts)
        assert said.out == b"100\n" and files.changed() == []


# -- tmpfs --------------------------------------------------------------------------------------------
async def test_tmpfs_has_its_size_and_may_hold_programs(building: BuildLab) -> None:
    script = "df -k /t | tail -1 | awk '{print $2}'; cp /bin/busybox /t/ && /t/busybox echo runs"
    _, said = await building.run(script, mounts=[Mount(kind="tmpfs", target="/t", size=4 << 20)])
    assert said.out == b"4096\nruns\n"


# -- secrets ------------------------------------------------------------------------------------------
CANARY = b"canary-7f3a91"


def traces(folder: Path) -> list[str]:
    files = (p for p in folder.rglob("*") if p.parent.name != "ns" and p.is_file() and not p.is_symlink())
    return [str(p) for p in files if CANARY in p.read_bytes()]


async def test_secret_is_a_file_of_its_owner_while_the_step_runs(building: BuildLab) -> None:
    session = SaidSession({"key": CANARY})
    with building.files() as files:
        mounts = [
            Mount(kind="secret", ident="key"),
            Mount(kind="secret", ident="key", target="/etc/key", uid=1000, gid=1001, mode=0o440),
        ]
        script = "stat -c '%a %u %g' /run/secrets/key /etc/key; cat /etc/key; touch /etc/key || echo ro"
        code, said = await building.run(script, files=files, mounts=mounts, session=session)
        assert (code, said.out) == (0, b"400 0 0\n440 1000 1001\n" + CANARY + b"ro\n")
        assert files.changed() == []
    assert traces(building.folder) == []


async def test_secret_lies_in_memory_alone(building: BuildLab) -> None:
    session = SaidSession({"key": CANARY})
    found: list[str] = []
    session.heard = lambda data: found.extend(traces(building.folder))
    script = "echo here; sleep 0.3"
    code, _ = await building.run(script, mounts=[Mount(kind="secret", ident="key")], session=session)
    assert code == 0 and found
    assert all("/run/build/" in path and "/secrets/" in path for path in found)


async def test_secret_as_a_variable_is_no_file(building: BuildLab) -> None:
    session = SaidSession({"token": CANARY})
    mounts = [Mount(kind="secret", ident="token", env="TOKEN")]
    code, said = await building.run("echo $TOKEN; ls /run 2>&1", mounts=mounts, session=session)
    assert said.out.startswith(CANARY + b"\n") and code != 0


async def test_missing_secret_is_left_out_unless_it_is_required_b15(building: BuildLab) -> None:
    code, _ = await building.run("test ! -e /run/secrets/key", mounts=[Mount(kind="secret", ident="key")])
    assert code == 0
    with pytest.raises(NotFound, match="secret key is required"):
        await building.run("true", mounts=[Mount(kind="secret", ident="key", required=True)])


@pytest.mark.parametrize("ident", ["../../etc/shadow", "..", "/", "a/.."])
async def test_id_of_a_secret_is_no_path_b15(building: BuildLab, ident: str) -> None:
    session = SaidSession({ident: CANARY})
    with building.files() as files:
        try:
            mounts = [Mount(kind="secret", ident=ident)]
            _, said = await building.run("ls /run/secrets", files=files, mounts=mounts, session=session)
        except InvalidInput:
            assert ident != "../../etc/shadow"
        else:
            assert (ident, said.out) == ("../../etc/shadow", b"shadow\n")
        assert files.changed() == []


async def test_secret_that_is_no_text_or_too_long_is_refused(building: BuildLab) -> None:
    mounts = [Mount(kind="secret", ident="key", env="KEY")]
    for value in (b"\xff", b"a\0b"):
        with pytest.raises(InvalidInput, match="no text"):
            await building.run("true", mounts=mounts, session=SaidSession({"key": value}))
    with pytest.raises(InvalidInput, match="500 KiB"):
        await building.run("true", mounts=mounts, session=SaidSession({"key": b"x" * (501 << 10)}))


# -- ssh ----------------------------------------------------------------------------------------------
async def test_agent_of_the_client_is_the_socket_of_its_session(building: BuildLab, tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        session = SaidSession(agents={"default": path})
        mounts = [Mount(kind="ssh", uid=1000, mode=0o600)]
        script = "echo $SSH_AUTH_SOCK; stat -c '%a %u %F %i' $SSH_AUTH_SOCK"
        with building.files() as files:
            _, said = await building.run(script, files=files, mounts=mounts, session=session)
            inode = os.stat(path).st_ino
            assert said.out == f"/run/buildkit/ssh_agent.0\n600 1000 socket {inode}\n".encode()
            assert files.changed() == []


async def test_missing_agent_is_left_out_unless_it_is_required(building: BuildLab) -> None:
    code, _ = await building.run('test -z "$SSH_AUTH_SOCK"', mounts=[Mount(kind="ssh")])
    assert code == 0
    with pytest.raises(NotFound, match="--ssh"):
        await building.run("true", mounts=[Mount(kind="ssh", required=True)])
