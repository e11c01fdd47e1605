"""A host as a network namespace with a real NetReconciler in a process of its own, driven over a pipe.

`HostProcess` is the test's end, `main` the host's: one JSON request a line (`method`, arguments by type), one
JSON reply a line.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from model.errors import FlotaError
from model.ids import InstanceId
from net.host import Drift, EndpointRequest, NetworkPlan, PublishRequest
from net.kernel.host import TUNNELS, UNROUTED
from net.kernel.linux import LinuxKernel
from net.loadbalance import VirtualService
from net.policy import HostPolicies
from net.reconciler import NetReconciler
from net.state import Link, NetState
from net.watch import COMPARE
from net.wireguard.choice import HostTunnels
from tests.support import forkserver
from tests.support.forkserver import Dialogue

ARGUMENTS: dict[str, Any] = {
    "apply": NetworkPlan,
    "attach": EndpointRequest,
    "publish": PublishRequest,
    "serve": dict[str, VirtualService | None],
    "police": HostPolicies,
}
HOST = "from tests.support import hostprocess; hostprocess.main()"


class HostProcess:
    """`netns` exists already. Every call raises RuntimeError with the error's words when it failed."""

    def __init__(self, netns: str, run_dir: Path, *, compare: float = COMPARE) -> None:
        self.netns = netns
        self.run_dir = run_dir
        self.sysfs = run_dir.parent / f"{run_dir.name}.sys"
        """Where the namespace's own /sys is to be mounted."""
        self._compare = compare
        self._process: Dialogue | None = None

    def start(self) -> None:
        words = str(self.run_dir), self.sysfs.as_posix(), str(self._compare)
        self._process = Dialogue(f"/run/netns/{self.netns}", HOST, *words)
        assert self._process.line() == "ready"

    @property
    def running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """As a crash: nothing is tidied."""
        assert self._process is not None
        self._process.kill()
        self._process = None

    def stop(self) -> None:
        assert self._process is not None
        self._process.end()
        self._process = None

    def call(self, method: str, *arguments: Any) -> Any:
        assert self._process is not None
        self._process.write(json.dumps([method, msgspec.to_builtins(arguments)]))
        reply = json.loads(self._process.line())
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["result"]

    def space(self, instance: str) -> str:
        """A container's namespace."""
        return str(self.run_dir / "ns" / instance)

    def run(self, *argv: str, check: bool = True, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        """A program in the host's namespace."""
        return run_in(f"/run/netns/{self.netns}", argv, check=check, timeout=timeout)

    def inside(
        self, instance: str, *argv: str, check: bool = True, timeout: float = 20.0
    ) -> subprocess.CompletedProcess[str]:
        """A program in a container's namespace."""
        return run_in(self.space(instance), argv, check=check, timeout=timeout)

    def python(self, code: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A Python program in the host's namespace."""
        return forkserver.run(f"/run/netns/{self.netns}", code, *words, check=check)

    def python_inside(
        self, instance: str, code: str, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A Python program in a container's namespace."""
        return forkserver.run(self.space(instance), code, *words, check=check)


def run_in(
    namespace: str, argv: Sequence[str], *, check: bool, timeout: float
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["nsenter", f"--net={namespace}", *argv], capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(argv)}: {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done


class CountingKernel(LinuxKernel):
    """How often all was listed, and by which task; what is changed, the reconciler counts itself."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.looks = Counter[asyncio.Task[Any] | None]()

    async def observe(self, sysctls: Iterable[str], inner: Sequence[Link] = ()) -> NetState:
        self.looks[asyncio.current_task()] += 1
        return await super().observe(sysctls, inner)


async def _serve(run_dir: Path, sysfs: str, compare: float) -> None:
    tunnels = HostTunnels(run_dir / TUNNELS)
    kernel = CountingKernel(sysfs=sysfs, tunnels=tunnels, unrouted=run_dir / UNROUTED)
    network = NetReconciler(run_dir, kernel=kernel, compare=compare)
    drifts: list[Drift] = []
    network.on_drift(drifts.append)
    await network.start()
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print("ready", flush=True)
    while line := await reader.readline():
        method, arguments = json.loads(line)
        try:
            if method == "cost_of_apply":
                result = await _cost_of_apply(network, kernel, msgspec.convert(arguments[0], NetworkPlan))
            else:
                result = await _call(network, drifts, method, arguments)
            reply: dict[str, Any] = {"result": msgspec.to_builtins(result)}
        except FlotaError as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
    await network.close()


async def _call(network: NetReconciler, drifts: list[Drift], method: str, arguments: list[Any]) -> Any:
    if method == "drifts":
        found, drifts[:] = list(drifts), []
        return found
    if method == "mutations":
        return network.mutations
    if method in ("free_port", "namespaces"):
        return getattr(network, method)(*arguments)
    if method == "time_attach":
        return await _time_attach(network, msgspec.convert(arguments[0], list[EndpointRequest]))
    if method in ARGUMENTS:
        arguments = [msgspec.convert(arguments[0], ARGUMENTS[method])]
    return await getattr(network, method)(*arguments)


async def _cost_of_apply(network: NetReconciler, kernel: CountingKernel, plan: NetworkPlan) -> list[float]:
    """Operations issued to the kernel, listings of all there is, and seconds. A bell's own look may be going
    on beside it."""
    task = asyncio.current_task()
    operations, looks, began = network.mutations, kernel.looks[task], time.perf_counter()
    await network.apply(plan)
    return [network.mutations - operations, kernel.looks[task] - looks, time.perf_counter() - began]


async def _time_attach(network: NetReconciler, requests: list[EndpointRequest]) -> list[float]:
    """Milliseconds of each namespace + attach."""
    times = []
    for request in requests:
        began = time.perf_counter()
        await network.open_namespace(InstanceId(request.instance))
        await network.attach(request)
        times.append((time.perf_counter() - began) * 1000)
    return times


def main() -> None:
    """With a run directory, the mount of sysfs and the seconds between looks as arguments."""
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
