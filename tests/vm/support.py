"""What tests on virtual machines do and look for. Times are those of guests that are emulated: tens of times
a machine's own."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from deploy.rig.base import KeepingRig
from deploy.vmfleet import VmFleet
from tests.support.waiting import wait_until

IMAGE = "box:1"
PATIENCE = 180.0
"""Seconds that what is right has at most, on a busy machine."""


def looked(fleet: VmFleet, *words: str) -> list[dict[str, Any]]:
    """A command's `--format json` lines; none while nobody answers."""
    done = fleet.operator(*words, "--format", "json")
    if done.returncode:
        return []
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def states(fleet: VmFleet) -> dict[str, str]:
    return {node["host"]["spec"]["name"]: node["state"] for node in looked(fleet, "node", "ls")}


def wait_states(fleet: VmFleet, deadline: float = PATIENCE, **wanted: str) -> None:
    wait_until(
        lambda: wanted.items() <= states(fleet).items(), deadline=deadline, what=f"hosts {wanted}", pause=0.5
    )


def container(fleet: VmFleet, name: str, host: str, *words: str, command: tuple[str, ...] = ()) -> str:
    """Its id."""
    told = command or ("sleep", "100000")
    return fleet.ask(
        "run", "-d", "--name", name, "--node", host, "--stop-signal", "KILL", *words, IMAGE, *told,
    ).strip()  # fmt: skip


def status(fleet: VmFleet, name: str) -> dict[str, Any]:
    found = looked(fleet, "inspect", name)
    return found[0]["status"] if found else {}


def ipv4(fleet: VmFleet, name: str) -> str:
    return str(status(fleet, name)["endpoints"][0]["ipv4"])


def inside(fleet: VmFleet, name: str, script: str, timeout: float = PATIENCE) -> str:
    """What a shell script says that runs in a container."""
    return fleet.ask("exec", name, "sh", "-c", script, timeout=timeout)


def replicas(fleet: VmFleet, service: str) -> list[dict[str, Any]]:
    found = looked(fleet, "service", "ps", service)
    return [one for one in found if one["status"]["phase"] == "running"]


def wait_replicas(
    fleet: VmFleet, service: str, count: int, *, but: str = "", deadline: float = PATIENCE
) -> list[dict[str, Any]]:
    """So many that run, none of them on the host `but`."""

    def found() -> list[dict[str, Any]] | None:
        running = [one for one in replicas(fleet, service) if one["host_name"] != but]
        return running if len(running) == count else None

    return wait_until(found, deadline=deadline, what=f"{count} of {service}", pause=0.5)


def on(rig: KeepingRig, host: str, script: str, timeout: float = PATIENCE) -> str:
    """What a shell script says on a guest."""
    return rig.exec(host, ["sh", "-ec", script], timeout=timeout).stdout.decode()


def tried(rig: KeepingRig, host: str, script: str) -> subprocess.CompletedProcess[bytes]:
    return rig.exec(host, ["sh", "-ec", script], check=False, timeout=PATIENCE)


def boot_id(rig: KeepingRig, host: str) -> str:
    return tried(rig, host, "cat /proc/sys/kernel/random/boot_id").stdout.decode().strip()


def reboot(rig: KeepingRig, host: str) -> None:
    """As an administrator does it; returns once the guest is back."""
    before = boot_id(rig, host)
    assert before
    rig.exec(host, ["systemctl", "reboot"], check=False, timeout=PATIENCE)
    wait_until(
        lambda: boot_id(rig, host) not in ("", before), deadline=PATIENCE * 2, what=f"{host} again", pause=1
    )
