"""Tools that others wrote, against our registry: skopeo pushes, pulls, inspects, deletes; the same requests
to Debian's docker-registry have the same answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.dockerregistry import docker_registry
from tests.support.fleetregistry import Answer, Client, Served, serving
from tests.support.images import (
    INDEX,
    MANIFEST,
    descriptor,
    digest,
    image,
    index,
    member,
    oci_archive,
    tar,
)
from tests.support.servedregistry import Controlled, controlled

LAYERS = [tar(member("a", b"a" * 200_000)), tar(member("b", b"b" * 50))]
BUILT = image(LAYERS)
ARM = image([tar(member("a", b"arm"))], arch="arm64")


async def skopeo(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    process = await asyncio.create_subprocess_exec(
        "skopeo", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    done = subprocess.CompletedProcess(words, process.returncode or 0, out.decode(), err.decode())
    assert not check or done.returncode == 0, done
    return done


@pytest.fixture
def archive(tmp_path: Path) -> str:
    path = tmp_path / "image.tar"
    path.write_bytes(oci_archive(BUILT, name="box:1"))
    return f"oci-archive:{path}"


async def test_skopeo_pushes_and_pulls_the_same_bytes(served: Served, archive: str, tmp_path: Path) -> None:
    target = f"docker://{served.host}/tools/box:1"
    await skopeo("copy", "--dest-tls-verify=false", "--preserve-digests", archive, target)
    assert (await served.client.ask("GET", "/v2/tools/box/manifests/1")).body == BUILT.manifest
    await skopeo("copy", "--src-tls-verify=false", target, f"dir:{tmp_path / 'pulled'}")
    found = {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()}
    assert found["manifest.json"] == BUILT.manifest
    for name, data in BUILT.blobs.items():
        assert found[name.removeprefix("sha256:")] == data


@pytest.mark.parametrize("format_", ["oci", "v2s2"])
async def test_skopeo_pushes_in_either_format(served: Served, archive: str, format_: str) -> None:
    target = f"docker://{served.host}/box:{format_}"
    await skopeo("copy", "--dest-tls-verify=false", "-f", format_, archive, target)
    raw = json.loads((await skopeo("inspect", "--tls-verify=false", "--raw", target)).stdout)
    assert ("docker" in raw["mediaType"]) == (format_ == "v2s2")
    shown = json.loads((await skopeo("inspect", "--tls-verify=false", target)).stdout)
    assert shown["Name"] == f"{served.host}/box" and shown["RepoTags"] == [format_]
    assert len(shown["Layers"]) == len(LAYERS)


async def test_skopeo_copies_every_platform_between_repositories(served: Served) -> None:
    for built in (BUILT, ARM):
        await served.client.push("multi", built)
    data = index((BUILT, "amd64"), (ARM, "arm64"))
    await served.client.push_manifest("multi", "1", data, INDEX)
    flags = ("--src-tls-verify=false", "--dest-tls-verify=false", "--all")
    await skopeo(
        "copy", *flags, f"docker://{served.host}/multi:1", f"docker://{served.host}/elsewhere/multi:2"
    )
    assert (await served.client.ask("GET", "/v2/elsewhere/multi/manifests/2")).body == data
    for built in (BUILT, ARM):
        reply = await served.client.ask("GET", f"/v2/elsewhere/multi/manifests/{built.digest}")
        assert reply.body == built.manifest


async def test_skopeo_lists_tags_and_deletes(served: Served, archive: str) -> None:
    for tag in ("1", "2"):
        await skopeo("copy", "--dest-tls-verify=false", archive, f"docker://{served.host}/box:{tag}")
    listed = json.loads(
        (await skopeo("list-tags", "--tls-verify=false", f"docker://{served.host}/box")).stdout
    )
    assert listed["Tags"] == ["1", "2"]
    await skopeo("delete", "--tls-verify=false", f"docker://{served.host}/box:1")
    assert (await served.client.ask("GET", "/v2/box/tags/list")).json["tags"] == []
    gone = await skopeo("inspect", "--tls-verify=false", f"docker://{served.host}/box:2", check=False)
    assert gone.returncode != 0 and "manifest unknown" in gone.stderr.lower().replace("has no", "unknown")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controlled]:
    async with controlled(tmp_path) as found:
        yield found


async def test_skopeo_comes_in_by_the_fleets_certificates(
    fleet: Controlled, archive: str, tmp_path: Path
) -> None:
    certificates = str(fleet.folder)
    target = f"docker://{fleet.host}/box:1"
    await skopeo("copy", "--dest-cert-dir", certificates, archive, target)
    await skopeo("copy", "--src-cert-dir", certificates, target, f"dir:{tmp_path / 'pulled'}")


async def test_skopeo_comes_in_by_a_token_and_no_further(
    fleet: Controlled, archive: str, tmp_path: Path
) -> None:
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "ca.crt").write_bytes((fleet.folder / "ca.crt").read_bytes())
    push, pull = (
        await fleet.token("ci", scope="push", prefix="team"),
        await fleet.token("prod", prefix="team"),
    )
    target = f"docker://{fleet.host}/team/box:1"
    certs = ("--dest-cert-dir", str(trust))
    refused = await skopeo("copy", *certs, "--dest-creds", f"prod:{pull}", archive, target, check=False)
    assert refused.returncode != 0 and "denied" in refused.stderr
    refused = await skopeo("copy", *certs, archive, target, check=False)
    assert refused.returncode != 0 and (
        "unauthorized" in refused.stderr or "authentication" in refused.stderr
    )
    other = f"docker://{fleet.host}/other/box:1"
    refused = await skopeo("copy", *certs, "--dest-creds", f"ci:{push}", archive, other, check=False)
    assert refused.returncode != 0 and "403" in refused.stderr
    await skopeo("copy", *certs, "--dest-creds", f"ci:{push}", archive, target)
    words = ("--src-cert-dir", str(trust), "--src-creds", f"prod:{pull}")
    await skopeo("copy", *words, target, f"dir:{tmp_path / 'pulled'}")


async def test_skopeo_pulls_without_a_login_where_anybody_may_and_pushes_with_one(
    tmp_path: Path, archive: str
) -> None:
    async with controlled(tmp_path / "fleet", anonymous_pull=True) as fleet:
        trust = tmp_path / "trust"
        trust.mkdir()
        (trust / "ca.crt").write_bytes((fleet.folder / "ca.crt").read_bytes())
        secret = await fleet.token("ci", scope="push")
        target = f"docker://{fleet.host}/box:1"
        certs = ("--dest-cert-dir", str(trust))
        assert (await skopeo("copy", *certs, archive, target, check=False)).returncode != 0
        await skopeo("copy", *certs, "--dest-creds", f"ci:{secret}", archive, target)
        await skopeo("copy", "--src-cert-dir", str(trust), target, f"dir:{tmp_path / 'pulled'}")


# -- the same requests to both -------------------------------------------------------------------------
@pytest.fixture
async def oracle(tmp_path: Path) -> AsyncIterator[Client]:
    """Debian's docker-registry."""
    with docker_registry(tmp_path / "oracle") as port:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Client(f"http://127.0.0.1:{port}", session)


CHECKED = ("Docker-Content-Digest", "Content-Range", "Content-Length", "Docker-Distribution-Api-Version")
NONE = digest(b"none")
REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    ("GET", "/v2/", {}),
    *(("HEAD", f"/v2/box/blobs/{found}", {}) for found in BUILT.blobs),
    *(("GET", f"/v2/box/blobs/{found}", {}) for found in BUILT.blobs),
    ("GET", f"/v2/box/blobs/{BUILT.id}", {"Range": "bytes=3-9"}),
    ("GET", f"/v2/box/blobs/{BUILT.id}", {"Range": "bytes=5-"}),
    ("GET", f"/v2/box/blobs/{BUILT.id}", {"Range": "bytes=-4"}),
    ("GET", f"/v2/box/blobs/{BUILT.id}", {"If-None-Match": f'"{BUILT.id}"'}),
    ("GET", f"/v2/box/blobs/{NONE}", {}),
    ("HEAD", f"/v2/box/blobs/{NONE}", {}),
    ("GET", f"/v2/other/blobs/{BUILT.id}", {}),
    ("GET", "/v2/box/manifests/1", {"Accept": MANIFEST}),
    ("HEAD", "/v2/box/manifests/1", {"Accept": MANIFEST}),
    ("GET", f"/v2/box/manifests/{BUILT.digest}", {"Accept": MANIFEST}),
    ("GET", f"/v2/box/manifests/{BUILT.digest}", {"Accept": MANIFEST, "If-None-Match": f'"{BUILT.digest}"'}),
    ("GET", "/v2/box/manifests/nope", {"Accept": MANIFEST}),
    ("GET", f"/v2/box/manifests/{NONE}", {"Accept": MANIFEST}),
    ("GET", "/v2/nope/manifests/1", {"Accept": MANIFEST}),
    ("GET", "/v2/box/manifests/multi", {"Accept": INDEX}),
    ("GET", "/v2/box/tags/list", {}),
    ("GET", "/v2/nope/tags/list", {}),
    ("GET", "/v2/_catalog", {}),
    ("DELETE", f"/v2/box/blobs/{NONE}", {}),
    ("DELETE", f"/v2/box/manifests/{NONE}", {}),
    ("PUT", f"/v2/box/manifests/{NONE}", {"Content-Type": MANIFEST}),
    ("DELETE", f"/v2/box/manifests/{BUILT.digest}", {}),
    ("GET", "/v2/box/manifests/1", {"Accept": MANIFEST}),
    ("DELETE", f"/v2/box/blobs/{BUILT.id}", {}),
    ("GET", f"/v2/box/blobs/{BUILT.id}", {}),
]


def compared(reply: Answer, path: str, *, whole: bool) -> Any:
    """What the specification fixes of an answer. Left out is where docker-registry 2.8 is behind it: its tags
    have no order and no pages, its uploads need a query of their own."""
    body: Any = reply.body
    if reply.status >= 400:
        body = [error["code"] for error in reply.json["errors"]] if body else None
    elif reply.headers.get("Content-Type", "").startswith("application/json"):
        body = reply.json
        if "tags" in body:
            body["tags"].sort()
    named = {name: reply.headers.get(name) for name in CHECKED}
    if reply.status >= 400 or (path.startswith("/v2/_") or "/tags/" in path) or path == "/v2/":
        del named["Content-Length"]  # JSON's spaces are free
    if reply.status == 304:
        del named["Docker-Content-Digest"]  # optional; ours tells it also then
    return reply.status, body if whole else None, named, "next" in reply.headers.get("Link", "")


async def test_answers_are_those_of_docker_registry(oracle: Client, tmp_path: Path) -> None:
    async with serving(tmp_path / "registry") as served:
        for client in (oracle, served.client):
            await client.push("box", BUILT, "1", "2")
            await client.push("box", ARM)
            data = index((BUILT, "amd64"), (ARM, "arm64"))
            assert (await client.push_manifest("box", "multi", data, INDEX)).status == 201
        differing = []
        for method, path, headers in REQUESTS:
            named = {key.replace("-", "_"): value for key, value in headers.items()}
            theirs = await oracle.ask(method, path, **named)
            ours = await served.client.ask(method, path, **named)
            whole = method != "HEAD"
            pair = [compared(reply, path, whole=whole) for reply in (ours, theirs)]
            if pair[0] != pair[1]:
                differing.append((method, path, *pair))
        assert differing == [], "\n".join(map(repr, differing))


async def uploaded(client: Client, data: bytes) -> list[Any]:
    """Statuses and headers of a chunked upload, with its mistakes."""
    found: list[Any] = []
    where = await client.begin("up")

    def note(reply: Answer) -> str:
        codes = [error["code"] for error in reply.json["errors"]] if reply.body else []
        found.append((reply.status, codes, reply.headers.get("Range")))
        return reply.headers.get("Location", where)

    where = note(await client.ask("PATCH", where, data[:100]))
    note(await client.ask("GET", where))
    where = note(await client.ask("PATCH", where, data[100:300], Content_Range="100-299"))
    join = "&" if "?" in where else "?"
    done = await client.ask("PUT", f"{where}{join}digest={digest(data)}", data[300:])
    found.append((done.status, done.headers["Docker-Content-Digest"], done.headers["Content-Length"]))
    where = await client.begin("up")
    join = "&" if "?" in where else "?"
    note(await client.ask("PUT", f"{where}{join}digest={NONE}", data))
    note(await client.ask("DELETE", await client.begin("up")))
    mounted = await client.ask("POST", f"/v2/elsewhere/blobs/uploads/?mount={digest(data)}&from=up")
    found.append((mounted.status, mounted.headers["Docker-Content-Digest"]))
    return found


async def test_uploads_go_as_with_docker_registry(oracle: Client, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4
    async with serving(tmp_path / "registry") as served:
        assert await uploaded(served.client, data) == await uploaded(oracle, data)


async def test_refused_manifests_are_those_of_docker_registry(oracle: Client, tmp_path: Path) -> None:
    """But for blobs that are missing: 404 by the specification's table (end-7), 400 there."""
    missing = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(b"none", "application/vnd.oci.image.config.v1+json"),
            "layers": [],
        }
    ).encode()
    async with serving(tmp_path / "registry") as served:
        for data in (b"", b"{", b"[]"):
            ours = await served.client.push_manifest("box", "1", data)
            theirs = await oracle.push_manifest("box", "1", data)
            assert (ours.status, ours.code) == (theirs.status, theirs.code) == (400, "MANIFEST_INVALID")
        ours = await served.client.push_manifest("box", "1", missing)
        theirs = await oracle.push_manifest("box", "1", missing)
        assert ours.code == theirs.json["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
        assert (ours.status, theirs.status) == (404, 400)
