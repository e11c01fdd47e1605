"""A fleet that moves to the next release while it serves: units restarted in turn, containers left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.rig.programs import checked
from deploy.vmfleet import VmFleet
from tests.provision import releasetrees
from tests.support.waiting import wait_until
from tests.vm.conftest import HOSTS
from tests.vm.support import IMAGE, PATIENCE, on, replicas, wait_replicas, wait_states

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1800)]
SERVE = "trap 'exit 0' TERM; echo page > /www/index.html; httpd -f -p 80 -h /www & wait"
NEXT = "9.9.9"
ASK = """
import http.client, os, sys, time
failed = done = 0
while not os.path.exists(sys.argv[1]):
    for address in sys.argv[2:]:
        try:
            asked = http.client.HTTPConnection(address, 80, timeout=20)
            asked.request("GET", "/")
            failed += asked.getresponse().status != 200
        except OSError:
            failed += 1
        done += 1
    time.sleep(0.2)
print(done, failed)
"""


def test_rolling_upgrade_under_load_fails_no_request_and_keeps_every_process(
    fleet: VmFleet, tmp_path: Path
) -> None:
    words = ("--name", "web", "--mode", "global", "-p", "80:80")
    fleet.ask("service", "create", *words, IMAGE, "sh", "-c", SERVE)
    before = {one["status"]["pid"] for one in wait_replicas(fleet, "web", 3)}
    tree = releasetrees.copy(tmp_path, NEXT)
    fleet.bundle(tree)
    # On a guest, beside its agent: the load too is to outlive what happens to it.
    addresses = " ".join(host.address for host in fleet.rig.hosts)
    on(fleet.rig, "n1", f"cat >/root/ask.py <<'END'\n{ASK}\nEND")
    on(
        fleet.rig,
        "n1",
        f"systemd-run -q --unit ask sh -c 'python3 /root/ask.py /root/stop {addresses} >/root/said'",
    )
    checked(fleet.operator("host", "upgrade", "--all", tree=tree, timeout=1200))
    wait_states(fleet, **dict.fromkeys(HOSTS, "ready"))
    on(fleet.rig, "n1", "touch /root/stop")
    said = wait_until(
        lambda: on(fleet.rig, "n1", "cat /root/said").split(), deadline=PATIENCE, what="the load", pause=1
    )
    assert int(said[0]) > 10 and said[1] == "0"
    assert {one["status"]["pid"] for one in replicas(fleet, "web")} == before
    for host in HOSTS:
        assert on(fleet.rig, host, "basename $(readlink /opt/flota/current)").startswith(f"{NEXT}-")
