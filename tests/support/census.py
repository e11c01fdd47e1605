"""The census: every kernel object, process and file that flota could leave behind, as comparable lines.

`take()` before and after; `difference` must be empty. Only what belongs to this network and mount namespace
is seen for links, routes, rules and nft; namespaces, mounts, cgroups, processes and loop devices are the
machine's. What a busy machine changes by itself (addresses learned, counters) is left out, and so are flota's
own programs that another checkout, or an installed flota, runs beside: FLOTA_TREE in a process's environment
names the tree that it was started for; the path of its Python does, too. Where lanes of one run of the tests
go side by side, FLOTA_LANE names the one whose census it is: what namespaces can't part is then told by its
name, or left to the census of the whole run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.waiting import wait_until

Census = frozenset[str]

_NEEDED = re.compile(r"(^|/)(runc|conmon|dnsmasq|iperf3|docker-registry|etcd)$")
"""What we run of others': whoever started it, as conmon gets an environment of its own."""

_MACHINES = re.compile(r"(^|/)(qemu-system-\w+|libvirtd|virtlogd)$")
"""Of a rig's: others on the machine may have theirs."""

_COMMAND = re.compile(r"(^|/)flota$")

TREE = "FLOTA_TREE"
"""Environment variable that `deploy/test` gives all that it starts: the tree whose tests these are. Without
it everybody's flota is ours."""

LANE = "FLOTA_LANE"
"""Environment variable that names the lane, where several run side by side."""

_MODULES = frozenset({"cli.main", "net.supervise", "net.resolver", "net.proxy"})
"""What our daemons are run as: `python -P -m MODULE`."""

REST = 10.0
"""Seconds in which what was told to end may do so: processes and cgroups take a moment."""

_CGROUPS = {
    "rig": ("flota-rt-*", "flota-demo-*"),
    "kernel": ("flota", "flota-lab", "flota-test-*", "flota-rt-*"),
}
_ALL_CGROUPS = ("flota*", "docker")
"""By lane, and of all: names below each hierarchy's root, as patterns."""

_VOLATILE = re.compile(r" expires \d+sec| pref \w+")


_LISTINGS = {
    "link": ("ip", "-j", "link"),
    "route -4": ("ip", "-4", "route", "show", "table", "all"),
    "rule -4": ("ip", "-4", "rule"),
    "route -6": ("ip", "-6", "route", "show", "table", "all"),
    "rule -6": ("ip", "-6", "rule"),
    "neighbour": ("ip", "neigh", "show", "nud", "permanent"),
    "fdb": ("bridge", "fdb"),
    "nft": ("nft", "list", "tables"),
}


def _listed() -> Iterable[str]:
    """What programs tell of this network namespace. They run side by side: it is done twice for each test."""
    running = {
        kind: subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for kind, argv in _LISTINGS.items()
    }
    for kind, program in running.items():
        said, _ = program.communicate()
        if kind == "link":
            yield from (f"link {link['ifname']}" for link in json.loads(said or "[]"))
            continue
        for line in map(str.strip, said.splitlines()):
            yield f"{kind} {_VOLATILE.sub('', line) if kind.startswith('route') else line}"


def _namespaces() -> Iterable[str]:
    run = Path("/run/netns")
    if run.is_dir():
        yield from (f"netns {name}" for name in os.listdir(run))


def _mounts() -> Iterable[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == "/run/netns":
            continue  # iproute2's own folder, mounted at its first use on a machine, by whomever
        yield f"mount {fields[4]} {fields[fields.index('-') + 1]}"


def _cgroups(lane: str) -> Iterable[str]:
    root = Path("/sys/fs/cgroup")
    for hierarchy in (root, *(path for path in root.glob("*") if path.is_dir())):
        for pattern in _CGROUPS.get(lane, _ALL_CGROUPS):
            for base in hierarchy.glob(pattern):
                yield from (f"cgroup {path}" for path, _, _ in os.walk(base))


def _processes(tree: str) -> Iterable[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = [word.decode(errors="replace") for word in _strings(pid, "cmdline")[:4]]
            if any(_NEEDED.search(word) for word in words[:2]) or (
                _is_flota(words) and _of(tree, pid, words)
            ):
                yield f"process {pid} {' '.join(words)}"
        except OSError:
            continue  # it has just ended


def _strings(pid: str, file: str) -> list[bytes]:
    return Path(f"/proc/{pid}/{file}").read_bytes().split(b"\0")


def _of(tree: str, pid: str, words: list[str]) -> bool:
    return (
        words[0].startswith(f"{tree}/") or not tree or f"{TREE}={tree}".encode() in _strings(pid, "environ")
    )


def _is_flota(words: list[str]) -> bool:
    """Whether a command line is one of flota's programs, or of its rigs' machines."""
    if _MACHINES.search(words[0]):
        return True
    return any(_COMMAND.search(word) for word in words[:2]) or not _MODULES.isdisjoint(words[1:4])


def _loops() -> Iterable[str]:
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        yield f"loop {path}"


def _files(folders: Iterable[Path]) -> Iterable[str]:
    for folder in folders:
        for base, names, files in os.walk(folder):
            for entry in (*names, *files):
                yield f"file {os.path.join(base, entry)}"


def _switches() -> Iterable[str]:
    """Of the whole kernel, that a rig or an agent may set."""
    for path in ("net/core/rps_sock_flow_entries",):
        if (file := Path("/proc/sys") / path).exists():
            yield f"sysctl {path} {file.read_text().strip()}"


def take(folders: Iterable[Path] = (), *, tree: str | None = None) -> Census:
    """Everything there is now; `folders` are state folders whose files count too. `tree`: whose processes, if
    not those of FLOTA_TREE."""
    of = os.environ.get(TREE, "") if tree is None else tree
    lane = os.environ.get(LANE, "")
    machine = () if lane else (_loops(), _switches())
    sources = (_listed(), _namespaces(), _mounts(), _cgroups(lane), _processes(of), _files(folders), *machine)
    return frozenset(line for source in sources for line in source)


def difference(before: Census, after: Census) -> list[str]:
    """Lines that are new (`+`) or gone (`-`)."""
    return sorted(f"+ {line}" for line in after - before) + sorted(f"- {line}" for line in before - after)


def left_behind(before: Census, folders: Iterable[Path] = ()) -> list[str]:
    """What differs still, once all has come to rest."""
    found: list[str] = []

    def at_rest() -> bool:
        found[:] = difference(before, take(folders))
        return not found

    with suppress(AssertionError):
        wait_until(at_rest, deadline=REST, pause=0.05)
    return found


@contextmanager
def unchanged(folders: Iterable[Path] = ()) -> Iterator[None]:
    """What was done in it has left nothing behind. Says so only where nobody else makes namespaces and mounts
    meanwhile, which `deploy/test` sees to and claims by FLOTA_CENSUS=1."""
    if os.environ.get("FLOTA_CENSUS") != "1":
        yield
        return
    before = take(folders)
    yield
    if found := left_behind(before, folders):
        raise AssertionError("not as before:\n" + "\n".join(found))


def main(argv: list[str]) -> int:
    """`take` prints the census; `compare FILE` prints what differs from it, and fails if anything does."""
    if argv[:1] == ["take"]:
        print("\n".join(sorted(take())))
        return 0
    before = frozenset(Path(argv[1]).read_text().splitlines())
    found = left_behind(before)
    print("\n".join(found) or "census: nothing left behind")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
