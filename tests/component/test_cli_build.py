"""`flota build` as a process against a fleet in memory: what it sends, shows and writes."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from agent.build.link import Link
from agent.build.session import Build
from image.build.base import Session
from image.context.objects import Objects
from image.context.receive import received
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import Spot
from model.build import (
    BuildRequest,
    BuildWarning,
    Built,
    Context,
    Done,
    StepBegan,
    StepEnded,
    StepMoved,
    StepSaid,
)
from model.errors import CommandFailed
from tests.support.contexts import content, store
from tests.support.fakehost import IMAGE_ID
from tests.support.servedfleet import ServedFleet, served

IMAGE = "sha256:" + "ab" * 32
DOCKERFILE = "FROM scratch\nCOPY . /\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "main.c").write_text("int main;\n")
    return folder


def builds_by(fleet: ServedFleet, build: Build) -> None:
    for host in fleet.fleet.hosts.values():
        host.building = build


def requests(fleet: ServedFleet) -> list[BuildRequest]:
    return [request for host in fleet.fleet.hosts.values() for request in host.requests]


def requested(fleet: ServedFleet) -> BuildRequest:
    [request] = requests(fleet)
    return request


class Kept:
    """A host's object store; what came is in `files`."""

    def __init__(self, fleet: ServedFleet, folder: Path) -> None:
        self.objects: Objects = store(folder)
        self.files: dict[str, bytes | str | None] = {}
        for host in fleet.fleet.hosts.values():
            host.bring = self.bring

    async def bring(self, link: Link, context: str, paths: Sequence[str]) -> str:
        lease = self.objects.lease()
        root = await received(link, self.objects, lease, context, paths)
        self.files |= content(self.objects, root)
        return root


async def scanning(request: BuildRequest, session: Session) -> Done:
    await session.scan("", [])
    return Done(images=(Built(image=IMAGE),))


def test_folder_is_sent_without_what_is_ignored_and_only_what_is_new(
    fleet: ServedFleet, app: Path, tmp_path: Path
) -> None:
    (app / ".dockerignore").write_text("*.o\n")
    (app / "main.o").write_bytes(b"object")
    (app / "big").write_bytes(os.urandom(3 << 20))
    kept = Kept(fleet, tmp_path / "objects")
    builds_by(fleet, scanning)
    fleet.ok("build", str(app))
    assert set(kept.files) == {".dockerignore", "Dockerfile", "main.c", "big"}
    assert kept.files["big"] == (app / "big").read_bytes()
    assert requested(fleet).dockerfile == DOCKERFILE.encode()
    assert requested(fleet).contexts == (Context(ref=str(app)),)


def test_ignore_file_beside_the_dockerfile_comes_first(fleet: ServedFleet, app: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.Dockerfile"
    other.write_text("FROM scratch\nCOPY main.c /\n")
    (tmp_path / "other.Dockerfile.dockerignore").write_text("main.c\n")
    (app / ".dockerignore").write_text("Dockerfile\n")
    kept = Kept(fleet, tmp_path / "objects")
    builds_by(fleet, scanning)
    fleet.ok("build", "-f", str(other), str(app))
    assert set(kept.files) == {".dockerignore", "Dockerfile"}
    assert requested(fleet).file == str(other)


def test_dockerfile_from_standard_input_goes_with_a_folder_or_alone(fleet: ServedFleet, app: Path) -> None:
    text = b"FROM scratch\nLABEL a=b\n"
    fleet.ok("build", "-f", "-", str(app), stdin=text)
    fleet.ok("build", "-", stdin=text)
    folder, alone = sorted(requests(fleet), key=lambda r: r.contexts[0].kind)
    assert folder.dockerfile == alone.dockerfile == text
    assert alone.contexts == (Context(kind="none"),)


def test_tar_on_standard_input_or_in_a_file_is_the_context_and_has_the_dockerfile(
    fleet: ServedFleet, tmp_path: Path
) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in (("Dockerfile", DOCKERFILE), ("sub/Dockerfile", "FROM a\n"), ("sub/x", "x")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    kept = Kept(fleet, tmp_path / "objects")
    builds_by(fleet, scanning)
    fleet.ok("build", "-", stdin=data.getvalue())
    assert kept.files == {"Dockerfile": DOCKERFILE.encode(), "sub": None, "sub/Dockerfile": b"FROM a\n",
                          "sub/x": b"x"}  # fmt: skip
    (tmp_path / "context.tgz").write_bytes(data.getvalue())
    fleet.ok("build", "-f", "sub/Dockerfile", str(tmp_path / "context.tgz"))
    assert sorted(r.dockerfile for r in requests(fleet)) == [b"FROM a\n", DOCKERFILE.encode()]
    for broken, said in ((data.getvalue()[:60], b"gzip"), (b"", b"standard input is empty")):
        done = fleet.flota("build", "-", stdin=broken)
        assert done.returncode == 1 and said in done.stderr and b"Traceback" not in done.stderr


def test_flags_reach_the_host(fleet: ServedFleet, app: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret")
    fleet.ok(
        "build", "-t", "app:1", "-t", "other:2", "--target", "final", "--build-arg", "A=1",
        "--build-arg", "HOME",
        "--label", "x=y", "--no-cache", "--pull", "--network", "none", "--add-host", "db:10.0.0.1",
        "--memory", "64m", "--cpus", "1.5", "--ulimit", "nofile=10:20", "--shm-size", "1m",
        "--secret", f"id=key,src={tmp_path / 'key'}", "--allow", "network.host", "--platform", "linux/amd64",
        "--no-cache-filter", "a,b", "--host", "n2", str(app),
    )  # fmt: skip
    [request] = next(h for h in fleet.fleet.hosts.values() if h.name == "n2").requests
    assert request.names == ("app:1", "other:2") and request.target == "final"
    assert request.args == {"A": "1", "HOME": os.environ["HOME"]} and request.labels == {"x": "y"}
    assert request.no_cache and request.pull and request.network == "none"
    assert request.hosts == ("db:10.0.0.1",) and request.no_cache_stages == ("a", "b")
    assert request.resources.memory == 64 << 20 and request.resources.nano_cpus == 1_500_000_000
    assert request.ulimits == {"nofile": (10, 20)} and request.shm_size == 1 << 20
    assert request.secrets == ("key",) and request.allow == ("network.host",)
    assert request.platforms == ("linux/amd64",)


def test_all_that_is_wrong_with_a_command_line_is_told_at_once(fleet: ServedFleet, app: Path) -> None:
    done = fleet.flota(
        "build", "-t", "UPPER", "--memory", "lots", "--secret", "src=x", "--cache-from", "type=gha",
        "-o", "type=nosuch", "--allow", "root", "--platform", "arm", "--add-host", "db", str(app),
    )  # fmt: skip
    said = done.stderr.decode()
    assert done.returncode == 1
    for flag in (
        "--tag",
        "--memory",
        "--secret",
        "--cache-from",
        "--output",
        "--allow",
        "--platform",
        "--add-host",
    ):
        assert f"{flag}" in said
    assert requests(fleet) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "the build context nosuch is not there"),
        (("-f", "nosuch", "."), "nosuch: no such file"),
        (("-f", "-", "-"), "can't both come from standard input"),
        (("--push", "."), "has no name to be pushed to"),
        (("--secret", "id=a,src=nosuch", "."), "secret a: nosuch: no such file"),
        (("--ssh", "key=nosuch", "."), "--ssh key: nosuch: no such file"),
        (("--iidfile", "nosuch/iid", "."), "--iidfile nosuch/iid: nosuch is no folder"),
        (("-o", "type=tar,dest=nosuch/x", "."), "nosuch/x can't be written: nosuch is no folder"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_sent(
    fleet: ServedFleet, app: Path, words: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        fleet.command("build", *words), env=fleet.environment(), cwd=app, capture_output=True,
        stdin=subprocess.DEVNULL, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and said in done.stderr.decode()
    assert requests(fleet) == []


async def stepping(request: BuildRequest, session: Session) -> Done:
    session.tell(StepBegan(step=1, name="[a 1/2] RUN make", line=2))
    session.tell(StepSaid(step=1, data=b"compiling\npart"))
    session.tell(StepMoved(step=1, what="transferring", current=5, total=5))
    session.tell(StepSaid(step=1, data=b"ial\x1b]0;title\x07\n"))
    session.tell(StepEnded(step=1, seconds=1.25))
    session.tell(StepBegan(step=2, name="[a 2/2] COPY . /"))
    session.tell(StepEnded(step=2, cached=True, where="n3"))
    session.tell(BuildWarning(code="StageNameCasing", message="odd", line=1))
    return Done(images=(Built(image=IMAGE),), metadata={"containerimage.config.digest": json.dumps(IMAGE)})


def test_progress_in_a_log_is_lines_with_numbers_times_and_outcomes(fleet: ServedFleet, app: Path) -> None:
    builds_by(fleet, stepping)
    done = fleet.flota("build", "--host", "n1", str(app))
    lines = done.stderr.decode().splitlines()
    assert lines[:2] == ["building on n1: as you said", "#1 [a 1/2] RUN make"]
    assert lines[2].endswith(" compiling") and lines[3] == "#1 transferring: 5B / 5B"
    assert lines[4].endswith(" partial]0;title") and lines[4].startswith("#1 0.")
    assert lines[5:9] == ["#1 DONE 1.2s", "", "#2 [a 2/2] COPY . /", "#2 CACHED from n3"]
    assert lines[-1] == " - StageNameCasing: odd (line 1)" and done.stdout == b""


def test_quiet_build_prints_the_id_alone_and_files_tell_of_the_image(
    fleet: ServedFleet, app: Path, tmp_path: Path
) -> None:
    builds_by(fleet, stepping)
    iid, metadata = tmp_path / "iid", tmp_path / "metadata"
    done = fleet.flota("build", "-q", "--iidfile", str(iid), "--metadata-file", str(metadata), str(app))
    assert (done.stdout, done.stderr) == (f"{IMAGE}\n".encode(), b"")
    assert iid.read_text() == IMAGE
    assert json.loads(metadata.read_text()) == {"containerimage.config.digest": IMAGE}


def test_quiet_build_whose_output_goes_to_standard_output_writes_nothing_else_there(
    fleet: ServedFleet, app: Path
) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        async def data() -> AsyncIterator[bytes]:
            yield b"archive"

        await session.send(0, data())
        return Done(images=(Built(image=IMAGE),))

    builds_by(fleet, build)
    assert fleet.flota("build", "-q", "-o", "type=oci,dest=-", str(app)).stdout == b"archive"


def test_built_image_is_copied_to_every_host_unless_one_is_named(fleet: ServedFleet, app: Path) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        return Done(images=(Built(image=IMAGE_ID),), names=("box:1",), host="n2")

    builds_by(fleet, build)
    for host in fleet.fleet.hosts.values():
        if host.name != "n2":
            del host.images["box:1"]
    for words in (("--host", "n2"), ("--no-copy",), ("-o", "type=registry")):
        fleet.ok("build", "-t", "box:1", *words, str(app))
    assert not any(host.copies for host in fleet.fleet.hosts.values())
    assert fleet.ok("build", "-q", "-t", "box:1", str(app)) == f"{IMAGE_ID}\n"
    assert {h.name: [c.ref for c in h.copies] for h in fleet.fleet.hosts.values()} == {
        "n1": ["box:1"], "n2": [], "n3": ["box:1"]}  # fmt: skip


def test_host_that_lies_spreads_no_image_that_was_not_asked_for(fleet: ServedFleet, app: Path) -> None:
    async def lying(request: BuildRequest, session: Session) -> Done:
        return Done(images=(Built(image=IMAGE_ID),), names=("box:1", "prod:latest"), host="n2")

    builds_by(fleet, lying)
    for host in fleet.fleet.hosts.values():
        if host.name != "n2":
            del host.images["box:1"]
    fleet.ok("build", "-q", "-t", "box:1", str(app))
    assert {copy.ref for host in fleet.fleet.hosts.values() for copy in host.copies} == {"box:1"}
    fleet.ok("build", "-q", str(app))
    assert {copy.ref for host in fleet.fleet.hosts.values() for copy in host.copies} == {"box:1"}


def test_host_that_lies_gets_no_terminal_that_was_not_lent(fleet: ServedFleet, app: Path) -> None:
    async def lying(request: BuildRequest, session: Session) -> Done:
        typed = await session.shell(1)
        session.tell(StepSaid(step=1, data=b"\x1b]0;title\x07[sudo] password: "))
        async for _ in typed:
            pass
        return Done()

    builds_by(fleet, lying)
    done = fleet.flota("build", str(app), stdin=b"secret\n")
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode().splitlines()[-1].startswith("flota: the host opens a shell that was")


def test_host_that_lies_of_the_result_is_told_in_one_line(
    fleet: ServedFleet, app: Path, tmp_path: Path
) -> None:
    async def lying(request: BuildRequest, session: Session) -> Done:
        return Done(images=(Built(image="\x1b]0;title\x07sha256:1"),), metadata={"a": "{"})

    builds_by(fleet, lying)
    done = fleet.flota("build", "-q", str(app))
    assert done.stdout == b"]0;titlesha256:1\n"
    metadata = tmp_path / "metadata"
    done = fleet.flota("build", "-q", "--metadata-file", str(metadata), str(app))
    assert (done.returncode, done.stderr.decode().count("\n"), metadata.exists()) == (1, 1, False)
    assert b"metadata" in done.stderr and b"internal" not in done.stderr


def test_progress_as_json_is_one_message_a_line(fleet: ServedFleet, app: Path) -> None:
    builds_by(fleet, stepping)
    done = fleet.flota("build", "--progress", "rawjson", str(app))
    kinds = [json.loads(line)["type"] for line in done.stderr.splitlines()]
    assert kinds[:3] == ["placed", "began", "said"] and kinds[-1] == "done"


async def failing(request: BuildRequest, session: Session) -> Done:
    session.tell(StepBegan(step=1, name="[2/2] RUN make", line=2))
    session.tell(StepSaid(step=1, data=b"cc: no such thing\n"))
    session.tell(StepEnded(step=1, error="exit code 2"))
    error = CommandFailed("Dockerfile:2: RUN make: exit code 2", hint="See its output")
    error.line, error.exit_code = 2, 2  # type: ignore[attr-defined]
    raise error


def test_failed_run_is_told_with_its_output_and_place(fleet: ServedFleet, app: Path, tmp_path: Path) -> None:
    builds_by(fleet, failing)
    iid = tmp_path / "iid"
    done = fleet.flota("build", "--iidfile", str(iid), str(app))
    said = done.stderr.decode()
    assert done.returncode == 1 and not iid.exists()
    assert " > [2/2] RUN make:\ncc: no such thing\n" in said
    assert "Dockerfile:2\n" in said and "2 | COPY . /" in said
    assert said.endswith("flota: Dockerfile:2: RUN make: exit code 2. See its output\n")


def test_fault_of_a_dockerfile_is_shown_with_its_column(fleet: ServedFleet, app: Path) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        raise DockerfileFault("what is this", Spot(line=2, column=6), hint="Write it anew")

    builds_by(fleet, build)
    done = fleet.flota("build", str(app))
    said = done.stderr.decode()
    assert done.returncode == 1 and " 2 | COPY . /\n   |      ^\n" in said
    assert said.endswith("flota: Dockerfile:2:6: what is this. Write it anew\n")


def test_logins_go_along_for_registries_that_the_build_names_and_no_others(
    fleet: ServedFleet, app: Path, tmp_path: Path
) -> None:
    auths = {name: {"auth": base64.b64encode(f"me:{name}".encode()).decode()}
             for name in ("one.test", "two.test", "three.test", "four.test", "never.test")}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    (app / "Dockerfile").write_text(
        "ARG REG=two.test\nFROM one.test/a AS never.test\nFROM $REG/b\nCOPY --from=three.test/c /x /\n"
        "COPY --from=0 /x /\nRUN echo never.test/x\n"
    )
    env = {"DOCKER_CONFIG": str(tmp_path)}
    assert fleet.flota("build", "--push", "-t", "four.test/d", str(app), env=env).returncode == 0
    logins = requested(fleet).logins
    assert {host: login.password for host, login in logins.items()} == {
        name: name for name in ("one.test", "two.test", "three.test", "four.test")
    }


def test_secret_and_variable_reach_the_build_that_asks(fleet: ServedFleet, app: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file\0")

    async def build(request: BuildRequest, session: Session) -> Done:
        values = [await session.secret(name) for name in ("file", "variable", "other")]
        return Done(digest=repr(values))

    builds_by(fleet, build)
    done = fleet.flota(
        "build", "-q", "--secret", f"id=file,src={tmp_path / 'file'}", "--secret", "id=variable,env=TOKEN",
        str(app), env={"TOKEN": "t0ken"},
    )  # fmt: skip
    assert done.stdout == repr([b"from a file\0", b"t0ken", None]).encode() + b"\n"
