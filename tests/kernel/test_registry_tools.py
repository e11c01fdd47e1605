"""The fleet's registry and podman, buildah, docker with its engine: they push and pull with a login and never
without; what they push we pull, and they what we push."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from image.drivers.overlay import OverlayDriver
from image.registry.client import RegistryClient
from image.registry.endpoints import RegistrySettings
from image.store import ImageStore
from model.registries import Login
from tests.support.images import chunks, docker_archive, folder, image, member, tar
from tests.support.imagestores import tree
from tests.support.servedregistry import Controlled, controlled
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]
LAYERS = [tar(folder("etc"), member("etc/issue", b"base" * 5000)), tar(member("etc/motd", b"top"))]
FILES = {"etc/issue": b"base" * 5000, "etc/motd": b"top"}
TOOLS = ["podman", "buildah", "docker"]
USER = "ci"


@dataclass
class Site:
    """A fleet's registry with a login, and a folder for each tool's own things."""

    fleet: Controlled
    folder: Path
    secret: str
    docker: str
    short: str
    """A folder with a name of fewer than 50 letters: podman's runroot; the engine's is in it."""

    @property
    def host(self) -> str:
        return self.fleet.host

    def _words(self, tool: str) -> list[str]:
        if tool == "docker":
            return ["docker", "--config", str(self.folder / "docker-config"), "-H", self.docker]
        store = ["--root", str(self.folder / "store"), "--runroot", self.short]
        return [tool, *store, "--storage-driver", "vfs"]

    async def run(self, tool: str, verb: str, *words: str, check: bool = True, stdin: str = "") -> str:
        """What it says; of a failure what it complains of."""
        speaks = verb in ("login", "logout", "push", "pull") or words[:1] == ("push",)
        trust = ["--cert-dir", str(self.folder / "trust")] if speaks and tool != "docker" else []
        at = 1 if words[:1] == ("push",) else 0
        argv = [*self._words(tool), verb, *words[:at], *(trust if verb != "logout" else []), *words[at:]]
        environment = {**os.environ, "REGISTRY_AUTH_FILE": str(self.folder / "auth.json")}
        done = await asyncio.to_thread(
            subprocess.run, argv, capture_output=True, text=True, input=stdin, env=environment, timeout=120
        )
        assert (done.returncode == 0) == check, f"{argv}: {done.returncode} {done.stdout}{done.stderr}"
        return str(done.stdout if check else done.stderr)

    async def login(self, tool: str, password: str = "", *, check: bool = True) -> str:
        words = ("-u", USER, "--password-stdin", self.host)
        return await self.run(tool, "login", *words, stdin=password or self.secret, check=check)

    @property
    def own(self) -> Login:
        return Login(user=USER, password=self.secret)

    async def there(self, name: str) -> bool:
        async with self.fleet.client(*self.fleet.admin) as client:
            path, _, tag = name.rpartition(":")
            return (await client.ask("GET", f"/v2/{path}/manifests/{tag}")).status == 200


@contextlib.contextmanager
def docker_engine(base: Path) -> Iterator[str]:
    """One of our own, without networks: images alone are asked of it. It mounts its folder over itself, and
    has sockets below, whose paths can't be long."""
    base.mkdir()
    socket = f"unix://{base}/docker.sock"
    words = ["dockerd", "--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "-H", socket]
    words += ["--pidfile", f"{base}/pid", "--storage-driver", "vfs", "--bridge", "none", "--iptables=false"]
    with open(base / "log", "wb") as log:
        process = subprocess.Popen([*words, "--ip-forward=false"], stdout=log, stderr=log)
    ask = ["docker", "-H", socket, "version"]

    def answers() -> bool:
        assert process.poll() is None, (base / "log").read_text()[-2000:]
        return subprocess.run(ask, capture_output=True).returncode == 0

    try:
        wait_until(answers, deadline=60, what="dockerd")
        yield socket
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if os.path.ismount(base / "data"):
            subprocess.run(["umount", str(base / "data")], check=True)


@pytest.fixture
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    wants = request.node.callspec.params["tool"] == "docker"
    with contextlib.ExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory(prefix="flota-"))
        docker = stack.enter_context(docker_engine(Path(short) / "engine")) if wants else ""
        async with controlled(tmp_path / "fleet") as fleet:
            secret = await fleet.token(USER, scope="push", prefix="team")
            trust = tmp_path / "trust"
            trust.mkdir()
            (trust / "ca.crt").write_bytes((fleet.folder / "ca.crt").read_bytes())
            (tmp_path / "box.tar").write_bytes(docker_archive(image(LAYERS), LAYERS, names=["box:1"]))
            (tmp_path / "auth.json").write_text('{"auths": {}}')
            yield Site(fleet, tmp_path, secret, docker, short)


@pytest.fixture
async def store(site: Site) -> AsyncIterator[ImageStore]:
    """A host's, which trusts the fleet's CA."""
    certificates = site.folder / "certs.d" / site.host
    certificates.mkdir(parents=True)
    (certificates / "ca.crt").write_bytes((site.fleet.folder / "ca.crt").read_bytes())
    source = RegistryClient(RegistrySettings(certificates=(str(site.folder / "certs.d"),)))
    store = ImageStore(site.folder / "images", driver_choice=(OverlayDriver(), "test"), source=source)
    await store.open()
    yield store
    for root in store.roots():
        await store.remove_root(root.container)
    await store.close()


def local(tool: str) -> str:
    """What it calls an image that was loaded as box:1."""
    return "box:1" if tool == "docker" else "localhost/box:1"


async def loaded(site: Site, tool: str, name: str) -> None:
    """The image is the tool's, by that name."""
    if tool == "buildah":
        await site.run(tool, "pull", f"docker-archive:{site.folder / 'box.tar'}")
    else:
        await site.run(tool, "load", "-i", str(site.folder / "box.tar"))
    await site.run(tool, "tag", local(tool), name)


async def removed(site: Site, tool: str, name: str) -> None:
    for each in (name, local(tool)):
        await site.run(tool, "rmi", each)


@pytest.mark.parametrize("tool", TOOLS)
async def test_tool_pushes_and_pulls_with_its_login_and_never_without(
    site: Site, store: ImageStore, tool: str
) -> None:
    name = f"{site.host}/team/{tool}:1"
    await loaded(site, tool, name)
    await site.run(tool, "push", name, check=False)
    await site.login(tool, "wrong", check=False)
    assert not await site.there(f"team/{tool}:1")
    await site.login(tool)
    await site.run(tool, "push", name)
    other = f"{site.host}/other/{tool}:1"
    await site.run(tool, "tag", name, other)
    await site.run(tool, "push", other, check=False)  # its login is for `team` alone
    await site.run(tool, "rmi", other)
    await removed(site, tool, name)
    await site.run(tool, "pull", name)
    await site.run(tool, "rmi", name)
    await site.run(tool, "logout", site.host)
    await site.run(tool, "pull", name, check=False)
    found = await store.pull(name, login=site.own)
    await store.prepare_root("c", found.id)
    assert tree((await store.mount_root("c")).path) == FILES


@pytest.mark.parametrize("tool", TOOLS)
async def test_tool_pulls_what_we_push(site: Site, store: ImageStore, tool: str) -> None:
    name = f"{site.host}/team/ours:1"
    await store.load(chunks((site.folder / "box.tar").read_bytes()))
    await store.tag("box:1", name)
    record = await store.push(name, login=site.own)
    await site.login(tool)
    await site.run(tool, "pull", name)
    words = ("inspect", "--type", "image", name) if tool == "buildah" else ("image", "inspect", name)
    told = json.loads(await site.run(tool, *words))
    ident = told["FromImageID"] if tool == "buildah" else told[0]["Id"]
    assert ident.removeprefix("sha256:") == record.id.removeprefix("sha256:")
    await site.run(tool, "rmi", name)


@pytest.mark.parametrize("tool", ["podman", "buildah"])
async def test_tool_pushes_an_index_of_several_platforms_of_which_we_take_ours(
    site: Site, store: ImageStore, tool: str
) -> None:
    await site.login(tool)
    for arch in ("amd64", "arm64"):
        layers = [tar(member("arch", arch.encode()))]
        path = site.folder / f"{arch}.tar"
        path.write_bytes(docker_archive(image(layers, arch=arch), layers, names=[f"{arch}:1"]))
    await site.run(tool, "manifest", "create", "both")
    for arch in ("amd64", "arm64"):
        await site.run(tool, "manifest", "add", "both", f"docker-archive:{site.folder / f'{arch}.tar'}")
    name = f"{site.host}/team/both:{tool}"
    await site.run(tool, "manifest", "push", "--all", "both", f"docker://{name}")
    found = await store.pull(name, login=site.own)
    await store.prepare_root("c", found.id)
    assert tree((await store.mount_root("c")).path) == {"arch": b"amd64"}
