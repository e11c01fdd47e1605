"""What a host tells of itself, as it is read: true words, hostile ones, none."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import hostprobe
from deploy.families import FILES, PROGRAMS
from deploy.hostfacts import MOST_BYTES, MOST_EACH, Address, Facts, Membership, Python, parse
from model.errors import CommandFailed

FLEET, HOST = "f" * 32, "a" * 64
SAID = f"""\
Welcome to this machine!
{hostprobe.BEGIN}
time 1000
os.ID debian
os.ID_LIKE
os.VERSION_ID 12
os.PRETTY_NAME Debian GNU/Linux 12 (bookworm)
hostname web-1
kernel 6.1.0-21-amd64
machine x86_64
libc gnu
cgroup 2
controllers cpuset cpu io memory pids
feature overlay yes
feature vxlan no
feature teleport yes
python /usr/bin/python3 3.11.2
python /usr/bin/python3.9 3.9.1 bare
free.opt 2048
free.lib 4096
memory 1024
swap 1
address eth0 192.0.2.10/24 1500
address eth0 nonsense 1500
route eth0
port 7420/tcp
port 22/tcp
program runc
file /usr/share/containers/seccomp.json
opt ours
release 0.1.0-0123456789ab
pinned agent 0.1.0-0123456789ab
pinned controller ../../x
pinned shell 1
command foreign
member {FLEET} {HOST} web-1
running agent
running something
other docker
init systemd
{hostprobe.END}
"""


def read(text: str, asked: float = 999.0, answered: float = 1001.0) -> Facts:
    return parse(text.encode(), host="h", asked_at=asked, answered_at=answered)


def test_facts_of_a_whole_answer_are_all_read() -> None:
    facts = read(SAID)
    assert facts.os_id == "debian" and facts.os_version == "12" and facts.hostname == "web-1"
    assert facts.controllers == ("cpuset", "cpu", "io", "memory", "pids") and facts.cgroup == 2
    assert facts.features["overlay"] == "yes" and facts.features["vxlan"] == "no"
    assert facts.features["bridge"] == "unknown" and "teleport" not in facts.features
    assert facts.pythons[0] == Python(path="/usr/bin/python3", version=(3, 11))
    assert facts.pythons[1].bare and facts.python((3, 9)) == facts.pythons[0]
    assert facts.python((3, 12)) is None
    assert facts.free_opt == 2 << 20 and facts.memory == 1 << 20 and facts.swap
    assert facts.addresses == (Address(link="eth0", address="192.0.2.10/24", mtu=1500),)
    assert facts.ports == ("7420/tcp",) and facts.running == {"agent"}
    assert facts.member == Membership(fleet_id=FLEET, host_id=HOST, name="web-1")
    assert (facts.opt, facts.command, facts.release) == ("ours", "foreign", "0.1.0-0123456789ab")
    assert facts.pinned["agent"] == facts.release and "shell" not in facts.pinned


def test_clock_of_a_host_is_compared_with_the_middle_of_the_question() -> None:
    facts = read(SAID, 989.0, 991.0)
    assert facts.clock_off == pytest.approx(10.5) and facts.clock_doubt == pytest.approx(1.5)


def test_a_member_whose_fleet_cannot_be_read_is_still_one() -> None:
    facts = read(f"{hostprobe.BEGIN}\nmember \n{hostprobe.END}\n")
    assert facts.member == Membership(fleet_id="")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sh: syntax error",
        f"{hostprobe.BEGIN}\nos.ID debian\n",
        f"{hostprobe.BEGIN}\n" + "x y\n" * 700 + f"{hostprobe.END}\n",
        f"{hostprobe.BEGIN}\n" + "x" * MOST_BYTES + f"\n{hostprobe.END}\n",
    ],
    ids=["nothing", "noise", "cut", "many lines", "long"],
)
def test_an_answer_that_is_not_whole_is_refused_with_what_was_said(text: str) -> None:
    with pytest.raises(CommandFailed, match="h: it does not tell what it is"):
        read(text)


def test_values_of_a_hostile_host_count_as_not_said() -> None:
    hostile = "\n".join(
        [
            "hostname \x1b[31mred; rm -rf /",
            "kernel $(reboot)",
            "machine x86_64\x00",
            "free.opt -5",
            "memory 99999999999999999999",
            "python relative/python3 3.11.2",
            "python /usr/bin/python3 3.11.2; reboot",
            "member ../../etc x y",
            "release ../../../bin",
            *(f"program p{number}" for number in range(300)),
        ]
    )
    facts = read(f"{hostprobe.BEGIN}\n{hostile}\n{hostprobe.END}\n")
    assert (facts.hostname, facts.kernel, facts.machine) == ("", "", "")
    assert facts.free_opt < 0 and facts.memory == 0 and facts.pythons == ()
    assert facts.member is not None and facts.member.fleet_id == ""
    assert len(facts.programs) == MOST_EACH


@given(st.text(max_size=400))
def test_no_answer_makes_the_reader_fail_in_another_way(text: str) -> None:
    read(f"{hostprobe.BEGIN}\n{text.replace(hostprobe.END, '')}\n{hostprobe.END}\n")


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]], ids=lambda s: s[0])
def test_the_probe_tells_what_this_machine_is_in_every_shell(shell: list[str]) -> None:
    script = hostprobe.script(FILES, PROGRAMS).encode()
    done = subprocess.run([*shell, "-s"], input=script, capture_output=True, check=True)
    facts = parse(done.stdout, host="here", asked_at=0, answered_at=0)
    assert done.stderr == b"" and facts.kernel and facts.machine and facts.libc
    assert facts.pythons and facts.free_opt > 0 and facts.features["bridge"] == "yes"
    assert "sha256sum" in facts.programs


def test_the_probe_takes_no_words_that_a_shell_would_act_upon() -> None:
    with pytest.raises(ValueError, match="not for a shell"):
        hostprobe.script(["/etc/$(reboot)"])
