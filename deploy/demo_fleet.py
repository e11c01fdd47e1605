"""The demo: three hosts on this machine, a replicated web service over VXLAN, a published port; and its end.

Everything is done by the commands that a user would type, and each is printed before it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.fleet import FLOTA, Fleet
from deploy.rig.netns import NetnsRig

HOSTS = 3
IMAGE = "web:1"
PORT = 8080
EXAMPLE = str(Path(__file__).parent / "examples/web")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Demo:
    def __init__(self) -> None:
        rig = NetnsRig("demo", disk=Path("/var/lib/flota-demo"), run=Path("/run/flota-demo"), reachable=True)
        self.fleet = Fleet(rig)

    def flota(self, *words: str, stdin: bytes | None = None, quiet: bool = False) -> str:
        """Show a command as the user would type it, run it on n1, show what it says."""
        say(f"\n$ flota {shlex.join(words)}")
        text = self.fleet.flota("n1", *words, stdin=stdin, timeout=120)
        if not quiet:
            say(text.rstrip())
        return text

    def up(self) -> None:
        if self.fleet.rig.hosts:
            raise SystemExit("the demo runs already; end it with: sudo deploy/demo --down")
        began = time.monotonic()
        say(f"starting {HOSTS} hosts on this machine (namespaces), a controller on n1 and an agent on each …")
        self.fleet.start(HOSTS)
        self.flota("node", "ls")
        self.flota("build", "--build-context", "bin=/bin", "-t", IMAGE, EXAMPLE, quiet=True)
        self.flota("network", "create", "demo", quiet=True)
        service = ("--name", "web", "--replicas", str(HOSTS), "--network", "demo", "-p", f"{PORT}:80")
        self.flota("service", "create", *service, IMAGE, quiet=True)
        replicas = self.wait_running("web", HOSTS)
        self.flota("service", "ps", "web")
        self.across_hosts(replicas)
        self.from_outside()
        say(f"\nall of this took {time.monotonic() - began:.0f} s")
        self.next_steps()

    def wait_running(self, service: str, count: int, deadline: float = 60) -> list[dict[str, Any]]:
        end = time.monotonic() + deadline
        while True:
            rows = self.fleet.json("service", "ps", service)
            running = [r for r in rows if r["status"]["phase"] == "running"]
            if len(running) == count:
                return running
            if time.monotonic() > end:
                raise RuntimeError(f"{len(running)} of {count} replicas run: {rows}")
            time.sleep(0.1)

    def across_hosts(self, replicas: Sequence[dict[str, Any]]) -> None:
        """Each replica's page, fetched by a container on another host; the VXLAN counters show the way."""
        hosts = sorted(r["host_name"] for r in replicas)
        if len(set(hosts)) != HOSTS:
            raise RuntimeError(f"replicas are on {hosts}, not on {HOSTS} hosts")
        before = self.vxlan_packets()
        for replica in replicas:
            other = next(h for h in hosts if h != replica["host_name"])
            address = replica["status"]["endpoints"][0]["ipv4"]
            words = ("run", "--rm", "--node", other, "--network", "demo", IMAGE)
            page = self.flota(*words, "wget", "-qO-", f"http://{address}/")
            if not page.startswith("hello from "):
                raise RuntimeError(f"replica at {address} answered {page!r}")
        after = self.vxlan_packets()
        say("\npackets through each host's VXLAN device meanwhile:")
        for host in hosts:
            say(f"  {host}: {after[host][0] - before[host][0]} in, {after[host][1] - before[host][1]} out")
            if after[host] <= before[host]:
                raise RuntimeError(f"no packet crossed the VXLAN device of {host}")

    def vxlan_packets(self) -> dict[str, tuple[int, int]]:
        counters = {}
        for host in self.fleet.rig.hosts:
            text = self.fleet.rig.exec(host.name, ["ip", "-s", "-j", "link", "show", "type", "vxlan"]).stdout
            stats = [link["stats64"] for link in json.loads(text)]
            received = sum(s["rx"]["packets"] for s in stats)
            counters[host.name] = (received, sum(s["tx"]["packets"] for s in stats))
        return counters

    def from_outside(self) -> None:
        for host in self.fleet.rig.hosts:
            url = f"http://{host.address}:{PORT}/"
            say(f"\n$ curl {url}      # from this machine, outside the fleet")
            with urllib.request.urlopen(url, timeout=10) as reply:
                say(reply.read().decode().rstrip())

    def next_steps(self) -> None:
        socket = self.fleet.socket()
        say(f"""
The fleet is yours to try:

  export FLOTA_HOST=unix://{socket} PATH=$PATH:{Path(FLOTA).parent}
  flota node ls
  flota service scale web=5 && flota service ps web
  flota run -it --rm --network demo {IMAGE} sh
  flota logs -f web.1
  flota exec -it web.1 sh
  flota stats --no-stream
  flota why web
  sudo deploy/demo --down          # and it is all gone
""")

    def down(self) -> None:
        if not self.fleet.rig.hosts:
            say("no demo runs here")
        self.fleet.stop()
        say("the demo is gone: hosts, links, mounts, cgroups, files")


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/demo", description=__doc__)
    parser.add_argument("--down", action="store_true", help="end the demo and remove all that it made")
    options = parser.parse_args()
    demo = Demo()
    try:
        demo.down() if options.down else demo.up()
    except RuntimeError as error:
        sys.stderr.write(f"demo: {error}\nEnd what was started with: sudo deploy/demo --down\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
