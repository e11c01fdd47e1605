"""Words of the command line to specs: each flag's forms, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from cli.commands.services import updated
from cli.parse.container import attachments, container_spec, environment, labels, log_options, parse_restart
from cli.parse.ports import parse_publish, parse_service_publish
from cli.parse.rollout import restart_policy
from model.errors import InvalidInput
from model.mountwords import parse_mount, parse_tmpfs, parse_volume
from model.spec import (
    Attachment,
    ContainerSpec,
    LogOptions,
    Mount,
    Publish,
    Replicated,
    Resources,
    RestartPolicy,
    ServiceSpec,
    Ulimit,
)
from model.validate import validate_container


def spec(**flags: Any) -> ContainerSpec:
    return container_spec(flags, "box:1", (), environ={"HOME": "/root"}, cwd="/work")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data", Mount(type="volume", target="/data")),
        ("data:/data", Mount(type="volume", source="data", target="/data")),
        ("v:/data:ro,nocopy", Mount(type="volume", source="v", target="/data", read_only=True, no_copy=True)),
        ("/src:/dst", Mount(type="bind", source="/src", target="/dst", create_source=True)),
        ("./a/../b:/dst:rw", Mount(type="bind", source="/here/b", target="/dst", create_source=True)),
        ("/a:/b:rslave,z",
         Mount(type="bind", source="/a", target="/b", create_source=True, propagation="rslave")),
    ],
)  # fmt: skip
def test_volume_forms(text: str, mount: Mount) -> None:
    assert parse_volume(text, "/here") == mount


@pytest.mark.parametrize("text", ["", "data", "a:b", ":/x", "a:/b:ro:x", "a:/b:sideways", "/a:", "a:/b:"])
def test_volume_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"volume|mount"):
        parse_volume(text, "/")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,src=/a,dst=/b,ro", Mount(type="bind", source="/a", target="/b", read_only=True)),
        ("type=bind,source=/a,target=/b,bind-propagation=shared",
         Mount(type="bind", source="/a", target="/b", propagation="shared")),
        ("source=v,destination=/b,readonly=false", Mount(type="volume", source="v", target="/b")),
        ("type=volume,target=/b,volume-nocopy", Mount(type="volume", target="/b", no_copy=True)),
        ("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770",
         Mount(type="tmpfs", target="/t", tmpfs_size=64 << 20, tmpfs_mode=0o1770)),
    ],
)  # fmt: skip
def test_mount_forms(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "true", "True"])
def test_mount_is_read_only_by_all_of_dockers_words(word: str) -> None:
    assert parse_mount(f"type=bind,src=/a,dst=/b,ro={word}").read_only
    assert parse_mount(f"type=volume,target=/b,volume-nocopy={word}").no_copy
    assert not parse_mount(f"type=bind,src=/a,dst=/b,readonly={word},ro=False").read_only


@pytest.mark.parametrize("word", ["", "yes", "on", "y", "tRue"])
def test_protection_in_words_that_are_not_known_is_refused_with_its_name(word: str) -> None:
    with pytest.raises(InvalidInput, match="readonly"):
        parse_mount(f"type=bind,src=/a,dst=/b,ro={word}")
    with pytest.raises(InvalidInput, match="volume-nocopy"):
        parse_mount(f"type=volume,target=/b,volume-nocopy={word}")
    with pytest.raises(InvalidInput, match="no-new-privileges"):
        spec(security_opt=(f"no-new-privileges={word}",))


@pytest.mark.parametrize(
    "text",
    ["", "type=nfs,target=/x", "type=bind,src=rel,target=/x", "type=bind,src=/a", "type=volume,target=x",
     "type=volume,target=/x,colour=red", "type=tmpfs,target=/x,tmpfs-mode=rwx",
     "type=tmpfs,target=/x,tmpfs-size=big", "type=bind,src=/a,dst=/b,bind-propagation=up"],
)  # fmt: skip
def test_mount_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_mount(text)


def test_tmpfs_forms() -> None:
    assert parse_tmpfs("/t") == Mount(type="tmpfs", target="/t")
    assert parse_tmpfs("/t:size=1m,mode=700,noexec") == Mount(
        type="tmpfs", target="/t", tmpfs_size=1 << 20, tmpfs_mode=0o700, tmpfs_options=("noexec",)
    )
    for text in ("t", "/t:mode=9", "/t:size=x"):
        with pytest.raises(InvalidInput):
            parse_tmpfs(text)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Publish(target=80)]),
        ("8080:80", [Publish(target=80, published=8080)]),
        ("8080:80/udp", [Publish(target=80, published=8080, protocol="udp")]),
        ("127.0.0.1:8080:80", [Publish(target=80, published=8080, host_ip="127.0.0.1")]),
        ("127.0.0.1::80", [Publish(target=80, host_ip="127.0.0.1")]),
        ("[::1]:8080:80", [Publish(target=80, published=8080, host_ip="::1")]),
        ("7000-7001:8000-8001", [Publish(target=8000, published=7000), Publish(target=8001, published=7001)]),
        ("90-91", [Publish(target=90), Publish(target=91)]),
    ],
)
def test_publish_forms(text: str, ports: list[Publish]) -> None:
    assert parse_publish(text) == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "0",
        "65536",
        "1:2:3:4",
        "80/icmp",
        "90-80",
        "1-2:1-3",
        "[::1:80",
        "-1:80",
        "8080:",
        "80:80:80:",
    ],
)
def test_publish_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="publish"):
        parse_publish(text)


def test_publish_of_services_has_a_long_form() -> None:
    long = "mode=host,published=8080,target=80,protocol=udp"
    assert parse_service_publish(long) == [Publish(target=80, published=8080, protocol="udp")]
    assert parse_service_publish("8080:80") == [Publish(target=80, published=8080, mode="ingress")]
    assert parse_service_publish("target=80")[0].mode == "ingress"
    for text in ("published=80", "mode=nat,target=80", "target=80,colour=red", "target=web"):
        with pytest.raises(InvalidInput, match="publish"):
            parse_service_publish(text)


def test_environment_comes_from_flags_files_and_here() -> None:
    file = "# comment\nA=1\n  B = two \n\nHOME\nNOPE\n"
    found = environment(("C=x=y", "A=9", "HOME", "GONE"), (file,), {"HOME": "/root"})
    assert found == {"A": "9", "B ": " two ", "HOME": "/root", "C": "x=y"}
    with pytest.raises(InvalidInput, match="=x"):
        environment(("=x",), (), {})


def test_labels_come_from_files_and_flags() -> None:
    assert labels({"label_file": ["a=1\n#c\n"], "label": ("a=2", "b")}) == {"a": "2", "b": ""}
    with pytest.raises(InvalidInput):
        labels({"label": ("=x",)})


def test_resources_and_limits() -> None:
    made = spec(memory="64m", memory_swap="-1", cpus="0.5", pids_limit=-1, cpu_shares=512, cpuset_cpus="0-1",
                ulimit=("nofile=1024:2048", "core=0"), shm_size="1g")  # fmt: skip
    assert made.resources == Resources(
        memory=64 << 20, memory_swap=-1, nano_cpus=500_000_000, cpu_shares=512, cpuset_cpus="0-1"
    )
    assert made.ulimits == (Ulimit(name="nofile", soft=1024, hard=2048), Ulimit(name="core", soft=0, hard=0))
    assert made.shm_size == 1 << 30
    for flags in ({"memory": "1Q"}, {"cpus": "many"}, {"ulimit": ("nofile",)}, {"ulimit": ("a=b",)}):
        with pytest.raises(InvalidInput):
            spec(**flags)


def test_words_of_the_container() -> None:
    made = container_spec(
        {"entrypoint": "", "interactive": True, "tty": True}, "i", ("a", "b"), environ={}, cwd="/"
    )
    assert (made.entrypoint, made.args, made.stdin, made.stdin_once, made.tty) == (
        (),
        ("a", "b"),
        True,
        True,
        True,
    )
    assert spec(entrypoint="/bin/sh").entrypoint == ("/bin/sh",)
    assert (spec().entrypoint, spec().args) == (None, None)
    assert not spec(interactive=True, detach=True).stdin_once
    assert spec(stop_timeout=0.0).stop_grace == 0.0 and spec().stop_grace == 10.0


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("no", RestartPolicy()),
        ("always", RestartPolicy(condition="always")),
        ("on-failure:3", RestartPolicy(condition="on-failure", max_attempts=3)),
        ("on-failure", RestartPolicy(condition="on-failure")),
    ],
)
def test_restart_policies(text: str, policy: RestartPolicy) -> None:
    assert parse_restart(text) == policy


@pytest.mark.parametrize("text", ["", "never", "always:3", "on-failure:", "on-failure:x", "on-failure:-1"])
def test_restart_policy_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="restart"):
        parse_restart(text)


def test_networks_take_aliases_and_addresses_at_the_first() -> None:
    assert attachments({}) == ()
    assert attachments({"network": ("a", "b"), "network_alias": ("x",), "ip": "10.0.0.9"}) == (
        Attachment(network="a", aliases=("x",), ipv4="10.0.0.9"),
        Attachment(network="b"),
    )
    assert attachments({"ip": "10.0.0.9"}) == (Attachment(network="bridge", ipv4="10.0.0.9"),)


def test_log_and_security_options() -> None:
    assert log_options(("max-size=1m", "max-file=5")) == LogOptions(max_size=1 << 20, max_files=5)
    made = spec(security_opt=("seccomp=unconfined", "no-new-privileges:true", "profile=strict"))
    assert (made.seccomp, made.no_new_privileges, made.security_profile) == ("unconfined", True, "strict")
    for words, given in (("", True), ("=TRUE", True), (":1", True), ("=False", False)):
        assert spec(security_opt=(f"no-new-privileges{words}",)).no_new_privileges is given
    for flags in ({"log_opt": ("max-file=x",)}, {"log_opt": ("a=b",)}, {"security_opt": ("label=x",)}):
        with pytest.raises(InvalidInput):
            spec(**flags)


def test_what_parsing_lets_through_is_judged_by_the_model() -> None:
    made = spec(hostname="a b", dns=("x",), add_host=("nope",), stop_signal="SIG FOO", memory="1k")
    assert len(validate_container(made)) == 5


SERVICE = ServiceSpec(
    name="web", container=ContainerSpec(image="a", env={"A": "1", "B": "2"}), mode=Replicated(replicas=2)
)
NO_CHANGE: dict[str, Any] = {
    **dict.fromkeys(("image", "args", "replicas", "cpus", "memory")),
    **dict.fromkeys(("endpoint_mode", "balance")),
    **dict.fromkeys(("restart_condition", "restart_delay", "restart_max_attempts", "restart_window")),
    **dict.fromkeys(("env_add", "env_rm", "label_add", "label_rm", "constraint_add", "constraint_rm"), ()),
    **dict.fromkeys(("publish_add", "publish_rm"), ()),
    "force": False,
}


def test_update_changes_only_what_was_asked() -> None:
    assert updated(SERVICE, NO_CHANGE) == SERVICE
    flags = {"image": "b", "env_rm": ("A",), "env_add": ("C=3",), "memory": "64m", "replicas": "5"}
    more = {"args": "sh -c 'a b'", "constraint_add": ("node.name==x",)}
    changed = updated(SERVICE, {**NO_CHANGE, **flags, **more})
    assert changed.container.env == {"B": "2", "C": "3"}
    assert (changed.container.image, changed.container.args) == ("b", ("sh", "-c", "a b"))
    assert changed.container.resources.memory == 64 << 20
    assert changed.placement.constraints == ("node.name==x",) and changed.mode == Replicated(replicas=5)
    with pytest.raises(InvalidInput):
        updated(SERVICE, {**NO_CHANGE, "replicas": "-1"})


def test_limit_of_zero_takes_a_services_limit_away_and_nothing_else() -> None:
    limits = Resources(nano_cpus=500_000_000, memory=64 << 20, memory_swap=64 << 20, pids=9)
    container = ContainerSpec(image="a", resources=limits)
    limited = ServiceSpec(name="web", container=container, mode=Replicated(replicas=2))
    for flags, left in (
        ({"memory": "0"}, Resources(nano_cpus=500_000_000, pids=9)),
        ({"cpus": "0"}, replace(limits, nano_cpus=0)),
        ({"cpus": "1"}, replace(limits, nano_cpus=1_000_000_000)),
    ):
        assert updated(limited, {**NO_CHANGE, **flags}).container.resources == left


def test_restart_of_services_by_dockers_flags() -> None:
    flags = {
        "restart_condition": "any",
        "restart_delay": "5s",
        "restart_max_attempts": 3,
        "restart_window": "1m",
    }
    before = RestartPolicy(condition="no")
    made = restart_policy(flags, before)
    assert made == RestartPolicy(condition="always", delay=5.0, max_attempts=3, window=60.0)
    assert restart_policy(dict.fromkeys(flags), made) == made


def test_a_service_whose_containers_may_end_says_so_by_itself_and_keeps_it() -> None:
    ends = updated(SERVICE, {**NO_CHANGE, "restart_condition": "none"})
    assert ends.may_end and ends.container.restart.condition == "no"
    assert updated(ends, {**NO_CHANGE, "image": "b"}).may_end
    again = updated(ends, {**NO_CHANGE, "restart_condition": "any"})
    assert not again.may_end and again.container.restart.condition == "always"
