"""skopeo and the docker command move images in and out of the fleet, by its socket and by a registry."""

from __future__ import annotations

import json

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.seeds import PORT

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]
REGISTRY = f"127.0.0.1:{PORT}"
PATIENCE = 120.0
LAYERS = "{{json .RootFS.Layers}}"
"""What is kept when another writes the configuration anew."""


def said(ground: Ground, *words: str) -> str:
    done = ground.run(words, cwd=ground.folder, timeout=PATIENCE)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def inspected(ground: Ground, name: str, what: str = "{{.Id}}") -> str:
    return said(ground, "docker", "image", "inspect", "-f", what, name)


def test_skopeo_takes_an_image_out_by_the_socket_and_brings_it_back(alone: Ground) -> None:
    before = inspected(alone, "busybox:latest", LAYERS)
    said(alone, "skopeo", "copy", "docker-daemon:busybox:latest", "oci:taken:one")
    taken = json.loads(said(alone, "skopeo", "inspect", "--config", "oci:taken:one"))
    assert taken["rootfs"]["diff_ids"] == json.loads(before)
    said(alone, "skopeo", "copy", "oci:taken:one", "docker-daemon:brought/back:2")
    assert inspected(alone, "brought/back:2", LAYERS) == before
    assert said(alone, "docker", "run", "--rm", "brought/back:2", "echo", "well") == "well"
    said(alone, "docker", "rmi", "brought/back:2")


def test_docker_pushes_to_a_registry_what_skopeo_and_docker_get_from_it(alone: Ground) -> None:
    name = f"{REGISTRY}/pushed/box:1"
    before = inspected(alone, "alpine:3.10")
    said(alone, "docker", "tag", "alpine:3.10", name)
    assert "digest: sha256:" in said(alone, "docker", "push", name)
    held = json.loads(said(alone, "skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}"))
    assert held["config"]["digest"] == before
    said(alone, "docker", "rmi", name)
    said(alone, "docker", "pull", name)
    assert inspected(alone, name) == before
    said(alone, "docker", "rmi", name)


def test_skopeo_copies_from_a_registry_into_the_fleet(alone: Ground) -> None:
    source = f"docker://{REGISTRY}/library/hello-world:latest"
    said(alone, "skopeo", "copy", "--src-tls-verify=false", source, "docker-daemon:copied/hello:1")
    assert said(alone, "docker", "run", "--rm", "copied/hello:1") == "Hello from Docker!"
    said(alone, "docker", "rmi", "copied/hello:1")
