"""Cache mounts of build steps, on real runc: shared, locked, private, and never out of their place."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from image.build.base import Bound
from image.dockerfile.instruction import Mount
from model.errors import FlotaError, InvalidInput
from tests.kernel.build.test_run_mounts import census, other
from tests.support.buildlab import BuildLab, Files, SaidSession, run_step

__all__ = ["other"]

pytestmark = pytest.mark.kernel


# -- caches -------------------------------------------------------------------------------------------
def cache(target: str = "/cache", **words: object) -> Mount:
    return Mount(kind="cache", target=target, **words)  # type: ignore[arg-type]


async def test_cache_keeps_what_steps_put_into_it(building: BuildLab) -> None:
    for expected in (b"", b"1\n", b"1\n1\n"):
        with building.files() as files:
            script = "cat /cache/log 2>/dev/null; echo 1 >> /cache/log"
            _, said = await building.run(script, files=files, mounts=[cache()])
            assert said.out == expected
            assert files.changed() == []
    assert [entry.source for entry in await building.executor.caches.entries()] == ["/cache"]


async def test_caches_of_other_ids_and_owners_are_others(building: BuildLab) -> None:
    for mount in (cache(), cache(ident="x"), cache(ident="../.."), cache(uid=1000, gid=1001, mode=0o700)):
        script = "ls -A /cache; stat -c '%a %u %g' /cache; : > /cache/x"
        _, said = await building.run(script, mounts=[mount])
        assert said.out == (b"700 1000 1001\n" if mount.uid else b"755 0 0\n")
    assert len(await building.executor.caches.entries()) == 4
    assert not (building.folder / "x").exists()


async def test_cache_begins_with_the_files_that_it_is_from(building: BuildLab, other: Path) -> None:
    mounts = [cache(source="/src", origin="stage")]
    bound = [Bound(path=str(other), id="one")]
    script = "cat /cache/a.txt; echo changed > /cache/a.txt"
    for expected in (b"a\n", b"changed\n"):
        _, said = await building.run(script, mounts=mounts, bound=bound)
        assert said.out == expected
    _, said = await building.run(script, mounts=mounts, bound=[Bound(path=str(other), id="two")])
    assert said.out == b"a\n"
    assert (other / "src/a.txt").read_text() == "a\n"


@pytest.mark.parametrize("source", ["../..", "/climbing", "/absolute", "/missing"])
async def test_source_of_a_cache_never_leads_out_b14(building: BuildLab, other: Path, source: str) -> None:
    """CVE-2024-23651 and the like."""
    if source == "../..":  # the root of its files, as in a container
        _, said = await building.run(
            "ls /cache", mounts=[cache(source=source)], bound=[Bound(path=str(other))]
        )
        assert b"climbing" in said.out and b"secret" not in said.out
        return
    with pytest.raises(FlotaError):
        await building.run("ls /cache", mounts=[cache(source=source)], bound=[Bound(path=str(other))])
    with pytest.raises(InvalidInput, match="begins empty"):
        await building.run("ls /cache", mounts=[cache(source=source if source[0] == "/" else "/x")])


async def test_steps_at_the_same_time_share_or_wait_or_have_their_own(building: BuildLab) -> None:
    seen = {}
    for sharing in ("shared", "private", "locked"):
        mount = cache(ident=sharing, sharing=sharing)
        sessions = [SaidSession() for _ in range(2)]
        async with building.runner() as runner:

            async def work(files: Files, session: SaidSession, mount: Mount = mount) -> None:
                script = "echo $$ >> /cache/in; sleep 0.4; wc -l < /cache/in; rm -f /cache/in"
                await runner.run(files.root, run_step(script, mounts=[mount]), [None], session, 1)

            with building.files() as one, building.files() as two:
                async with asyncio.TaskGroup() as group:
                    for files, session in zip((one, two), sessions, strict=True):
                        group.create_task(work(files, session))
        seen[sharing] = sorted(session.out for session in sessions)
        if sharing == "locked":
            assert any("waiting for cache locked" in what for s in sessions for what in s.moved)
    assert b"2\n" in seen["shared"]
    assert seen["private"] == seen["locked"] == [b"1\n", b"1\n"]


async def test_two_steps_that_want_each_others_locked_caches_both_run(building: BuildLab) -> None:
    mounts = [cache("/a", ident="a", sharing="locked"), cache("/b", ident="b", sharing="locked")]
    async with building.runner() as runner, asyncio.timeout(20):
        with building.files() as one, building.files() as two:
            async with asyncio.TaskGroup() as group:
                for files, order in ((one, mounts), (two, mounts[::-1])):
                    step = run_step("sleep 0.2", mounts=order)
                    group.create_task(runner.run(files.root, step, [None, None], SaidSession(), 1))


async def test_cache_twice_in_one_step_is_the_same(building: BuildLab) -> None:
    mounts = [
        cache("/a", ident="x", sharing="locked"),
        cache("/b", ident="x", sharing="locked", read_only=True),
    ]
    async with asyncio.timeout(20):
        _, said = await building.run("echo 1 > /a/f; cat /b/f; touch /b/g || echo ro", mounts=mounts)
    assert said.out == b"1\nro\n"


async def test_cache_in_use_is_not_pruned(building: BuildLab) -> None:
    await building.run("head -c 100000 /dev/zero > /cache/f", mounts=[cache()])
    caches = building.executor.caches
    (entry,) = await caches.entries()
    assert entry.size >= 100000 and not entry.in_use
    session = SaidSession()
    started = asyncio.Event()
    session.heard = lambda data: started.set()
    with building.files() as files:
        async with building.runner() as runner, asyncio.TaskGroup() as group:
            step = run_step("echo up; until [ -e /go ]; do usleep 10000; done", mounts=[cache()])
            group.create_task(runner.run(files.root, step, [None], session, 1))
            await started.wait()
            assert (await caches.remove([entry.id])).entries == ()
            assert (await caches.entries())[0].in_use
            Path(files.root, "go").touch()
    freed = await caches.remove([entry.id, "unknown", ".."])
    assert freed.entries == (entry.id,) and freed.freed >= 100000
    assert await caches.entries() == ()


async def test_place_within_a_shared_cache_that_another_step_swaps_never_leads_out(
    building: BuildLab, tmp_path: Path
) -> None:
    """CVE-2021-30465, CVE-2024-23651: the attacker's step and the victim's share a cache."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    before = census(tmp_path / "outside")
    swap = (
        f"mkdir -p /c/a; ln -sfn {tmp_path}/outside /c/b; until [ -e /done ]; do"
        " mv -T /c/a /c/x; mv -T /c/b /c/a; mv -T /c/a /c/b; mv -T /c/x /c/a; done 2>/dev/null; true"
    )
    mounts = [cache("/c", ident="x"), Mount(kind="tmpfs", target="/c/a/in")]
    async with building.runner() as runner, asyncio.timeout(60), asyncio.TaskGroup() as group:
        with building.files() as attacker:
            step = run_step(swap, mounts=mounts[:1])
            attack = group.create_task(runner.run(attacker.root, step, [None], SaidSession(), 1))
            for _ in range(20):
                with building.files() as victim, contextlib.suppress(FlotaError):
                    step = run_step("touch /c/a/in/x /c/a/y", mounts=mounts)
                    await runner.run(victim.root, step, [None, None], SaidSession(), 2)
            Path(attacker.root, "done").touch()
            await attack
    assert census(tmp_path / "outside") == before
