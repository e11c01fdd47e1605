"""What every Runtime promises: run against the one in memory, and against runc and conmon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.ocispec import exec_process
from agent.runtime.base import Bundle, Created, ExecHandle, Exit, State
from agent.runtime.fake import FakeRuntime
from model.errors import CommandFailed, FlotaError, WrongState
from model.spec import ContainerSpec
from model.streams import STDERR, STDOUT, ExecSpec
from tests.support.containers import Lab, network_namespace, text_of
from tests.support.runtimesubject import CAT, LEAVING, MISSING, PROGRAMS, QUICK, SLEEP, STUBBORN, Subject
from tests.support.waiting import until


@pytest.fixture(params=["fake", pytest.param("conmon", marks=pytest.mark.kernel)])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "fake":

        def config(spec: ContainerSpec, ident: str) -> dict[str, Any]:
            return {"process": {"args": list(spec.args or ())}}

        def process(spec: ExecSpec, container: dict[str, Any]) -> dict[str, Any]:
            return {"args": list(spec.args)}

        yield Subject(FakeRuntime(PROGRAMS), config, process, tmp_path)
        return
    with network_namespace() as netns:
        lab = Lab(tmp_path, netns)
        subject = Subject(
            lab.runtime, lab.config, lambda spec, base: exec_process(spec, base, lab.limits), tmp_path
        )
        yield subject
        lab.made += await lab.runtime.list()
        await lab.close()


async def everything(handle: ExecHandle) -> dict[int, bytes]:
    said: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(10):
        while (item := await handle.read()) is not None:
            said[item[0]] += item[1]
    return said


async def expect(handle: ExecHandle, wanted: bytes) -> None:
    said = b""
    async with asyncio.timeout(10):
        while wanted not in said:
            item = await handle.read()
            assert item is not None, f"ended after {said!r}"
            said += item[1]


async def test_runtime_life_states_follow_the_calls(subject: Subject) -> None:
    runtime = subject.runtime
    bundle, created = await subject.create(SLEEP)
    assert created.pid > 0
    assert await runtime.state(bundle.id) is State.CREATED
    await runtime.start(bundle.id)
    assert await runtime.state(bundle.id) is State.RUNNING
    assert list(await runtime.list()) == [bundle.id]
    await runtime.pause(bundle.id)
    await runtime.pause(bundle.id)
    assert await runtime.state(bundle.id) is State.PAUSED
    await runtime.resume(bundle.id)
    await runtime.resume(bundle.id)
    assert await runtime.state(bundle.id) is State.RUNNING
    await runtime.signal(bundle.id, signal.SIGKILL)
    assert (await subject.exit(bundle, created)).code == 137
    assert await runtime.state(bundle.id) is State.STOPPED
    await runtime.delete(bundle.id)
    assert await runtime.state(bundle.id) is None
    assert list(await runtime.list()) == []


async def test_runtime_absent_container_is_a_value_not_an_error(subject: Subject) -> None:
    absent = "0" * 64
    assert await subject.runtime.state(absent) is None
    await subject.runtime.delete(absent)
    await subject.runtime.signal(absent, signal.SIGTERM)
    assert list(await subject.runtime.pids(absent)) == []


async def test_runtime_start_of_absent_container_says_so(subject: Subject) -> None:
    with pytest.raises(FlotaError):
        await subject.runtime.start("0" * 64)


async def test_runtime_exit_code_and_log_are_kept(subject: Subject) -> None:
    bundle, created = await subject.run(QUICK)
    ended = await subject.exit(bundle, created)
    assert (ended.code, ended.oom_killed) == (3, False)
    assert ended.at > 0
    assert sorted(text_of(bundle.log_path).split()) == ["err", "out"]


async def test_runtime_watch_after_the_exit_still_rings(subject: Subject) -> None:
    bundle, created = await subject.run(QUICK)
    assert (await subject.exit(bundle, created)).code == 3
    assert (await subject.exit(bundle, created)).code == 3
    await subject.runtime.delete(bundle.id)
    assert (await subject.exit(bundle, created)).code == 3


async def test_runtime_watch_of_another_process_start_time_is_unknown(subject: Subject) -> None:
    bundle, created = await subject.run(SLEEP)
    stranger = Created(pid=created.pid, conmon_pid=created.conmon_pid, conmon_started=1)
    assert (await subject.exit(bundle, stranger)).code is None


async def test_runtime_stopped_watch_does_not_ring(subject: Subject) -> None:
    bundle, created = await subject.run(SLEEP)
    heard: list[Exit] = []
    stop = subject.runtime.watch_exit(bundle.directory, created, heard.append)
    stop()
    stop()
    await subject.runtime.delete(bundle.id)
    await subject.exit(bundle, created)
    assert heard == []


async def test_runtime_missing_program_is_named_and_leaves_nothing(subject: Subject) -> None:
    with pytest.raises(CommandFailed, match=r"nothere.*not found"):
        await subject.create(MISSING)
    assert list(await subject.runtime.list()) == []


async def test_runtime_same_id_twice_is_refused(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    twin = Bundle(
        id=bundle.id, directory=bundle.directory + "-2", config=bundle.config, log_path=bundle.log_path + "2"
    )
    with pytest.raises(CommandFailed, match="exist"):
        await subject.runtime.create(twin)
    assert await subject.runtime.state(bundle.id) is State.RUNNING


async def test_runtime_delete_of_running_container_kills_it(subject: Subject) -> None:
    bundle, created = await subject.run(STUBBORN)
    await subject.runtime.signal(bundle.id, signal.SIGTERM)
    with pytest.raises(FlotaError):
        await subject.runtime.delete(bundle.id, force=False)
    await subject.runtime.delete(bundle.id)
    assert (await subject.exit(bundle, created)).code == 137


async def test_runtime_delete_of_paused_container_does_not_wait_for_it(subject: Subject) -> None:
    bundle, created = await subject.run(SLEEP)
    await subject.runtime.pause(bundle.id)
    async with asyncio.timeout(5):
        await subject.runtime.delete(bundle.id)
    assert (await subject.exit(bundle, created)).code == 137


async def test_runtime_signal_of_dead_container_is_fine(subject: Subject) -> None:
    bundle, created = await subject.run(QUICK)
    await subject.exit(bundle, created)
    await subject.runtime.signal(bundle.id, signal.SIGKILL)


async def test_runtime_attach_carries_both_ways_and_half_closes(subject: Subject) -> None:
    bundle, created = await subject.create(CAT, stdin=True, stdin_once=True)
    handle = await subject.runtime.attach(bundle.directory, stdin=True)
    await subject.runtime.start(bundle.id)
    await handle.write(b"hello\n")
    await expect(handle, b"hello\n")
    await handle.close_stdin()
    assert (await everything(handle))[STDERR] == b""
    assert (await subject.exit(bundle, created)).code == 0
    with pytest.raises(WrongState):
        await handle.wait()
    await handle.close()


async def test_runtime_attach_large_input_arrives_whole(subject: Subject) -> None:
    bundle, created = await subject.create(CAT, stdin=True, stdin_once=True)
    handle = await subject.runtime.attach(bundle.directory, stdin=True)
    await subject.runtime.start(bundle.id)
    data = os.urandom(300_000)

    async def feed() -> None:
        for at in range(0, len(data), 50_000):
            await handle.write(data[at : at + 50_000])
        await handle.close_stdin()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        got = group.create_task(everything(handle))
    assert got.result()[STDOUT] == data
    assert (await subject.exit(bundle, created)).code == 0
    await handle.close()


async def test_runtime_two_attached_see_the_same(subject: Subject) -> None:
    bundle, _ = await subject.create(CAT, stdin=True)
    first = await subject.runtime.attach(bundle.directory, stdin=True)
    second = await subject.runtime.attach(bundle.directory, stdin=False)
    await subject.runtime.start(bundle.id)
    await first.write(b"both\n")
    await expect(first, b"both\n")
    await expect(second, b"both\n")
    await first.close()
    await second.close()
    assert await subject.runtime.state(bundle.id) is State.RUNNING


async def test_runtime_onlooker_leaves_stdin_stays_with_who_types(subject: Subject) -> None:
    bundle, created = await subject.create(CAT, stdin=True, stdin_once=True)
    typist = await subject.runtime.attach(bundle.directory, stdin=True)
    onlooker = await subject.runtime.attach(bundle.directory, stdin=False)
    await subject.runtime.start(bundle.id)
    await typist.write(b"one\n")
    await expect(onlooker, b"one\n")
    await onlooker.close()
    await typist.write(b"two\n")
    await expect(typist, b"two\n")
    await typist.close_stdin()
    assert (await subject.exit(bundle, created)).code == 0
    await typist.close()


async def test_runtime_attach_to_ended_container_is_refused(subject: Subject) -> None:
    bundle, created = await subject.run(QUICK)
    await subject.exit(bundle, created)
    with pytest.raises(WrongState):
        await subject.runtime.attach(bundle.directory, stdin=False)


async def test_runtime_exec_gives_streams_and_exit_code(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    for _ in range(3):
        handle = await subject.exec(bundle, *QUICK)
        assert await everything(handle) == {STDOUT: b"out\n", STDERR: b"err\n"}
        assert (await handle.wait()).code == 3
        await handle.close()
    assert await subject.runtime.state(bundle.id) is State.RUNNING


async def test_runtime_exec_reads_stdin_to_its_end(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    handle = await subject.exec(bundle, *CAT, stdin=True)
    await handle.write(b"one\n")
    await handle.close_stdin()
    assert (await everything(handle))[STDOUT] == b"one\n"
    assert (await handle.wait()).code == 0
    await handle.close()


async def test_runtime_exec_missing_program_is_named(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    with pytest.raises(CommandFailed, match=r"nothere.*not found"):
        await subject.exec(bundle, *MISSING)


async def test_runtime_exec_outlives_its_client_and_dies_by_signal(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    handle = await subject.exec(bundle, *STUBBORN)
    await expect(handle, b"ready")
    assert len(await subject.runtime.pids(bundle.id)) >= 2
    await handle.signal(signal.SIGTERM)
    await handle.close()
    assert len(await subject.runtime.pids(bundle.id)) >= 2
    await handle.signal(signal.SIGKILL)
    async with asyncio.timeout(10):
        assert (await handle.wait()).code == 137


async def alone(subject: Subject, bundle: Bundle) -> None:
    """Waits until nothing but the first process is left in the container."""

    async def one() -> bool:
        return len(await subject.runtime.pids(bundle.id)) == 1

    await until(one, deadline=5, what="the exec'd processes to be gone")


async def test_runtime_exec_killed_takes_its_children_along(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    handle = await subject.exec(bundle, "sh", "-c", "sleep 100; echo never")
    await handle.kill()
    async with asyncio.timeout(10):
        assert (await handle.wait()).code == 137
    await handle.close()
    await alone(subject, bundle)


async def test_runtime_exec_is_over_with_its_first_process(subject: Subject) -> None:
    """Not with a child that it leaves behind, which holds its output open."""
    bundle, _ = await subject.run(SLEEP)
    handle = await subject.exec(bundle, *LEAVING)
    async with asyncio.timeout(30):
        assert (await everything(handle))[STDOUT] == b"said\n"
        assert (await handle.wait()).code == 4
    await handle.close()


async def test_runtime_exec_past_its_deadline_is_killed_without_us(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    handle = await subject.exec(bundle, *STUBBORN, deadline=1)
    await handle.close()
    await alone(subject, bundle)


async def test_runtime_exec_detached_runs_on(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    handle = await subject.exec(bundle, *STUBBORN, detach=True)
    await handle.close()

    async def two() -> bool:
        return len(await subject.runtime.pids(bundle.id)) >= 2

    await until(two, deadline=5, what="the detached process")


async def test_runtime_exec_that_nobody_waits_for_leaves_no_files(subject: Subject) -> None:
    bundle, _ = await subject.run(SLEEP)
    folder = Path(bundle.directory, "exec")
    await (await subject.exec(bundle, *QUICK, detach=True)).close()
    left = await subject.exec(bundle, *STUBBORN)
    await expect(left, b"ready")
    await left.close()
    await left.signal(signal.SIGKILL)
    await alone(subject, bundle)
    await until(lambda: not folder.exists() or not os.listdir(folder), deadline=5)


async def test_runtime_exec_in_stopped_container_is_refused(subject: Subject) -> None:
    bundle, created = await subject.run(QUICK)
    await subject.exit(bundle, created)
    with pytest.raises(FlotaError):
        await subject.exec(bundle, *QUICK)


async def test_runtime_reopened_log_goes_on_in_a_new_file(subject: Subject) -> None:
    bundle, _ = await subject.run(("sh", "-c", "while :; do echo tick; sleep 0.01; done"))
    if isinstance(subject.runtime, FakeRuntime):
        subject.runtime.emit(bundle.id, b"tick\n")
    await until(lambda: Path(bundle.log_path).exists() and "tick" in text_of(bundle.log_path), deadline=5)
    os.rename(bundle.log_path, bundle.log_path + ".1")
    await subject.runtime.reopen_log(bundle.directory)
    await until(lambda: Path(bundle.log_path).exists(), deadline=5)
