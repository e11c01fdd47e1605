"""The stock docker command with all of a host's images behind it: builds by real steps, a real registry."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from agent.builds import Builds
from agent.context import Context
from agent.host import HostAgent
from agent.imageapi import ImageApi
from model.events import Event
from tests.support.dockerregistry import docker_registry
from tests.support.dockersocket import DockerSocket, Ended, docker_socket
from tests.support.images import member, tar
from tests.support.wholebuilds import BASE, WholeBuilds, whole_builds

REAL = (
    "build", "list_images", "get_image", "pull_image", "push_image", "save_images", "load_images",
    "import_image", "tag_image", "remove_image", "remote_image", "remote_tags", "check_login",
)  # fmt: skip
"""What the host does by itself; all else is a fake's."""
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


class Agent:
    """As much of one as images need."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.reporter = self
        self.happened: list[Event] = []

    def event(self, event: Event) -> None:
        self.happened.append(event)


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
        api = ImageApi(cast(HostAgent, Agent(context)), builds)
        for name in REAL:
            setattr(host, name, getattr(api, name))
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


async def test_image_goes_to_a_registry_and_comes_back(ground: Ground, context: Path, tmp_path: Path) -> None:
    docker = ground.docker
    with docker_registry(tmp_path / "registry") as port:
        name = f"127.0.0.1:{port}/team/app:1"
        assert (await ground.build("-q", "-t", "app:1", str(context))).code == 0
        assert (await docker.command("tag", "app:1", name)).code == 0
        pushed = await docker.command("push", name)
        assert pushed.code == 0, pushed.err
        assert f"The push refers to repository [127.0.0.1:{port}/team/app]" in pushed.out
        assert "Pushed" in pushed.out and "1: digest: sha256:" in pushed.out
        digest = pushed.out.split("digest: ")[1].split()[0]
        told = (await docker.ask("GET", f"/distribution/{name}/json")).json
        assert told["Descriptor"]["digest"] == digest and told["Platforms"][0]["os"] == "linux"
        untagged = await docker.command("rmi", name)
        assert untagged.out.splitlines()[0] == f"Untagged: {name}", untagged.err
        removed = await docker.command("rmi", "app:1")
        assert "Deleted: sha256:" in removed.out
        pulled = await docker.command("pull", name)
        assert pulled.code == 0, pulled.err
        assert pulled.out.splitlines()[0] == "1: Pulling from team/app", pulled.out
        assert f"Digest: {digest}" in pulled.out
        assert f"Status: Downloaded newer image for {name}" in pulled.out
        again = await docker.command("pull", f"127.0.0.1:{port}/team/app@{digest}")
        assert again.code == 0 and "Status: " in again.out, again.err
        seen = json.loads((await docker.command("inspect", name)).out)[0]
        assert seen["RepoDigests"] == [f"127.0.0.1:{port}/team/app@{digest}"]
        every = await docker.command("pull", "-a", f"127.0.0.1:{port}/team/app")
        assert every.code == 0, every.err
        missing = await docker.command("pull", f"127.0.0.1:{port}/team/none:1")
        assert missing.code == 1 and "not found: manifest unknown" in missing.err, missing.err


async def test_archives_go_out_and_come_in_whole(ground: Ground, tmp_path: Path) -> None:
    docker = ground.docker
    archive, root = tmp_path / "a.tar", tar(member("etc/motd", b"hi"))
    assert (await docker.command("tag", BASE, "other:2")).code == 0
    saved = await docker.command("save", "-o", str(archive), BASE, "other:2")
    assert saved.code == 0, saved.err
    imported = await docker.command("import", "-c", "CMD run", "-m", "words", "-", "imp:1", stdin=root)
    assert imported.code == 0 and imported.out.startswith("sha256:"), imported.err
    history = await docker.command("history", "imp:1")
    assert "words" in history.out and "imp:1" not in (await docker.command("images", "-q")).out
    for name in (BASE, "other:2", "imp:1"):
        assert (await docker.command("rmi", name)).code == 0
    assert (await docker.command("images", "-q")).out == ""
    loaded = await docker.command("load", "-i", str(archive))
    assert loaded.code == 0, loaded.err
    assert {f"Loaded image: {BASE}", "Loaded image: other:2"} <= set(loaded.out.splitlines())
    assert (await docker.command("save", "-o", str(archive), BASE)).code == 0
    again = await docker.command("load", "-q", "-i", str(archive))
    assert again.out == f"Loaded image: {BASE}\n", again.err
    assert (await docker.command("load", stdin=b"x" * 2000)).code == 1
