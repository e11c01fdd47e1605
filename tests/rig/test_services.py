"""Names and addresses of services over three hosts: balanced, drained under load, alive without us."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import local_pid, replicas, wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
SERVE = "trap 'exit 0' TERM; echo page of $HOSTNAME > /www/index.html; httpd -f -p 80 -h /www & wait"
LOAD = """
import os, socket, sys
address, stop, done, failed = sys.argv[1], sys.argv[2], 0, []
while not os.path.exists(stop):
    try:
        with socket.create_connection((address, 80), timeout=3) as s:
            s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
            data = b''
            while chunk := s.recv(65536):
                data += chunk
        if b'200 OK' not in data:
            failed.append(f'answer {data[:40]!r}')
    except OSError as error:
        failed.append(f'{type(error).__name__}: {error}')
    done += 1
print('done', done, 'failed', len(failed), *failed[:5], flush=True)
"""


def serve(fleet: Fleet, *words: str, replicas: int = 3) -> None:
    fleet.flota("n1", "network", "create", "net1")
    fleet.flota("n1", "service", "create", "--name", "web", "--replicas", str(replicas), "--network", "net1",
                *words, IMAGE, "sh", "-c", SERVE)  # fmt: skip
    wait_replicas(fleet, "web", replicas)
    # Whoever asks must have a foot on the network, and every replica must answer.
    fleet.flota(
        "n1", "run", "-d", "--name", "asker", "--node", "n1", "--network", "net1", IMAGE, "sleep", "9999"
    )
    wait_until(lambda: len(pages(fleet, "web", 4 * replicas)) == replicas, deadline=15, what="every replica")


def pages(fleet: Fleet, name: str, count: int) -> set[str]:
    """What so many requests of the asker got."""
    ask = f"for i in $(seq {count}); do wget -qO- http://{name}/ || echo failed; done"
    return set(fleet.attempt("n1", "exec", "asker", "sh", "-c", ask).stdout.decode().splitlines())


def vip(fleet: Fleet) -> str:
    found = json.loads(fleet.flota("n1", "service", "inspect", "web"))[0]["service"]["vips"]
    return str(next(iter(found.values()))["ipv4"])


@contextmanager
def load(fleet: Fleet, target: str, stop: str) -> Iterator[subprocess.Popen[str]]:
    """Requests one after the other from the asker's network, until the file `stop` is there."""
    pid = local_pid(fleet, "n1", fleet.json("inspect", "asker")[0]["status"]["pid"])
    with subprocess.Popen(
        ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", LOAD, target, stop],
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        try:
            yield client
        finally:
            client.kill()


def test_a_services_name_leads_to_every_replica_wherever_it_runs(clean: Fleet) -> None:
    serve(clean)
    got = pages(clean, "web", 12)
    assert len(got) == 3 and all(page.startswith("page of ") for page in got)
    said = clean.flota("n1", "exec", "asker", "nslookup", "tasks.web")
    assert len(set(re.findall(r"Address: (10\.[\d.]+)$", said, re.M))) == 3
    told = clean.flota("n1", "exec", "asker", "nslookup", "web")
    assert vip(clean) in told
    slot = replicas(clean, "web")[0]["instance"]
    assert pages(clean, f"web.{slot['slot']}", 1) == {f"page of {slot['id'][:12]}"}


def test_replicas_that_leave_under_load_fail_no_request(
    clean: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    serve(clean, replicas=6)
    stop = str(tmp_path_factory.mktemp("load") / "stop")
    with load(clean, vip(clean), stop) as client:
        clean.flota("n1", "service", "scale", "web=2")
        wait_until(
            lambda: len(clean.json("service", "ps", "web")) == 2, deadline=60, what="four replicas to go"
        )
        open(stop, "x").close()
        said = client.communicate(timeout=20)[0]
    done, failed = map(int, re.findall(r"(?:done|failed) (\d+)", said)[:2])
    assert failed == 0 and done > 200, said


def test_names_and_addresses_go_on_without_agents_and_controller(clean: Fleet) -> None:
    serve(clean)
    pid = local_pid(clean, "n1", clean.json("inspect", "asker")[0]["status"]["pid"])
    for host in ("n1", "n2", "n3"):
        os.kill(clean.pid(host, "agent"), signal.SIGKILL)
    os.kill(clean.pid("n1", "controller"), signal.SIGKILL)
    try:
        enter = ["nsenter", "-t", str(pid), "--net", "--mount", f"--root=/proc/{pid}/root"]
        ask = "for i in $(seq 12); do wget -qO- http://web/ || echo failed; done"
        done = subprocess.run(
            [*enter, "/bin/sh", "-c", ask], capture_output=True, text=True, timeout=30, check=False
        )
        assert len(set(done.stdout.splitlines())) == 3 and "failed" not in done.stdout, done
    finally:
        clean.flota("n1", "controller", "--detach")
        for host in ("n1", "n2", "n3"):
            clean.flota(host, "agent", "--detach")
    clean.wait_ready(3)
    assert len(pages(clean, "web", 12)) == 3
