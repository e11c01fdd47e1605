"""Execs and attaches through the Docker API, where clients are particular about the order of bytes."""

from __future__ import annotations

import asyncio
import json

import pytest

from model.streams import pack
from tests.support.dockerclient import DEADLINE, Docker, frames


async def test_attach_to_what_was_said_so_far_ends_its_connection(docker: Docker) -> None:
    ident = await docker.run("sh", "-c", "echo said;exit 0")
    await docker.ok("POST", f"/containers/{ident}/wait")
    async with docker.hijack(f"/containers/{ident}/attach?logs=1&stdout=1&stderr=1") as (head, reader, _):
        assert head.startswith(b"HTTP/1.1 101")
        async with asyncio.timeout(DEADLINE):
            assert frames(await reader.read()) == [(1, b"said\n")]


@pytest.mark.parametrize(("tty", "said"), [(True, b"hi\n"), (False, pack(1, b"hi\n"))])
async def test_output_of_an_exec_is_in_frames_unless_its_start_says_terminal(
    docker: Docker, tty: bool, said: bytes
) -> None:
    await docker.run("sleep", "9", name="box")
    spec = {"Cmd": ["sh", "-c", "echo hi"], "AttachStdout": True, "Tty": True}
    exec_ = (await docker.ok("POST", "/containers/box/exec", spec))["Id"]
    async with docker.hijack(f"/exec/{exec_}/start", json.dumps({"Tty": tty}).encode()) as (_, reader, _w):
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == said


async def test_exec_that_can_not_begin_is_told_so_in_its_stream(docker: Docker) -> None:
    await docker.run("sleep", "9", name="box")
    spec = {"Cmd": ["true"], "AttachStdout": True}
    exec_ = (await docker.ok("POST", "/containers/box/exec", spec))["Id"]
    await docker.ok("POST", "/containers/box/stop")
    async with docker.hijack(f"/exec/{exec_}/start", b"{}") as (head, reader, _):
        assert head.startswith(b"HTTP/1.1 101")
        async with asyncio.timeout(DEADLINE):
            ((stream, said),) = frames(await reader.read())
    assert stream == 1 and said.endswith(b"\r\n")
    seen = await docker.ok("GET", f"/exec/{exec_}/json")
    assert (seen["Running"], seen["ExitCode"]) == (False, 126)
