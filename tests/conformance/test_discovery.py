"""Prometheus finds the fleet's containers by its Docker socket."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from tests.conformance.conftest import FIRST, Ground
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]
PORT = 9090
_CONFIG = """\
scrape_configs:
- job_name: fleet
  docker_sd_configs:
  - host: unix:///run/docker.sock
    refresh_interval: 1s
"""


def run(ground: Ground, *words: str) -> None:
    done = ground.run(words, cwd=ground.folder, timeout=60)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"


def test_prometheus_finds_every_container_of_three_hosts(three: Ground) -> None:
    """On a network of the fleet: the default ones give each host the same addresses, and Prometheus takes
    targets of one address for one."""
    nodes = ("n1", "n2", "n3")
    run(three, "docker", "network", "create", "-d", "overlay", "watched")
    for node in nodes:
        where = ("--label", f"flota.node={node}", "--network", "watched", "--expose", "80")
        run(three, "docker", "run", "-d", "--name", f"found-{node}", *where, "alpine:latest", "sleep", "1000")
    config = three.folder / "prometheus.yml"
    config.write_text(_CONFIG)
    run(three, "promtool", "check", "config", str(config))
    words = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={three.folder / 'prometheus'}"]
    words.append(f"--web.listen-address=127.0.0.1:{PORT}")
    log = three.folder / "prometheus.log"
    served = three.fleet.rig.spawn(FIRST, words, log=str(log))

    def found() -> bool:
        asked = f"http://127.0.0.1:{PORT}/api/v1/targets?" + urllib.parse.urlencode({"state": "active"})
        done = three.run(["curl", "-s", "-m", "5", asked], cwd=three.folder, timeout=30)
        if done.returncode != 0 or not done.stdout.startswith("{"):
            return False
        targets = json.loads(done.stdout)["data"]["activeTargets"]
        names = {one["discoveredLabels"].get("__meta_docker_container_name") for one in targets}
        return {f"/found-{node}" for node in nodes} <= names

    try:
        wait_until(found, deadline=60, pause=0.5, what=f"every container among the targets ({log})")
    finally:
        served.terminate()
        served.wait(30)
        run(three, "docker", "rm", "-f", *(f"found-{node}" for node in nodes))
        run(three, "docker", "network", "rm", "watched")
