"""What of a container goes into an image of it: docker's rules."""

from __future__ import annotations

from typing import Any

import pytest

from agent.files.config import command, image_config
from image.commit import Commit, committed
from image.config_blob import encode
from image.manifest import Configuration, parse_configuration
from model.image import HistoryEntry, ImageConfig
from model.spec import ContainerSpec, ExecProbe, HealthCheck, Mount, Publish, TcpProbe
from model.status import Platform

IMAGE = ImageConfig(
    env=("A=1", "B=2"),
    entrypoint=("/entry",),
    cmd=("serve",),
    user="app",
    workdir="/srv",
    volumes=("/data",),
    exposed_ports=("80/tcp",),
    labels={"a": "1", "b": "2"},
    stop_signal="SIGINT",
    health=HealthCheck(probe=ExecProbe(args=("check",)), interval=5.0),
    shell=("/bin/bash", "-c"),
)


def made(**spec: Any) -> ImageConfig:
    return image_config(ContainerSpec(image="x", **spec), IMAGE)


def test_container_without_words_of_its_own_is_its_image() -> None:
    assert made() == IMAGE


def test_words_of_the_container_stand_over_the_images() -> None:
    found = made(
        env={"B": "3", "C": "4"},
        user="root",
        workdir="/w",
        labels={"b": "3"},
        stop_signal="TERM",
        args=("other",),
    )
    assert found.env == ("A=1", "B=3", "C=4") and found.labels == {"a": "1", "b": "3"}
    assert (found.user, found.workdir, found.stop_signal) == ("root", "/w", "TERM")
    assert (found.entrypoint, found.cmd) == (("/entry",), ("other",))


def test_another_entrypoint_drops_the_images_command() -> None:
    assert made(entrypoint=("/mine",)).cmd is None
    assert made(entrypoint=("/mine",), args=("x",)).cmd == ("x",)
    assert made(entrypoint=(), args=("x",)).entrypoint is None


def test_ports_and_anonymous_volumes_are_told_but_places_on_the_host_are_not() -> None:
    found = made(
        ports=(Publish(target=443, published=8443), Publish(target=53, protocol="udp")),
        expose=("3000-3001/tcp",),
        mounts=(
            Mount(type="volume", target="/anonymous/"),
            Mount(type="volume", source="named", target="/named"),
            Mount(type="bind", source="/etc", target="/bound"),
        ),
    )
    assert found.exposed_ports == ("3000/tcp", "3001/tcp", "443/tcp", "53/udp", "80/tcp")
    assert found.volumes == ("/anonymous", "/data")


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (HealthCheck(disabled=True), HealthCheck(disabled=True)),
        (HealthCheck(interval=9.0), HealthCheck(probe=ExecProbe(args=("check",)), interval=9.0)),
        (HealthCheck(probe=TcpProbe(port=80)), IMAGE.health),
        (
            HealthCheck(probe=ExecProbe(args=("mine",))),
            HealthCheck(probe=ExecProbe(args=("mine",)), interval=5.0),
        ),
    ],
)
def test_health_check_is_the_one_that_applies(own: HealthCheck, expected: HealthCheck) -> None:
    assert made(health=own).health == expected


def test_committed_configuration_is_read_back_as_it_was_made() -> None:
    base = Configuration(
        platform=Platform(os="linux", arch="amd64"),
        diff_ids=("sha256:" + "a" * 64,),
        config=IMAGE,
        history=(HistoryEntry(created_by="first", empty_layer=True),),
    )
    wish = Commit(
        config=made(env={"Z": "é"}),
        author="Ada <a@b>",
        message="why",
        created_by="serve",
        at=1_700_000_000.25,
    )
    found = committed(base, wish, "sha256:" + "b" * 64)
    again = parse_configuration(encode(found))
    assert again == found
    assert again.created == 1_700_000_000.25 and again.history[-1].comment == "why"
    assert again.diff_ids == ("sha256:" + "a" * 64, "sha256:" + "b" * 64)


def test_command_of_the_history_is_what_ran() -> None:
    assert command(ContainerSpec(image="x", args=("a", "b")), IMAGE) == "/entry a b"
