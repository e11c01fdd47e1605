"""RUN on a fleet: its networks, mounts and limits by the flags of `flota build`; a shell where it failed."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
HTTPD = "mkdir -p /www && echo page of web > /www/index.html && exec busybox httpd -f -p 80 -h /www"


def build(fleet: Fleet, folder: Path, text: str, *words: str, stdin: bytes | None = None) -> str:
    """What it says, of a build on n2 that succeeds."""
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\n{text}\n")
    done = fleet.rig.exec(
        "n1",
        [fleet._program, "build", "--host", "n2", "--progress", "plain", *words, str(folder)],
        timeout=60,
        stdin=stdin,
        check=False,
    )
    said = done.stderr.decode()
    assert done.returncode == 0, said
    return said


@pytest.fixture
def page(clean: Fleet, tmp_path: Path) -> Iterator[str]:
    """A web server on n1, beyond n2's containers' bridge."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/page").write_text("from outside\n")
    words = ["busybox", "httpd", "-f", "-p", "8089", "-h", str(tmp_path / "site")]
    process = clean.rig.spawn("n1", words, log=str(tmp_path / "log"))
    url = f"http://{clean.rig.hosts[0].address}:8089/page"
    wait_until(
        lambda: clean.rig.exec("n1", ["busybox", "wget", "-qO-", url], check=False).returncode == 0,
        deadline=10,
        what="httpd",
    )
    yield url
    process.kill()
    process.wait(10)


def test_run_reaches_the_outside_unless_it_is_told_not_to(clean: Fleet, page: str, tmp_path: Path) -> None:
    text = (
        f"RUN wget -qO- {page}\n"
        f"RUN --network=none wget -qO- -T 2 {page} || echo kept in; ip -o link | wc -l | sed s/^/links=/"
    )
    said = build(clean, tmp_path, text)
    assert "from outside" in said and "kept in" in said and "links=1" in said


def test_run_on_a_network_of_the_fleet_knows_its_services(clean: Fleet, tmp_path: Path) -> None:
    clean.flota("n1", "network", "create", "back")
    words = ("service", "create", "--name", "web", "--mode", "global", "--network", "back", IMAGE)
    clean.flota("n1", *words, "sh", "-c", HTTPD)
    wait_replicas(clean, "web", 3)
    said = build(
        clean, tmp_path, "RUN until wget -qO- http://web/; do usleep 100000; done", "--network", "back"
    )
    assert "page of web" in said
    doctor = clean.attempt("n1", "network", "doctor")
    assert b"containers that are gone" not in doctor.stdout + doctor.stderr  # its address was given back


def test_network_that_the_host_does_not_carry_is_refused_in_words(clean: Fleet, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN true\n")
    done = clean.attempt("n1", "build", "--host", "n2", "--network", "nowhere", str(tmp_path))
    assert done.returncode == 1 and b"network 'nowhere' is not on this host" in done.stderr


def test_secrets_agents_and_caches_are_what_the_flags_say(clean: Fleet, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary-91\n")
    (tmp_path / "context").mkdir()
    text = (
        "RUN --mount=type=secret,id=key cat /run/secrets/key | md5sum\n"
        "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo an agent\n"
        "RUN --mount=type=cache,target=/cache echo x >> /cache/log; wc -l < /cache/log | sed s/^/lines=/"
    )
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        flags = ("--secret", f"id=key,src={tmp_path}/key", "--ssh", f"default={tmp_path}/agent")
        first = build(clean, tmp_path / "context", text, *flags, "--no-cache")
        second = build(clean, tmp_path / "context", text, *flags, "--no-cache")
    assert "an agent" in first and "canary" not in first + second
    assert "lines=1" in first and "lines=2" in second
    kept = [e for host in clean.json("builder", "du", "--node", "n2") for e in _entries(host)]
    assert [e["source"] for e in kept if e.get("kind") == "mount"] == ["/cache"]
    clean.flota("n1", "builder", "prune", "--all", "--force", "--node", "n2")
    third = build(clean, tmp_path / "context", text.splitlines()[-1])
    assert "lines=1" in third


def _entries(row: dict[str, object]) -> list[dict[str, object]]:
    found = row.get("entries", [row])
    assert isinstance(found, list)
    return found


def test_limits_and_hosts_of_the_flags_are_felt(clean: Fleet, tmp_path: Path) -> None:
    text = "RUN ulimit -n; grep db /etc/hosts; df -k /dev/shm | tail -1"
    flags = ("--ulimit", "nofile=77", "--add-host", "db:10.1.2.3", "--shm-size", "8m")
    said = build(clean, tmp_path, text, *flags)
    assert "77" in said and "10.1.2.3\tdb" in said and "8192" in said
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN tail /dev/zero\n")
    done = clean.attempt("n1", "build", "--host", "n2", "--memory", "16m", str(tmp_path))
    assert done.returncode == 1 and b"out of memory" in done.stderr


def test_shell_stands_where_a_step_failed(clean: Fleet, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo half > /left; exit 6\n")
    words = [clean._program, "build", "--host", "n2", "--on-failure", "shell", str(tmp_path)]
    done = clean.rig.exec("n1", words, stdin=b"cat /left | tr a-z A-Z; exit\n", timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and b"HALF" in said and b"exit code 6" in said


def left(fleet: Fleet, host: str) -> list[str]:
    """Of steps, on a host whose agent may not run: processes, bundles, namespaces, mounts of secrets."""
    run = fleet.rig.run_folder(host) / "agent"
    listed = f"ls {run}/build {run}/runc {run}/ns 2>/dev/null; grep -o '{run}/build[^ ]*' /proc/mounts"
    found = fleet.rig.exec(host, ["sh", "-c", listed], check=False).stdout.decode().split()
    sleeping = fleet.rig.exec(host, ["pgrep", "-f", "sleep 300.5"], check=False).stdout.decode().split()
    return [line for line in found if not line.endswith(":")] + sleeping


def test_agent_that_is_told_to_end_takes_its_steps_with_it(clean: Fleet, tmp_path: Path) -> None:
    before = left(clean, "n3")
    (tmp_path / "key").write_text("k")
    (tmp_path / "context").mkdir()
    text = f"FROM {IMAGE}\nRUN --mount=type=secret,id=key echo begun; sleep 300.5\n"
    (tmp_path / "context/Dockerfile").write_text(text)
    log = tmp_path / "log"
    words = [clean._program, "build", "--host", "n3", "--secret", f"id=key,src={tmp_path}/key"]
    process = clean.rig.spawn("n1", [*words, str(tmp_path / "context")], log=str(log))
    wait_until(lambda: b"begun\n" in log.read_bytes().split(b"echo begun")[-1], deadline=30, what="begun")
    assert len(left(clean, "n3")) > len(before)
    os.kill(clean.pid("n3", "agent"), signal.SIGTERM)
    assert process.wait(40) == 1
    wait_until(lambda: left(clean, "n3") == before, deadline=20, what="nothing of the step")
    clean.flota("n3", "agent", "--detach")
    clean.wait_ready(3)
