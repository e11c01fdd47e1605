"""The peers: Docker Engine (one host, or a Swarm), each on a rig of its own, so that both sides run alike."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bench.http import Api
from deploy.rig.netns import NetnsRig

IMAGE = "bench:1"


class Docker:
    """Debian's Docker Engine on `count` hosts; more than one make a Swarm led by n1."""

    def __init__(self, name: str, folder: Path) -> None:
        self.rig = NetnsRig(name, disk=folder / "disk", run=Path(f"/run/flota-{name}"))
        self._logs = folder
        self.image_id = ""
        self._engines: list[subprocess.Popen[bytes]] = []

    def start(self, count: int, root_tar: bytes) -> None:
        self.rig.down()
        self._logs.mkdir(parents=True, exist_ok=True)
        self.rig.up(count)
        for host in self.rig.hosts:
            self._engine(host.name)
        for host in self.rig.hosts:
            self._await(host.name)
            self._load(host.name, root_tar)
        if count > 1:
            self._swarm()

    def start_alone(self, count: int, root_tar: bytes) -> None:
        """An engine on n1 only; the other hosts look at it from outside."""
        self.rig.down()
        self._logs.mkdir(parents=True, exist_ok=True)
        self.rig.up(count)
        self._engine("n1")
        self._await("n1")
        self._load("n1", root_tar)

    def _engine(self, host: str) -> None:
        words = ["dockerd", "--data-root", "/var/lib/flota/docker", "--exec-root", "/run/docker"]
        words += ["-p", "/run/docker.pid", "-H", "unix:///run/flota/docker.sock"]
        words += ["--cgroup-parent", f"/flota-{self.rig.name}-{host}"]
        self._engines.append(self.rig.spawn(host, words, log=str(self._logs / f"{host}.log")))

    def _await(self, host: str) -> None:
        end = time.monotonic() + 60
        while self.run(host, "info", check=False).returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"dockerd on {host} does not answer; see {self._logs}/{host}.log")
            time.sleep(0.1)

    def _load(self, host: str, root_tar: bytes) -> None:
        """The same bytes everywhere give the same image id only by save and load, as Swarm needs it."""
        if host == "n1":
            self.run(host, "import", "-", IMAGE, stdin=root_tar)
            self._archive = self.run(host, "save", IMAGE).stdout
            self.image_id = self.run(host, "images", "-q", "--no-trunc", IMAGE).stdout.decode().strip()
        else:
            self.run(host, "load", stdin=self._archive)

    def _swarm(self) -> None:
        first, *others = self.rig.hosts
        self.run(first.name, "swarm", "init", "--advertise-addr", first.address)
        token = self.run(first.name, "swarm", "join-token", "-q", "worker").stdout.decode().strip()
        for host in others:
            self.run(host.name, "swarm", "join", "--token", token, f"{first.address}:2377")

    def socket(self, host: str = "n1") -> str:
        return str(self.rig.run_folder(host) / "docker.sock")

    def api(self, host: str = "n1") -> Api:
        return Api(self.socket(host))

    def run(
        self, host: str, *words: str, stdin: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """The docker command on this machine against a host's engine."""
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket(host)}", *words],
            input=stdin,
            capture_output=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"docker {' '.join(words)}: {done.stderr.decode(errors='replace')[-400:]}")
        return done

    def engine_pid(self) -> int:
        """The first engine's, as this machine knows it: `nsenter` has started it as its child."""
        starter = self._engines[0].pid
        return int(Path(f"/proc/{starter}/task/{starter}/children").read_text().split()[0])

    def stop(self) -> None:
        self.rig.down()
        for engine in self._engines:
            engine.wait()
