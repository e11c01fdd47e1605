"""RUN in real containers: what the process gets, what it says, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from image.dockerfile.instruction import Heredoc, Mount
from image.drivers.mounts import unmount
from model.errors import Exhausted, FlotaError, Forbidden, InvalidInput, NotFound
from model.spec import Resources
from tests.support.buildlab import BuildLab, SaidSession, build_lab, run_step

pytestmark = pytest.mark.kernel


async def test_step_runs_and_its_changes_alone_are_left(building: BuildLab) -> None:
    with building.files() as files:
        code, said = await building.run("echo made > /made; echo out; echo err >&2", files=files)
        assert (code, said.out, said.err) == (0, b"out\n", b"err\n")
        assert files.changed() == ["made"]


async def test_step_in_files_without_any_folder_leaves_none_of_ours(
    building: BuildLab, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    (bare / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", bare / "bin/busybox")
    with building.files(bare) as files:
        args = ("/bin/busybox", "sh", "-c", "busybox ls -d /proc/1 /dev/null /sys/class && : > /x")
        code, said = await building.run("", files=files, args=args)
        assert (code, said.err) == (0, b"")
        assert files.changed() == ["x"]


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)])
async def test_step_that_fails_gives_its_code(building: BuildLab, script: str, code: int) -> None:
    # a child's code, as the first process of a pid namespace takes no signal from itself
    given, _ = await building.run(f"sh -c '{script}' & wait $!; exit $?")
    assert given == code


async def test_process_has_the_steps_words_user_and_folder(building: BuildLab) -> None:
    script = 'echo "$A|$HOME|$HOSTNAME|$(id -u):$(id -g)|$(pwd)|$(hostname)"'
    env = ("A=x y", "PATH=/bin")
    _, said = await building.run(script, env=env, user="app", workdir="/home/app")
    assert said.out == b"x y|/home/app|build|1000:1001|/home/app|build\n"


async def test_process_has_none_of_the_agents_variables(
    building: BuildLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2021-3602."""
    monkeypatch.setenv("AGENT_TOKEN", "canary")
    _, said = await building.run("", args=("/bin/env",), env=("OWN=1",), proxies=("http_proxy=p",))
    names = {line.partition("=")[0] for line in said.out.decode().splitlines()}
    assert names == {"PATH", "HOSTNAME", "HOME", "OWN", "http_proxy"}


async def test_process_is_confined_as_a_containers_is(building: BuildLab) -> None:
    script = (
        "ls /proc/self/fd | wc -l; cat; grep -E '^(CapEff|Seccomp):' /proc/self/status;"
        " head -c 1 /proc/kcore | wc -c; grep -c flota-test /proc/1/cgroup > /dev/null && echo limited"
    )
    _, said = await building.run(script)
    # 0 to 2, and ls's own look at the folder
    assert said.out == b"4\nCapEff:\t00000000800405fb\nSeccomp:\t2\n0\nlimited\n"


async def test_script_of_a_heredoc_runs_and_leaves_nothing(building: BuildLab) -> None:
    script = Heredoc(name="EOF", content="#!/bin/busybox sh\necho from $0\n")
    with building.files() as files:
        code, said = await building.run("", files=files, args=("/dev/pipes/EOF",), script=script)
        assert (code, said.out) == (0, b"from /dev/pipes/EOF\n")
        assert files.changed() == []


async def test_hosts_and_names_are_of_the_step(building: BuildLab) -> None:
    with building.files() as files:
        script = "cat /etc/hosts; cat /etc/resolv.conf; echo own >> /etc/hosts"
        _, said = await building.run(script, files=files, hosts=("db:10.1.2.3",))
        assert b"10.1.2.3\tdb" in said.out and b"nameserver" in said.out
        assert files.changed() == []


async def test_dangling_link_of_resolv_conf_is_followed_within_the_root_and_kept(building: BuildLab) -> None:
    outside = building.folder / "outside"
    outside.mkdir()
    with building.files() as files:
        os.symlink("../run/systemd/stub.conf", f"{files.root}/etc/resolv.conf")
        before = files.changed()
        code, said = await building.run("cat /etc/resolv.conf", files=files)
        assert code == 0 and b"nameserver" in said.out
        assert files.changed() == before
        assert os.readlink(f"{files.root}/etc/resolv.conf") == "../run/systemd/stub.conf"


# -- what can't be started ------------------------------------------------------------------------------
async def test_image_without_a_shell_is_told_as_that(building: BuildLab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    session = SaidSession()
    with building.files(tmp_path / "empty") as files:
        with pytest.raises(NotFound, match=r"has no /bin/sh.*exec form"):
            await building.run("true", files=files, session=session)
        assert files.changed() == []
        assert (session.out, session.err) == (b"", b"")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nothere",), "there is no such program"),
        (("/etc/passwd",), "not executable"),
        (("/etc",), "not executable"),
        (("/script",), "interpreter"),
        (("/garbage",), "another architecture"),
    ],
)
async def test_program_that_cant_start_is_told_in_words(
    building: BuildLab, args: tuple[str, ...], words: str
) -> None:
    for name, text in (("script", b"#!/none\n"), ("garbage", b"\x7fELF\x02\x01\x01")):
        path = building.base / name
        path.write_bytes(text)
        path.chmod(0o755)
    with pytest.raises(FlotaError, match=words):
        await building.run("", args=args)


async def test_words_like_those_of_runc_by_a_program_are_the_programs(building: BuildLab) -> None:
    words = ("exec /bin/sh: no such file", "runc run failed: unable to start")
    for text in words:
        code, said = await building.run(f"echo before >&2; echo '{text}' >&2; exit 1")
        assert (code, said.err) == (1, f"before\n{text}\n".encode())


@pytest.mark.parametrize("path", ["/proc/self/fd/7", "/proc/self/cwd", "/proc/1/root"])
async def test_workdir_of_a_process_is_refused_also_behind_a_link_b10(building: BuildLab, path: str) -> None:
    with pytest.raises(InvalidInput, match="working directory"):
        await building.run("true", workdir=path)
    with building.files() as files:
        os.symlink(path, f"{files.root}/way")
        with pytest.raises(InvalidInput, match="working directory"):
            await building.run("true", files=files, workdir="/way")


async def test_workdir_behind_a_link_to_the_root_is_the_images_own(building: BuildLab) -> None:
    with building.files() as files:
        os.symlink("/", f"{files.root}/way")
        _, said = await building.run(
            "pwd -P; ls passwd 2>&1 | head -c0; ls -d home", files=files, workdir="/way"
        )
        assert said.out == b"/\nhome\n"


async def test_workdir_that_is_no_folder_is_refused(building: BuildLab) -> None:
    with building.files() as files:
        os.mkfifo(f"{files.root}/pipe")
        with pytest.raises(InvalidInput, match="/pipe"):
            await building.run("true", files=files, workdir="/pipe")


@pytest.mark.parametrize("user", ["2147483648", "4294967296", "root\n", "nobodyhere", "0:99999999999"])
async def test_user_that_cant_be_is_refused_b13(building: BuildLab, user: str) -> None:
    with pytest.raises(InvalidInput):
        await building.run("true", user=user)


async def test_passwd_without_end_or_that_hangs_costs_neither_memory_nor_time_b13(building: BuildLab) -> None:
    for kind in ("huge", "fifo"):
        with building.files() as files:
            passwd = f"{files.root}/etc/passwd"
            os.unlink(passwd)
            if kind == "fifo":
                os.mkfifo(passwd)
            else:
                with open(passwd, "wb") as file:
                    file.truncate(1 << 30)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            async with asyncio.timeout(20):
                with pytest.raises(InvalidInput, match="unable to find user app"):
                    await building.run("true", files=files, user="app")
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 << 10  # KiB


@contextlib.contextmanager
def small_memory(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs there, from which nothing can be executed, as /run is on Debian."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = 2 | 4 | 8  # MS_NOSUID, MS_NODEV, MS_NOEXEC
    assert libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode()) == 0
    try:
        yield
    finally:
        unmount(str(folder))


async def test_run_folder_that_lets_nothing_be_executed_is_no_matter(tmp_path: Path) -> None:
    with small_memory(tmp_path / "run", ""):
        async with build_lab(tmp_path) as lab:
            script = Heredoc(name="EOF", content="#!/bin/sh\necho ran\n")
            code, said = await lab.run("", args=("/dev/pipes/EOF",), script=script)
            assert (code, said.out) == (0, b"ran\n")
            assert lab.left() == []


async def test_run_folder_that_is_full_is_told_as_that(tmp_path: Path) -> None:
    with small_memory(tmp_path / "run", "size=2m"):
        async with build_lab(tmp_path) as lab:
            ballast = open(tmp_path / "run/ballast", "wb", buffering=0)  # noqa: SIM115
            with ballast, contextlib.suppress(OSError):
                while ballast.write(b"x" * 4096):
                    continue
            with lab.files() as files:
                with pytest.raises(Exhausted, match=r"RUN can't be prepared.*No space left"):
                    await lab.run("true", files=files)
                assert files.changed() == []
            assert lab.left() == []
            (tmp_path / "run/ballast").unlink()
            assert (await lab.run("true"))[0] == 0


# -- what it says ---------------------------------------------------------------------------------------
async def test_endless_output_costs_no_memory_and_its_last_words_are_told(building: BuildLab) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    script = "head -c 600000000 /dev/zero; echo; echo the reason >&2; exit 3"
    code, said = await building.run(script)
    assert code == 3
    assert len(said.out) + len(said.err) < (2 << 20) + (70 << 10)
    assert said.err.endswith(b"the reason\n") and b"output clipped" in said.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10  # KiB


async def test_output_comes_while_the_step_runs(building: BuildLab) -> None:
    session = SaidSession()
    heard = asyncio.Event()
    session.heard = lambda data: heard.set()
    with building.files() as files:
        # it ends by what is made once it was heard
        script = "echo first; while [ ! -e /go ]; do usleep 10000; done"
        async with building.runner() as runner, asyncio.timeout(20):
            async with asyncio.TaskGroup() as group:
                step = group.create_task(runner.run(files.root, run_step(script), (), session, 1))
                await heard.wait()
                assert session.out == b"first\n" and not step.done()
                Path(files.root, "go").touch()
            assert step.result() == 0


# -- limits and entitlements ----------------------------------------------------------------------------
async def test_step_at_its_memory_limit_is_told_as_that(building: BuildLab) -> None:
    script = "tail /dev/zero"
    code, said = await building.run(script, resources=Resources(memory=16 << 20))
    assert code == 137
    assert b"out of memory" in said.err and b"16MiB" in said.err


async def test_step_within_its_memory_limit_says_nothing_of_it(building: BuildLab) -> None:
    code, said = await building.run("true", resources=Resources(memory=64 << 20))
    assert (code, said.err) == (0, b"")


async def test_limits_of_the_build_are_felt(building: BuildLab) -> None:
    script = "ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'"
    _, said = await building.run(script, ulimits={"nofile": (100, 200)}, shm_size=8 << 20)
    assert said.out == b"100\n8192\n"


@pytest.mark.parametrize(
    ("words", "entitlement"),
    [
        ({"network": "host"}, "network.host"),
        ({"insecure": True}, "security.insecure"),
        ({"devices": ("/dev/fuse",)}, "device"),
    ],
)
async def test_what_needs_an_entitlement_is_refused_without_it_b16(
    building: BuildLab, words: dict[str, Any], entitlement: str
) -> None:
    with pytest.raises(Forbidden, match=f"--allow {entitlement}"):
        await building.run("true", **words)


async def test_host_network_with_its_entitlement_is_the_hosts(building: BuildLab) -> None:
    script = "readlink /proc/self/ns/net"
    _, said = await building.run(script, network="host", allow=("network.host",))
    assert said.out.decode().strip() == os.readlink("/proc/thread-self/ns/net")


async def test_insecure_step_with_its_entitlement_may_mount(building: BuildLab) -> None:
    script = "mount -t tmpfs tmpfs /tmp && umount /tmp && grep Seccomp: /proc/self/status"
    code, said = await building.run(script, insecure=True, allow=("security.insecure",))
    assert (code, said.out) == (0, b"Seccomp:\t0\n")


async def test_device_with_its_entitlement_is_there(building: BuildLab) -> None:
    script = "ls -l /dev/mine | cut -c1; head -c1 /dev/mine | wc -c"
    code, said = await building.run(script, devices=("/dev/zero:/dev/mine:r",), allow=("device",))
    assert (code, said.out) == (0, b"c\n1\n")


async def test_strict_profile_of_the_fleet_leaves_the_root_writable(building: BuildLab) -> None:
    from msgspec.structs import replace

    building.context.view = replace(building.context.view, security_profile="strict")
    with building.files() as files:
        code, _ = await building.run(": > /made", files=files)
        assert code == 0 and files.changed() == ["made"]


# -- how it ends ----------------------------------------------------------------------------------------
async def test_cancelled_step_is_dead_with_all_that_it_started(building: BuildLab) -> None:
    session = SaidSession()
    started = asyncio.Event()
    session.heard = lambda data: started.set()
    with building.files() as files:
        async with building.runner() as runner:

            async def work() -> None:
                script = (
                    "trap '' TERM INT; (while :; do sleep 0.1; done) & echo up; while :; do sleep 1; done"
                )
                await runner.run(files.root, run_step(script), (), session, 1)

            async with asyncio.TaskGroup() as group:
                task = group.create_task(work())
                await started.wait()
                task.cancel()
        assert building.left() == []
        assert files.changed() == []


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_step_cancelled_at_any_moment_leaves_nothing(building: BuildLab, turns: int) -> None:
    with building.files() as files:
        async with building.runner() as runner, asyncio.TaskGroup() as group:
            task = group.create_task(runner.run(files.root, run_step("sleep 5"), (), SaidSession(), 1))
            for _ in range(turns):
                await asyncio.sleep(0.002)
            task.cancel()
        assert building.left() == []
        assert files.changed() == []


async def test_background_processes_end_with_the_step(building: BuildLab) -> None:
    async with asyncio.timeout(10):
        code, _ = await building.run("sleep 100 & sleep 100 & exit 0")
    assert code == 0


async def test_steps_leave_no_descriptor_open(building: BuildLab) -> None:
    session = SaidSession({"key": b"x"})
    mounts = [
        Mount(kind="secret", ident="key"),
        Mount(kind="cache", target="/cache"),
        Mount(kind="tmpfs", target="/deep/er/still"),
    ]
    counts = set()
    for number in range(6):
        await building.run("true", mounts=mounts, session=session)
        with pytest.raises(InvalidInput):
            await building.run(
                "true", mounts=[*mounts, Mount(kind="tmpfs", target="/etc/passwd")], session=session
            )
        if number:  # the first starts what stays
            counts.add(len(os.listdir("/proc/self/fd")))
    assert len(counts) == 1
