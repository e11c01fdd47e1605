"""Real containers for kernel tests: a busybox root, a network namespace, runc under conmon."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.hostlimits import load_seccomp, measure
from agent.inroot import has_abi32
from agent.ocispec import ContainerFacts, HostLimits, SeccompPolicy, container_config
from agent.runtime.base import Bundle, Created, Exit
from agent.runtime.conmon import ConmonRuntime
from model.image import ImageConfig
from model.spec import ContainerSpec, Mount

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1001:\naudio:x:29:app\n"
SERIAL = itertools.count()


def busybox_root(directory: Path) -> Path:
    """A root file system with busybox and all its applets."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/app"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout
    for applet in applets.split():
        target = directory / "bin" / applet
        if not target.exists():
            target.symlink_to("busybox")
    (directory / "etc/passwd").write_bytes(PASSWD)
    (directory / "etc/group").write_bytes(GROUP)
    return directory


class Lab:
    """Makes containers out of specs, as the agent does, and removes them all at the end."""

    def __init__(self, directory: Path, netns: str) -> None:
        self.directory = directory
        self.rootfs = busybox_root(directory / "rootfs")
        self.limits: HostLimits = measure()
        self.seccomp: SeccompPolicy | None = load_seccomp(self.limits)
        self.parent = f"/flota-test-{secrets.token_hex(4)}"
        self.runtime = ConmonRuntime(str(directory / "run"), cgroup_parent=self.parent)
        self.netns = netns
        self.made: list[str] = []

    def config(self, spec: ContainerSpec, ident: str, **facts: Any) -> dict[str, Any]:
        given = {
            "hostname": ident[:12],
            "rootfs": str(self.rootfs),
            "cgroups_path": self.runtime.cgroups_path(ident),
            "netns": self.netns,
            "passwd": PASSWD,
            "group": GROUP,
            "mounts": spec.mounts,
            "abi32": has_abi32(str(self.rootfs)),
            **facts,
        }
        return container_config(
            spec, ImageConfig(), ContainerFacts(**given), self.limits, seccomp=self.seccomp
        )

    async def create(self, spec: ContainerSpec, **facts: Any) -> tuple[Bundle, Created]:
        ident = secrets.token_hex(32)
        directory = str(self.directory / f"bundle-{next(SERIAL)}")
        bundle = Bundle(
            id=ident,
            directory=directory,
            config=self.config(spec, ident, **facts),
            log_path=f"{directory}/container.log",
            tty=spec.tty,
            stdin=spec.stdin,
            stdin_once=spec.stdin_once,
        )
        self.made.append(ident)
        return bundle, await self.runtime.create(bundle)

    async def exit_of(self, bundle: Bundle, created: Created, *, deadline: float = 20.0) -> Exit:
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        stop = self.runtime.watch_exit(bundle.directory, created, ended.set_result)
        try:
            async with asyncio.timeout(deadline):
                return await ended
        finally:
            stop()

    async def run(self, *args: str, **words: Any) -> tuple[Exit, str]:
        """Run `sh -c` or a command line to its end; its exit and its log's text."""
        facts = {k: words.pop(k) for k in tuple(words) if k in ContainerFacts.__struct_fields__}
        if "mounts" in facts:
            words["mounts"] = facts["mounts"]
        command = ("sh", "-c", args[0]) if len(args) == 1 else args
        bundle, created = await self.create(ContainerSpec(image="x", args=command, **words), **facts)
        await self.runtime.start(bundle.id)
        ended = await self.exit_of(bundle, created)
        await self.runtime.delete(bundle.id)
        return ended, text_of(bundle.log_path)

    async def close(self) -> None:
        for ident in self.made:
            await self.runtime.delete(ident)
        await asyncio.to_thread(self._remove_cgroups)

    def _remove_cgroups(self) -> None:
        for controller in Path("/sys/fs/cgroup").iterdir():
            parent = controller / self.parent.strip("/")
            if parent.is_dir():
                parent.rmdir()
        if os.path.isdir(f"/sys/fs/cgroup{self.parent}"):
            os.rmdir(f"/sys/fs/cgroup{self.parent}")


def text_of(log_path: str) -> str:
    """The words of a k8s-file log, parts of lines joined."""
    out = []
    for line in Path(log_path).read_text().splitlines():
        _, _, tag, words = line.split(" ", 3)
        out.append(words + ("\n" if tag == "F" else ""))
    return "".join(out)


@contextmanager
def network_namespace() -> Iterator[str]:
    """A fresh one, held by a process of its own; its path."""
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE
    ) as p:
        assert p.stdout is not None
        p.stdout.readline()
        try:
            yield f"/proc/{p.pid}/ns/net"
        finally:
            p.kill()


def bind(source: Path | str, target: str, **words: Any) -> Mount:
    return Mount(type="bind", source=str(source), target=target, **words)
