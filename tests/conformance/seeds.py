"""Images that public suites take for granted, made of Debian's busybox and served by a registry of ours.

Invariant: no two seeds have one ID: a suite that removes "its" image by ID would take another's name with it.
Nothing is fetched from anywhere; what a suite pulls from docker.io comes from the registry, as its mirror.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.http import UnixConnection
from deploy.busybox import root_tar
from tests.support.images import docker_archive, folder, image, member, tar
from tests.support.waiting import wait_until

PORT = 5000
ACCOUNTS = """\
root:x:0:0:root:/root:/bin/sh
bin:x:1:1:bin:/bin:/bin/false
daemon:x:2:2:daemon:/sbin:/bin/false
mail:x:8:12:mail:/var/mail:/bin/false
postgres:x:70:70:postgres:/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUPS = """\
root:x:0:root
bin:x:1:root,bin,daemon
daemon:x:2:root,bin,daemon
mail:x:12:mail
users:x:100:games
postgres:x:70:
nobody:x:65534:
"""
FOLDERS = (
    "etc/opt",
    "lib",
    "mnt",
    "opt",
    "sbin",
    "srv",
    "usr/bin",
    "usr/local/bin",
    "usr/sbin",
    "var/opt",
    "var/tmp",
)
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  delete: {{enabled: true}}
http:
  addr: :{port}
"""


@dataclass(frozen=True)
class Seed:
    """`name` with its tag; `extra` are files besides busybox's (path → content), `programs` such that
    may be run; `config` is the image's."""

    name: str
    extra: Mapping[str, bytes] = field(default_factory=dict)
    programs: Mapping[str, bytes] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=lambda: {"Cmd": ["/bin/sh"]})

    def archive(self) -> bytes:
        """As `docker save` writes it."""
        own = {
            "etc/passwd": ACCOUNTS.encode(),
            "etc/group": GROUPS.encode(),
            "etc/os-release": f'ID=seed\nPRETTY_NAME="{self.name}"\n'.encode(),
        }
        programs = [member(name, data, mode=0o755) for name, data in self.programs.items()]
        layers = [tar(*map(folder, FOLDERS), *programs), root_tar({**own, **self.extra})]
        built = image(layers, config={"Env": [PATH], **self.config})
        return docker_archive(built, layers, names=[self.name])


SMALL = (
    Seed("alpine:3.10"),
    Seed("alpine:latest"),
    Seed("busybox:latest"),
    Seed("hello-world:latest", config={"Cmd": ["/bin/echo", "Hello from Docker!"]}),
)


def serve(folder: Path) -> Sequence[str]:
    """The words that start the registry: on every address of its host, port `PORT`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(folder=folder / "data", port=PORT))
    return ["docker-registry", "serve", str(config)]


def push(enter: Sequence[str], seeds: Sequence[Seed], folder: Path) -> None:
    """Into the registry, under the names that docker.io has for them. `enter` puts a command on its host."""
    ready = [*enter, "busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{PORT}/v2/"]
    wait_until(
        lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0,
        deadline=30,
        what="the registry answers",
    )
    for seed in seeds:
        archive = folder / "seed.tar"
        archive.write_bytes(seed.archive())
        target = f"docker://127.0.0.1:{PORT}/library/{seed.name}"
        words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}", target]
        done = subprocess.run([*enter, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        archive.unlink()


def pull(socket: Path, seeds: Sequence[Seed]) -> None:
    """By the engine behind the socket, through its mirror of docker.io."""
    for seed in seeds:
        connection = UnixConnection(str(socket))
        try:
            connection.request("POST", f"/images/create?fromImage={seed.name}")
            reply = connection.getresponse()
            said = reply.read()
        finally:
            connection.close()
        assert reply.status == 200 and b'"errorDetail"' not in said, said.decode()
