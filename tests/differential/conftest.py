"""One host with all builders on it, for the session. FLOTA_BUILDERS=classic,flota chooses among them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import FLOTA as PROGRAM
from deploy.fleet import Fleet
from deploy.rig.netns import NetnsRig
from tests.differential import case as cases
from tests.differential import trees
from tests.differential.builders import DOCKER_SOCKET, Buildah, Builder, Docker, Flota, Outcome, outcome
from tests.differential.case import BUILDAH, BUILDKIT, CLASSIC, FLOTA, Case
from tests.differential.serving import serving
from tests.rig.conftest import RIG
from tests.support import census
from tests.support.images import docker_archive, image
from tests.support.waiting import wait_until

CHOSEN = tuple(os.environ.get("FLOTA_BUILDERS", f"{CLASSIC},{BUILDKIT},{BUILDAH},{FLOTA}").split(","))
BASE = "base:1"
ACCOUNTS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
app:x:1000:1001:app:/home:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUPS = "root:x:0:\ndaemon:x:1:\nusers:x:100:nobody\napp:x:1001:\nextra:x:2000:app\nnogroup:x:65534:\n"
EXTRA = {
    "etc/passwd": ACCOUNTS.encode(), "etc/group": GROUPS.encode(),
    # places that builders mount files over: there in every base, so that nobody has to make them
    "etc/hosts": b"", "etc/hostname": b"", "etc/resolv.conf": b"",
}  # fmt: skip
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Bench:
    """The builders by name, the common base's tree, and what `{{name}}` stands for."""

    builders: dict[str, Builder] = field(default_factory=dict)
    base: trees.Tree = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def outcomes(self, case: Case, folder: Path) -> dict[str, Outcome]:
        """Of all that know the rule and flota, side by side."""
        wanted = [self.builders[name] for name in (*case.knows, FLOTA) if name in self.builders]
        places = dict(self.places)
        for builder in wanted:
            cases.write(case.context, folder / builder.name / "context")
        for name, context in case.contexts.items():
            cases.write(context, folder / name)
            places[name] = str(folder / name)

        def run(builder: Builder) -> Outcome:
            own = folder / builder.name / "context"
            with builder.turn:
                return outcome(builder, case, own, {**places, "context": str(own)})

        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            return dict(zip([b.name for b in wanted], pool.map(run, wanted), strict=True))


def base_archive() -> bytes:
    layer = root_tar(EXTRA)
    built = image([layer], config={"Env": [PATH], "Cmd": ["sh"]})
    made = {"created": "2000-01-01T00:00:00Z", "created_by": "busybox"}  # buildah wants a line for each layer
    built.config = json.dumps({**json.loads(built.config), "history": [made]}).encode()
    return docker_archive(built, [layer], names=[BASE])


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    assert os.geteuid() == 0, "differential tests need root: sudo deploy/test"
    folder = tmp_path_factory.mktemp("builders")
    archive = folder / "base.tar"
    archive.write_bytes(base_archive())
    rig = NetnsRig(RIG, disk=tmp_path_factory.mktemp("disk"), run=Path(f"/run/flota-{RIG}"))
    rig.down()
    with contextlib.ExitStack() as stack:
        stack.enter_context(census.unchanged())
        fleet = Fleet(rig)
        if FLOTA in CHOSEN:
            stack.callback(fleet.stop)
            fleet.start(1)
        else:
            stack.callback(rig.down)
            rig.up(1)
        stack.enter_context(serving(rig, "n1", folder))
        bench = Bench(base=trees.read(archive.read_bytes()).tree)
        if CLASSIC in CHOSEN or BUILDKIT in CHOSEN:
            stack.enter_context(engine(rig, folder))
        made: Mapping[str, Builder] = {
            CLASSIC: Docker(rig, "n1", folder, buildkit=False),
            BUILDKIT: Docker(rig, "n1", folder, buildkit=True),
            BUILDAH: Buildah(rig, "n1", folder / "buildah"),
            FLOTA: Flota(rig, "n1", PROGRAM),
        }
        bench.builders = {name: builder for name, builder in made.items() if name in CHOSEN}
        for builder in bench.builders.values():
            builder.load(str(archive))
        yield bench


@contextlib.contextmanager
def engine(rig: NetnsRig, folder: Path) -> Iterator[None]:
    """Docker Engine on n1, with its default bridge and no packet filter of its own."""
    words = ["dockerd", "--data-root", "/var/lib/flota/docker", "--exec-root", "/run/docker"]
    words += [
        "-p",
        "/run/docker.pid",
        "-H",
        f"unix://{DOCKER_SOCKET}",
        "--iptables=false",
        "--ip6tables=false",
    ]
    words += ["--ip-forward=false", "--ip-masq=false", "--cgroup-parent", f"/flota-{rig.name}-n1"]
    daemon = rig.spawn("n1", words, log=str(folder / "dockerd.log"))
    ask = ["/usr/bin/docker", "-H", f"unix://{DOCKER_SOCKET}", "version"]
    try:
        wait_until(lambda: rig.exec("n1", ask, check=False).returncode == 0, deadline=60, what="dockerd")
        yield
    finally:
        rig.exec("n1", ["sh", "-c", "kill $(cat /run/docker.pid)"], check=False)
        daemon.wait(30)
