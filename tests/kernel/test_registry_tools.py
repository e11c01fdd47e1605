"""The fleet's registry and podman, buildah, docker with its engine, umoci: they push and pull with a login
and never without; what they push we pull, and they what we push, one platform of several too."""

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
from tests.kernel.test_image_oracles import described
from tests.support.buildah import call
from tests.support.daemons import daemon
from tests.support.images import INDEX, chunks, docker_archive, folder, image, index, member, tar
from tests.support.imagestores import tree
from tests.support.servedregistry import Controlled, controlled

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
    ask = ["docker", "-H", socket, "version"]

    def answers() -> bool:
        return subprocess.run(ask, capture_output=True, timeout=30).returncode == 0

    try:
        with daemon([*words, "--ip-forward=false"], base / "log", answers, start=60):
            yield socket
    finally:
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


ARCHES = {arch: [tar(member("arch", arch.encode()))] for arch in ("amd64", "arm64")}


@pytest.mark.parametrize("tool", TOOLS)
async def test_tool_takes_of_an_index_the_platform_that_it_is_asked_for(site: Site, tool: str) -> None:
    name = f"{site.host}/team/index:1"
    built = {arch: image(layers, arch=arch) for arch, layers in ARCHES.items()}
    async with site.fleet.client(*site.fleet.admin) as client:
        for one in built.values():
            await client.push("team/index", one)
        whole = index(*((one, arch) for arch, one in built.items()))
        assert (await client.push_manifest("team/index", "1", whole, INDEX)).status == 201
    await site.login(tool)
    for arch in ("arm64", "amd64"):
        await site.run(tool, "pull", "--platform", f"linux/{arch}", name)
        words = ("inspect", "--type", "image", name) if tool == "buildah" else ("image", "inspect", name)
        told = json.loads(await site.run(tool, *words))
        assert (told["OCIv1"]["architecture"] if tool == "buildah" else told[0]["Architecture"]) == arch
        await site.run(tool, "rmi", name)


@pytest.mark.parametrize("tool", ["umoci"])
async def test_layout_that_umoci_made_goes_by_the_registry_to_us_and_back(
    site: Site, store: ImageStore, tool: str
) -> None:
    """Of two layers, the upper one with a whiteout; skopeo carries it."""
    layout, back, bundle = (site.folder / name for name in ("layout", "back", "bundle"))
    name, trust = f"{site.host}/team/{tool}:1", str(site.folder / "trust")
    ours = ("--src-creds", f"{USER}:{site.secret}", "--src-cert-dir", trust)
    theirs = ("--dest-creds", f"{USER}:{site.secret}", "--dest-cert-dir", trust)
    made_by_umoci(layout, bundle)
    await asyncio.to_thread(
        call, "skopeo", "copy", "--insecure-policy", *theirs, f"oci:{layout}:it", f"docker://{name}"
    )
    found = await store.pull(name, login=site.own)
    assert len(found.layers) == 2 and found.config.cmd == ("/bin/sh", "-l")
    await store.prepare_root("c", found.id)
    tree_here = described(Path((await store.mount_root("c")).path))
    await asyncio.to_thread(call, "umoci", "raw", "unpack", "--image", f"{layout}:it", site.folder / "first")
    assert tree_here == described(site.folder / "first")
    moved = f"{site.host}/team/moved:2"
    await store.tag(name, moved)
    await store.push(moved, login=site.own)
    await asyncio.to_thread(
        call, "skopeo", "copy", "--insecure-policy", *ours, f"docker://{moved}", f"oci:{back}:it"
    )
    await asyncio.to_thread(call, "umoci", "raw", "unpack", "--image", f"{back}:it", site.folder / "second")
    assert described(site.folder / "second") == tree_here


def made_by_umoci(layout: Path, bundle: Path) -> None:
    bundle.mkdir()
    call("umoci", "init", "--layout", layout)
    call("umoci", "new", "--image", f"{layout}:it")
    for step in range(2):
        target = bundle / str(step)
        call("umoci", "unpack", "--image", f"{layout}:it", target)
        root = target / "rootfs"
        if step == 0:
            (root / "etc").mkdir(mode=0o750)
            (root / "etc/kept").write_bytes(b"kept")
            os.chown(root / "etc/kept", 1000, 100)
            os.chmod(root / "etc/kept", 0o4711)
            (root / "etc/gone").write_bytes(b"gone")
            os.link(root / "etc/kept", root / "twin")
            (root / "link").symlink_to("etc/kept")
        else:
            (root / "etc/gone").unlink()
            (root / "etc/new").write_bytes(b"new" * 1000)
        call("umoci", "repack", "--image", f"{layout}:it", target)
    call("umoci", "config", "--image", f"{layout}:it", "--config.cmd", "/bin/sh", "--config.cmd", "-l")
