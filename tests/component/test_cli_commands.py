"""The `flota` command as a process against a fleet in memory: output, exit codes, errors in one line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servedfleet import ServedFleet, served
from tests.support.waiting import wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


def running(fleet: ServedFleet, name: str) -> None:
    wait_until(lambda: fleet.json("inspect", name)[0]["status"].get("phase") == "running", deadline=10)


def test_foreground_run_gives_output_and_exit_code(fleet: ServedFleet) -> None:
    done = fleet.flota("run", "--rm", "box:1", "sh", "-c", "echo out; err oops; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"oops\n")
    assert fleet.json("ps", "-a") == []


def test_detached_run_prints_the_id_and_writes_the_cidfile(fleet: ServedFleet, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    ident = fleet.ok("run", "-d", "--name", "web", "--cidfile", str(file), "box:1", "sleep", "9").strip()
    assert len(ident) == 64 and file.read_text() == ident
    assert fleet.flota("run", "-d", "--cidfile", str(file), "box:1", "sleep").returncode == 125
    assert [i["instance"]["name"] for i in fleet.json("ps")] == ["web"]
    assert fleet.ok("stop", "-t", "1", "web") == "web\n"
    assert fleet.fleet.stops[-1].grace == 1.0
    assert fleet.ok("wait", "web") == "143\n"
    assert fleet.ok("start", "web") == "web\n"
    assert fleet.ok("rm", "-f", "web") == "web\n"
    assert fleet.ok("ps", "-aq") == ""


def test_input_reaches_the_container_and_comes_back_whole(fleet: ServedFleet) -> None:
    sent = os.urandom(1 << 20) * 8
    done = fleet.flota("run", "-i", "--rm", "box:1", "cat", stdin=sent)
    assert done.returncode == 0 and done.stdout == sent


def test_input_from_a_plain_file_is_sent_too(fleet: ServedFleet, tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(b"line\n" * 200_000)
    with file.open("rb") as source:
        done = subprocess.run(
            fleet.command("run", "-i", "--rm", "box:1", "cat"), stdin=source, capture_output=True,
            timeout=30, check=False, env=fleet.environment(),
        )  # fmt: skip
    assert done.returncode == 0 and done.stdout == file.read_bytes()


def test_signal_to_the_command_reaches_the_container(fleet: ServedFleet) -> None:
    with subprocess.Popen(fleet.command("run", "--name", "web", "box:1", "sleep"), env=fleet.environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        wait_until(
            lambda: fleet.json("ps") and fleet.json("ps")[0]["status"].get("phase") == "running", deadline=10
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
        assert process.stderr is not None and process.stderr.read() == b""


@pytest.mark.parametrize("flags", [("--rm",), ()])
def test_interrupt_before_the_start_leaves_no_container(fleet: ServedFleet, flags: tuple[str, ...]) -> None:
    async def never(ref: str, *, stdin: bool, logs: bool, attempt: int = 0) -> Any:
        await asyncio.Event().wait()

    for host in fleet.fleet.hosts.values():
        host.attach = never  # type: ignore[method-assign]
    with subprocess.Popen(fleet.command("run", *flags, "box:1", "sleep"), env=fleet.environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        wait_until(lambda: fleet.json("ps", "-a"), deadline=10)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None and process.stderr.read() == b""
    assert fleet.json("ps", "-a") == []


def test_exec_gives_output_and_exit_code(fleet: ServedFleet) -> None:
    fleet.ok("run", "-d", "--name", "web", "box:1", "sleep")
    done = fleet.flota("exec", "-e", "A=b", "-w", "/tmp", "-u", "1", "web", "sh", "-c", "echo hi; exit 3")
    assert (done.returncode, done.stdout) == (3, b"hi\n")
    spec = next(e for h in fleet.fleet.hosts.values() for e in h.execs)
    assert (dict(spec.env), spec.workdir, spec.user) == ({"A": "b"}, "/tmp", "1")
    assert fleet.flota("exec", "-i", "web", "cat", stdin=b"abc").stdout == b"abc"


def test_attach_and_start_attached_show_the_output(fleet: ServedFleet) -> None:
    fleet.ok("create", "--name", "job", "box:1", "sh", "-c", "echo done; exit 4")
    done = fleet.flota("start", "-a", "job")
    assert (done.returncode, done.stdout) == (4, b"done\n")
    fleet.ok("run", "-d", "-i", "--name", "echo", "box:1", "cat")
    assert fleet.flota("attach", "echo", stdin=b"hello").stdout == b"hello"


def test_logs_go_to_their_streams(fleet: ServedFleet) -> None:
    fleet.ok("run", "-d", "--name", "web", "box:1", "sh", "-c", "echo out; err oops")
    wait_until(lambda: fleet.flota("logs", "web").stdout == b"out\n", deadline=10)
    assert fleet.flota("logs", "web").stderr == b"oops\n"
    assert fleet.flota("logs", "-f", "--tail", "1", "web").stdout == b""
    assert fleet.flota("logs", "-t", "web").stdout == b"2026-01-01T00:00:00.000000000Z out\n"


def test_tables_lists_and_templates(fleet: ServedFleet) -> None:
    ident = fleet.ok("run", "-d", "--name", "web", "-l", "a=b", "box:1", "sleep", "99").strip()
    running(fleet, "web")
    head, row = fleet.ok("ps").splitlines()
    assert head.split("  ")[0] == "CONTAINER ID" and head.rstrip().endswith("NODE")
    assert row.startswith(ident[:12]) and "Up" in row and row.endswith("n1")
    assert fleet.ok("ps", "-q", "--no-trunc") == f"{ident}\n"
    assert fleet.ok("ps", "--format", "{{.ID}} {{.Names}} {{.Image}}") == f"{ident[:12]} web box:1\n"
    assert fleet.ok("ps", "--format", "table {{.Names}}\t{{.Node}}") == "NAMES\tNODE\nweb\tn1\n"
    assert (
        fleet.ok("inspect", "-f", "{{.status.pid}} {{json .instance.spec.labels}}", "web")
        == '4242 {"a":"b"}\n'
    )
    assert fleet.ok("ps", "-f", "label=a=c").split() == head.split()
    assert "n1" in fleet.ok("node", "ls") and "box" in fleet.ok("images")
    assert "least loaded" in fleet.ok("why", "web")
    assert fleet.ok("top", "web").split() == ["PID", "CMD", "4242", "sleep"]


def test_json_has_every_field_also_those_at_their_defaults(fleet: ServedFleet) -> None:
    fleet.ok("create", "--name", "new", "box:1", "sleep")
    shown = fleet.json("ps", "-a")[0]
    assert (shown["status"]["pid"], shown["status"]["oom_killed"], shown["host_name"]) == (0, False, "n1")
    assert json.loads(fleet.ok("inspect", "new"))[0]["instance"]["service"] is None
    assert fleet.ok("inspect", "-f", "{{.status.exit_code}} {{.status.message}}", "new") == "null \n"
    assert fleet.json("node", "ls")[0]["host"]["spec"]["availability"] == "active"


def test_services_networks_volumes_tokens_and_nodes(fleet: ServedFleet) -> None:
    fleet.ok("service", "create", "--name", "web", "--replicas", "2", "--publish",
             "mode=host,published=8080,target=80", "-e", "A=1", "box:1", "sleep")  # fmt: skip
    assert [r["host_name"] for r in fleet.json("service", "ps", "web")] == ["n2", "n1"]
    assert "2/2" in fleet.ok("service", "ls")
    for wrong in ("web=x", "web", "=3"):
        assert fleet.flota("service", "scale", "web=4", wrong).returncode in (1, 2)
    assert fleet.json("service", "ls")[0]["wanted"] == 2
    fleet.ok("service", "scale", "web=5")
    assert fleet.json("service", "ls")[0]["wanted"] == 5
    fleet.ok("service", "update", "--image", "box:2", "--env-add", "B=2", "web")
    spec = fleet.json("service", "ls")[0]["service"]["spec"]["container"]
    assert spec["image"] == "box:2" and spec["env"] == {"A": "1", "B": "2"}
    fleet.ok("network", "create", "--subnet", "10.9.0.0/24", "--opt", "mode=bridged", "back")
    assert fleet.json("network", "ls")[0]["network"]["spec"]["options"] == {"mode": "bridged"}
    fleet.ok("network", "rm", "back")
    assert fleet.ok("volume", "create", "data") == "data\n"
    assert [v["host"] for v in fleet.json("volume", "ls")] == ["n1", "n2", "n3"]
    fleet.ok("volume", "rm", "data")
    assert fleet.ok("token", "create", "-q") == "flota-1-a-b\n"
    fleet.ok("node", "update", "--availability", "drain", "--label-add", "zone=a", "n3")
    assert fleet.json("node", "ls")[2]["host"]["spec"]["labels"] == {"zone": "a"}
    assert fleet.ok("service", "rollback", "web") == "web\n"
    assert fleet.json("service", "ls")[0]["service"]["spec"]["container"]["image"] == "box:1"
    assert fleet.ok("service", "update", "--rollback", "web") == "web\n"
    assert fleet.json("service", "ls")[0]["service"]["spec"]["container"]["image"] == "box:2"
    for more in (("--image", "box:3"), ("--update-parallelism", "0"), ("--force",)):
        refused = fleet.flota("service", "update", "--rollback", *more, "web")
        assert refused.returncode == 1 and b"--rollback changes nothing else" in refused.stderr
    fleet.ok("service", "update", "--health-cmd", "true", "--rollback-order", "start-first", "web")
    changed = fleet.json("service", "ls")[0]["service"]["spec"]
    assert changed["container"]["health"]["probe"] == {"type": "shell", "command": "true"}
    assert changed["rollback"]["order"] == "start-first"
    fleet.ok("service", "rm", "web")
    assert fleet.json("service", "ls") == []


def test_images_are_loaded_pulled_tagged_and_removed(fleet: ServedFleet, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"tar" * 100_000)
    assert "loaded:1" in fleet.ok("load", "-i", str(archive))
    assert [h.uploads for h in fleet.fleet.hosts.values()] == [[archive.read_bytes()]] * 3
    fleet.ok("import", "--node", "n2", "-c", 'CMD ["sh"]', "-", "root:1", stdin=b"root")
    assert fleet.fleet.hosts[fleet.fleet.locate_host("n2")].uploads[1] == b"root"
    fleet.ok("pull", "-q", "library/alpine:3")
    fleet.ok("tag", "library/alpine:3", "mine:1")
    assert fleet.ok("images", "-f", "reference=mine").count("n1,n2,n3") == 1
    assert "Deleted: sha256:" in fleet.ok("rmi", "mine:1")
    assert fleet.flota("rmi", "mine:1").returncode == 1
    done = fleet.flota("pull", "missing:1")
    assert done.returncode == 1 and b"no such image: missing:1" in done.stderr


def test_hosts_that_do_not_answer_are_named(fleet: ServedFleet) -> None:
    hosts = fleet.fleet.hosts
    fleet.fleet.ready_hosts = lambda: [(i, h.name) for i, h in hosts.items()]  # type: ignore[method-assign]
    fleet.fleet.silent.add(list(hosts)[2])
    done = fleet.flota("images")
    assert done.returncode == 0 and b"n1,n2" in done.stdout
    assert done.stderr == b"flota: not complete: n3: host n3 does not answer\n"


def test_dockers_long_forms_are_the_same_commands(fleet: ServedFleet) -> None:
    done = fleet.flota("container", "run", "--rm", "box:1", "sh", "-c", "echo hi; exit 3")
    assert (done.returncode, done.stdout) == (3, b"hi\n")
    assert fleet.flota("container", "run", "--bogus").returncode == 125
    fleet.ok("container", "create", "--name", "web", "box:1", "sleep")
    assert fleet.ok("container", "inspect", "-f", "{{.instance.name}}", "web") == "web\n"
    assert fleet.ok("container", "prune", "-f").strip() and fleet.ok("container", "ls", "-aq") == ""
    assert "box" in fleet.ok("image", "ls")


def test_shells_complete_commands_and_flags(fleet: ServedFleet) -> None:
    def complete(*words: str) -> list[str]:
        env = {
            "_FLOTA_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run([sys.executable, "-m", "cli.main"], capture_output=True, timeout=30, check=True,
                              env=fleet.environment(**env))  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.decode().splitlines()]

    assert complete("flota", "ser") == ["service"]
    assert "--network" in complete("flota", "run", "--net")
    for shell in ("bash", "zsh", "fish"):
        assert "_FLOTA_COMPLETE" in fleet.ok("completion", shell)


def test_stats_once_shows_all_containers_of_all_hosts(fleet: ServedFleet) -> None:
    for name in ("a", "b"):
        fleet.ok("run", "-d", "--name", name, "box:1", "sleep")
    shown = fleet.ok("stats", "--no-stream")
    assert [line.split()[1] for line in shown.splitlines()[1:]] == ["a", "b"]
    assert [s["name"] for s in fleet.json("stats", "--no-stream", "b")] == ["b"]


def test_events_end_with_the_reader_and_say_nothing(fleet: ServedFleet) -> None:
    with subprocess.Popen(fleet.command("events"), env=fleet.environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        assert b"container create aaaaaaaaaaaa web" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("run", "--bogus", "box:1"), 125, "--bogus"),
        (("run",), 125, "IMAGE"),
        (("run", "box:1", "nosuch"), 127, "nosuch"),
        (("run", "-d", "box:1", "nosuch"), 127, "nosuch"),
        (("run", "--memory", "1Q", "box:1"), 125, "1Q"),
        (("run", "-p", "99999:80", "box:1"), 125, "99999"),
        (("run", "-v", "data:relative", "box:1"), 125, "relative"),
        (("run", "--node", "n9", "box:1"), 125, "n9"),
        (("run", "--name", "bad name", "box:1"), 125, "bad name"),
        (("run", "--env-file", "/nosuch/file", "box:1"), 125, "/nosuch/file"),
        (("run", "-it", "box:1", "sleep"), 125, "not a terminal"),
        (("exec", "nosuch", "sh"), 125, "nosuch"),
        (("inspect", "nosuch"), 1, "nosuch"),
        (("rm", "nosuch"), 1, "nosuch"),
        (("logs", "nosuch"), 1, "nosuch"),
        (("logs", "--tail", "abc", "nosuch"), 2, "abc"),
        (("nosuchcommand",), 2, "nosuchcommand"),
        (("ps", "--filter", "colour=red"), 1, "colour"),
        (("ps", "--format", "{{.Nope}}"), 0, ""),
        (("service", "create", "--replicas", "-1", "box:1"), 1, "-1"),
        (("service", "scale", "web"), 2, "web"),
        (("network", "create", "--subnet", "10.0.0.1/33", "bad"), 1, "10.0.0.1/33"),
        (("pull", ""), 1, ""),
        (("stop", "-t", "soon", "x"), 1, "soon"),
    ],
)
def test_bad_input_is_one_clear_line_with_the_right_code(
    fleet: ServedFleet, words: tuple[str, ...], code: int, says: str
) -> None:
    done = fleet.flota(*words)
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert says in text and "Traceback" not in text and len(text.splitlines()) <= 3
    assert code == 0 or text.startswith("flota: ")


def test_argument_that_is_not_utf8_is_refused_in_words(fleet: ServedFleet) -> None:
    done = subprocess.run([w.encode() for w in fleet.command("rm")] + [b"\xff\xfe"], capture_output=True,
                          timeout=30, check=False, env=fleet.environment())  # fmt: skip
    assert done.returncode == 1 and b"Traceback" not in done.stderr


def test_ambiguous_prefix_removes_nothing(fleet: ServedFleet) -> None:
    idents = [fleet.ok("create", "box:1", "sleep").strip() for _ in range(20)]
    first = next(c for c in "0123456789abcdef" if sum(i.startswith(c) for i in idents) > 1)
    done = fleet.flota("rm", first)
    assert done.returncode == 1 and b"fits" in done.stderr
    assert len(fleet.json("ps", "-a")) == 20


def test_unreachable_or_wrong_endpoint_is_said_with_its_address(tmp_path: Path) -> None:
    for endpoint, says in (
        ("unix:///nosuch.sock", b"/nosuch.sock"),
        ("https://127.0.0.1:1", b"FLOTA_CREDENTIALS"),
        ("ftp://x", b"ftp://x"),
        (f"unix://{tmp_path}", b"cannot reach"),
    ):
        done = subprocess.run([sys.executable, "-m", "cli.main", "-H", endpoint, "ps"], capture_output=True,
                              timeout=30, check=False)  # fmt: skip
        assert done.returncode == 1 and says in done.stderr and b"Traceback" not in done.stderr


def test_text_from_elsewhere_can_not_drive_a_terminal(fleet: ServedFleet) -> None:
    fleet.ok("create", "--name", "web", "box:1", "echo", "\x1b[31mred\x9b2J")
    assert "\x1b" not in fleet.ok("ps", "-a", "--no-trunc")
    assert "\x9b" not in fleet.ok("ps", "-a", "--no-trunc")


def test_closed_output_ends_quietly(fleet: ServedFleet) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(fleet.command("ps"), stdout=write, stderr=subprocess.PIPE, timeout=30, check=False,
                          env=fleet.environment())  # fmt: skip
    os.close(write)
    assert done.stderr == b""


def test_short_commands_load_little_and_start_fast(fleet: ServedFleet) -> None:
    script = (
        "import sys; from cli.main import run; "
        f"code = run(['--host', 'unix://{fleet.socket}', *sys.argv[1:]]); "
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    for words in (("ps",), ("run", "--rm", "box:1", "true"), ("logs", "web")):
        fleet.flota("run", "-d", "--name", "web", "box:1", "echo", "hi")
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, timeout=30,
                              check=True, env=fleet.environment())  # fmt: skip
        loaded = set(json.loads(done.stderr.decode().splitlines()[-1].replace("'", '"')))
        assert not loaded & {
            "http",
            "email",
            "ssl",
            "aiohttp",
            "asyncio",
            "rich",
            "agent",
            "controller",
            "cryptography",
            "sqlite3",
        }
    assert any(_timed(fleet, "ps") < 0.5 for _ in range(15)), (
        "also where others work on the machine meanwhile"
    )


def _timed(fleet: ServedFleet, *words: str) -> float:
    began = time.monotonic()
    fleet.ok(*words)
    return time.monotonic() - began
