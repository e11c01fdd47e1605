"""The stock docker command builds with all of a host behind it: parser, engine, real steps, real layers."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.builds import Builds
from tests.support.dockersocket import DockerSocket, Ended, docker_socket
from tests.support.images import member, tar
from tests.support.wholebuilds import BASE, WholeBuilds, whole_builds

pytestmark = pytest.mark.kernel
DOCKERFILE = f"""FROM {BASE}
ARG WHO=nobody
COPY hello sub /data/
RUN cat /data/hello && echo $WHO >/data/who && echo trouble >&2
ENV A=b
LABEL l="v w"
CMD ["sh"]
"""


class Ground:
    def __init__(self, docker: DockerSocket, whole: WholeBuilds) -> None:
        self.docker = docker
        self.whole = whole

    async def build(self, *words: str, stdin: bytes = b"") -> Ended:
        return await self.docker.command(
            "build", "--network", "none", *words, stdin=stdin, DOCKER_BUILDKIT="0"
        )


async def nowhere() -> list[tuple[str, int]]:
    return []


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with contextlib.AsyncExitStack() as stack:
        whole = await stack.enter_async_context(whole_builds(tmp_path / "host"))
        docker = await stack.enter_async_context(docker_socket(tmp_path, hosts=1))
        context, store = whole.lab.context, whole.store
        programs = whole.lab.runtime.programs
        builds = Builds(
            context, programs, store.builds, store.build_cache, lambda: secrets.token_hex(32), nowhere
        )
        await builds.open()
        stack.push_async_callback(builds.close)
        [host] = docker.fleet.hosts.values()
        host.build = builds.serve  # type: ignore[method-assign]
        yield Ground(docker, whole)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "sub").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "hello").write_text("hello there\n")
    (folder / "sub" / "deep").write_text("deep\n")
    (folder / "secret").write_text("not sent")
    (folder / ".dockerignore").write_text("secret\n")
    return folder


async def test_folder_is_built_twice_the_second_time_from_the_cache(ground: Ground, context: Path) -> None:
    first = await ground.build("-t", "app:1", "--build-arg", "WHO=me", str(context))
    assert first.code == 0, first.out + first.err
    assert "Step 4/7 : RUN cat /data/hello && echo $WHO" in first.out
    assert "hello there\n" in first.out and "Successfully tagged app:1\n" in first.out
    assert "Using cache" not in first.out and "trouble" in first.err + first.out
    second = await ground.build("-t", "app:2", "--build-arg", "WHO=me", str(context))
    assert second.out.count(" ---> Using cache\n") == 2
    record = ground.whole.store.find("app:2")
    assert record.config.env[-1] == "A=b" and record.config.labels == {"l": "v w"}
    assert record.config.cmd == ("sh",) and record.id == ground.whole.store.find("app:1").id


async def test_dockerfile_of_standard_input_and_one_with_another_name_are_built(
    ground: Ground, context: Path
) -> None:
    piped = await ground.build("-q", "-", stdin=f"FROM {BASE}\nLABEL a=b\n".encode())
    assert piped.code == 0, piped.err
    assert ground.whole.store.find(piped.out.strip()).config.labels["a"] == "b"
    (context / "Dockerfile").rename(context / "sub" / "Other")
    other = await ground.build("-f", str(context / "sub" / "Other"), str(context))
    assert other.code == 0, other.err


async def test_failures_are_told_in_dockers_words(ground: Ground, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo so && exit 7\n")
    failed = await ground.build(str(context))
    assert failed.code == 7, failed.err
    assert "The command '/bin/sh -c echo so && exit 7' returned a non-zero code: 7" in failed.err
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    missing = await ground.build(str(context))
    assert missing.code == 1 and "nothing" in missing.err
    for data in (tar(member("a", b"")), b"x" * 5000):
        answer = await ground.docker.ask("POST", "/build", data=data)
        assert answer.status == 400, json.dumps(answer.json)
