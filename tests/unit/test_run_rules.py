"""The pure parts of RUN: what mounts come to, what a step may, what is told of output and failures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.build.clip import Clip, Held
from agent.build.mounts import Wanted, cache_key, wanted
from agent.build.refusal import complaint, late, refusal
from agent.build.spec import (
    check_allowed,
    configuration,
    container_spec,
    devices_of,
    entitlements,
    shell_of,
)
from agent.oci.facts import ContainerFacts, Device, HostLimits
from image.build.step import PlacedMount, RunStep
from image.dockerfile.instruction import Mount
from model.build import BuildRequest
from model.errors import FlotaError, Forbidden, InvalidInput, NotFound
from model.spec import ContainerSpec

FUSE = Device(path="/dev/fuse", type="c", major=10, minor=229, mode=0o666)
HOST = HostLimits(devices=(FUSE,))


def one(workdir: str = "/", **words: Any) -> Wanted:
    return wanted((PlacedMount(mount=Mount(**words)),), workdir)[0]


# -- mounts -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "target", "ident"),
    [
        ({"kind": "bind", "target": "in"}, "/proj/in", ""),
        ({"kind": "bind", "target": "/a//b/../c/"}, "/a/c", ""),
        ({"kind": "cache", "target": "/root/.cache"}, "/root/.cache", "/root/.cache"),
        ({"kind": "cache", "target": "c", "ident": "go"}, "/proj/c", "go"),
        ({"kind": "secret", "ident": "key"}, "/run/secrets/key", "key"),
        ({"kind": "secret", "ident": "a/b"}, "/run/secrets/b", "a/b"),
        ({"kind": "secret", "target": "/etc/key"}, "/etc/key", "key"),
        ({"kind": "secret", "ident": "key", "env": "KEY"}, "", "key"),
        ({"kind": "secret", "ident": "key", "env": "KEY", "target": "/k"}, "/k", "key"),
        ({"kind": "ssh"}, "/run/buildkit/ssh_agent.0", "default"),
        ({"kind": "ssh", "ident": "git", "target": "/s"}, "/s", "git"),
        ({"kind": "tmpfs", "target": "/dev/shm"}, "/dev/shm", ""),
    ],
)
def test_mount_gets_the_defaults_of_the_reference(words: dict[str, Any], target: str, ident: str) -> None:
    made = one("/proj", **words)
    assert (made.target, made.ident) == (target, ident)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"target": "/"}, "root itself"),
        ({"target": ".."}, "root itself"),
        ({"target": "/proc/1"}, "/proc/1"),
        ({"target": "/x/../sys"}, "/sys"),
        ({"target": "/dev"}, "/dev"),
        ({"target": ""}, "no target"),
        ({"target": "/a\0b"}, "NUL"),
        ({"target": "/a", "source": "/b\0"}, "NUL"),
        ({"kind": "secret"}, "neither an id nor a target"),
        ({"kind": "secret", "ident": ".."}, "no name of a file"),
        ({"kind": "secret", "ident": "x", "env": "A=B"}, "no name of a variable"),
        ({"kind": "cache", "target": "/c", "uid": 1 << 31}, "uid"),
        ({"kind": "cache", "target": "/c", "gid": -1}, "gid"),
        ({"kind": "tmpfs", "target": "/t", "size": -1}, "negative"),
    ],
)
def test_mount_that_cant_be_is_refused(words: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        one(**words)


def test_bind_is_read_only_and_a_cache_writable_unless_it_is_said() -> None:
    assert one(target="/a").read_only and not one(kind="cache", target="/a").read_only
    assert not one(target="/a", read_only=False).read_only
    assert one(kind="cache", target="/a", read_only=True).read_only


def test_same_target_twice_is_refused_however_it_is_written() -> None:
    mounts = [PlacedMount(mount=Mount(kind="tmpfs", target=t)) for t in ("/a/b", "a//b/")]
    with pytest.raises(InvalidInput, match="duplicate mount point: /a/b"):
        wanted(mounts, "/")


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_target_is_absolute_and_clean_or_refused(target: str, workdir: str) -> None:
    try:
        made = one("/" + workdir, kind="tmpfs", target=target)
    except InvalidInput:
        return
    assert made.target.startswith("/") and "/../" not in f"{made.target}/" and "//" not in made.target
    assert made.target not in ("/", "/dev") and not f"{made.target}/".startswith(("/proc/", "/sys/"))


def test_key_of_a_cache_tells_apart_what_begins_differently() -> None:
    base = {"kind": "cache", "target": "/c"}
    keys = [
        cache_key(one(**base), ""),
        cache_key(one(**base, ident="x"), ""),
        cache_key(one(**base, uid=1), ""),
        cache_key(one(**base, gid=1), ""),
        cache_key(one(**base, mode=0o700), ""),
        cache_key(one(**base), "a stage"),
        cache_key(one(**base, source="/src"), "a stage"),
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key(one(**base), "") == cache_key(one(**base, uid=0, mode=0o755, sharing="locked"), "")


# -- what a step may -----------------------------------------------------------------------------------
def test_entitlements_allow_what_they_name_alone() -> None:
    step = RunStep(args=("true",), network="host", insecure=True, devices=("/dev/fuse",))
    everything = {"network.host", "security.insecure", "device"}
    check_allowed(step, everything)
    for missing in everything:
        with pytest.raises(Forbidden, match=missing):
            check_allowed(step, everything - {missing})
    check_allowed(RunStep(args=("true",)), ())


def test_network_of_the_host_on_the_command_line_allows_itself() -> None:
    assert entitlements(BuildRequest(dockerfile=b"", network="host")) == {"network.host"}
    assert entitlements(BuildRequest(dockerfile=b"", allow=("device",))) == {"device"}


def test_later_variables_replace_earlier_ones() -> None:
    step = RunStep(args=("true",), proxies=("http_proxy=p", "A=0"), env=("A=1", "B=x=y"))
    assert container_spec(step, ("B=2",)).env == {"http_proxy": "p", "A": "1", "B": "2"}
    with pytest.raises(InvalidInput):
        container_spec(RunStep(args=("true",), env=("noequals",)))


def test_devices_are_those_of_the_host() -> None:
    assert devices_of(("/dev/fuse",), HOST)[0].device == FUSE
    (moved,) = devices_of(("name=/dev/fuse:/dev/mine:r",), HOST)
    assert (moved.device.path, moved.rule["access"], moved.rule["minor"]) == ("/dev/mine", "r", 229)
    assert devices_of(("vendor.com/device=foo", "/dev/none"), HOST) == ()
    for wish in ("/dev/none,required", "required,name=vendor.com/device=foo"):
        with pytest.raises(NotFound):
            devices_of((wish,), HOST)
    for wish in ("/dev/fuse:/etc/passwd", "/dev/fuse:/dev/../etc/x"):
        with pytest.raises(InvalidInput):
            devices_of((wish,), HOST)


@pytest.mark.parametrize("profile", ["strict", "default", "docker"])
def test_root_is_writable_by_every_profile_and_nothing_more_is_given(profile: Any) -> None:
    facts = ContainerFacts(hostname="build", rootfs="/r", cgroups_path="/c", netns="/n", profile=profile)
    spec = ContainerSpec(image="", args=("true",), seccomp="unconfined")
    made = configuration(spec, facts, HOST, None)
    assert made["root"] == {"path": "/r", "readonly": False}
    assert "CAP_SYS_ADMIN" not in made["process"]["capabilities"]["bounding"]
    assert made["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_given_device_is_made_and_allowed() -> None:
    facts = ContainerFacts(hostname="build", rootfs="/r", cgroups_path="/c", netns="/n")
    spec = ContainerSpec(image="", args=("true",), seccomp="unconfined")
    made = configuration(spec, facts, HOST, None, devices=devices_of(("/dev/fuse:/dev/fuse:rw",), HOST))
    assert [d["path"] for d in made["linux"]["devices"]] == ["/dev/fuse"]
    assert made["linux"]["resources"]["devices"][1] == {
        "allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw",
    }  # fmt: skip


def test_shell_of_a_failed_step_is_its_own_or_the_usual_one() -> None:
    assert shell_of(("/bin/bash", "-c", "false")) == ("/bin/bash",)
    assert shell_of(("make", "all")) == ("/bin/sh",)
    assert shell_of(()) == ("/bin/sh",)


# -- output --------------------------------------------------------------------------------------------
def test_output_within_the_limit_is_told_whole() -> None:
    clip = Clip(limit=10, tail=4)
    assert (clip.take(b"12345"), clip.take(b"67890"), clip.rest()) == (b"12345", b"67890", b"")


def test_output_beyond_the_limit_keeps_its_last_words_and_counts_the_rest() -> None:
    clip = Clip(limit=4, tail=3)
    assert (clip.take(b"abcdef"), clip.take(b"ghi"), clip.take(b"jk")) == (b"abcd", b"", b"")
    assert clip.rest() == b"\n[output clipped: the limit of 4 bytes was reached, 4 bytes are left out]\nijk"


@given(st.lists(st.binary(max_size=30), max_size=30))
def test_clipped_output_begins_and_ends_as_it_was_and_is_bounded(pieces: list[bytes]) -> None:
    clip, whole = Clip(limit=50, tail=20), b"".join(pieces)
    told = b"".join(clip.take(piece) for piece in pieces)
    rest = clip.rest()
    assert told == whole[:50]
    assert not rest if len(whole) <= 50 else rest.endswith(whole[50:][-20:])
    assert clip._held <= 20 + 30


def test_words_of_the_runtime_are_kept_back_until_they_are_known_to_be_a_programs() -> None:
    held = Held()
    assert held.take(b"before\nrunc run failed: x") == b"before\n"
    assert held.take(b" and y\n") == b""
    assert (held.rest(), held.rest()) == (b"runc run failed: x and y\n", b"")
    assert held.take(b"no runc run failed: here\n") == b"no runc run failed: here\n"
    assert held.take(b"runc run failed: ") == b""
    assert len(held.take(b"x" * 10000)) == 10017 and held.rest() == b""


# -- failures ------------------------------------------------------------------------------------------
RUNC = 'runc run failed: unable to start container process: exec: "{}": {}'


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (RUNC.format("/bin/sh", "stat /bin/sh: no such file or directory"), NotFound, "no /bin/sh"),
        (RUNC.format("make", "executable file not found in $PATH"), NotFound, "'make'"),
        (RUNC.format("/x", "permission denied"), FlotaError, "not executable"),
        (RUNC.format("/x", "stat /x: permission denied"), FlotaError, "not executable"),
        ("runc run failed: something else", FlotaError, "RUN can't start: something else"),
    ],
)
def test_complaint_of_the_runtime_becomes_words_for_people(
    said: str, kind: type[FlotaError], words: str
) -> None:
    error = refusal(said, ("/bin/sh", "-c", "x"), "/w")
    assert isinstance(error, kind) and words in str(error)


def test_last_error_of_the_log_counts_and_what_is_no_log_does_not() -> None:
    log = b'{"level":"error","msg":"one"}\nnot json\n{"level":"error","msg":"two"}\n{"level":"info"}\n'
    assert complaint(log) == "two"
    assert complaint(b'{"level":"warning","msg":"w"}\n') == complaint(b"") == ""


def test_init_that_could_not_execute_is_believed_of_the_steps_own_program_alone() -> None:
    assert isinstance(late(b"x\nexec /run.sh: no such file or directory\n", ("/run.sh",)), NotFound)
    assert "architecture" in str(late(b"exec /bin/app: exec format error", ("/bin/app",)))
    assert "architecture" in str(late(b"exec /usr/bin/make: exec format error\n", ("make", "all")))
    assert late(b"exec /other: no such file or directory\n", ("/run.sh",)) is None
    assert late(b"", ()) is None
