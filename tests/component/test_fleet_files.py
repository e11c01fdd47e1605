"""`flota fleet export` and `import`, against real controllers and a fake fleet with hosts."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.component.test_controller_main import config, running
from tests.support.servedfleet import served

ROOT = Path(__file__).resolve().parents[2]
POLICY = ("--for", "service=web", "--ingress", "allow=service:all,port=80/tcp")


async def flota(folder: Path, *words: str, stdin: str = "") -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command on the controller in that folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLOTA_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "--host", f"unix://{folder}/flota.sock", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, "PYTHONPATH": str(ROOT)},
    )
    told, failed = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    return process.returncode or 0, told.decode(), failed.decode()


async def ok(folder: Path, *words: str, stdin: str = "") -> str:
    code, told, failed = await flota(folder, *words, stdin=stdin)
    assert code == 0, failed
    return told


def texts(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.yaml")}


async def furnish(folder: Path) -> None:
    await ok(folder, "network", "create", "--ipv6", "--label", "a=yes", "blue")
    await ok(folder, "network", "create", "--subnet", "10.77.0.0/16", "green")
    web = ("--name", "web", "--replicas", "3", "--network", "blue", "-p", "8080:80", "-e", "N=08")
    await ok(folder, "service", "create", *web, "box:1", "sh", "-c", "exit 0 # x")
    await ok(folder, "service", "create", "--name", "all", "--mode", "global", "--network", "green", "box:1")
    await ok(folder, "policy", "create", *POLICY, "shut")
    await ok(folder, "fleet", "update", "--vni-range", "5000-6000")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return tmp_path / "a", tmp_path / "b"


async def test_export_into_an_empty_fleet_and_out_again_is_the_same_files(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = folders
    one, two = tmp_path / "one", tmp_path / "two"
    async with running(config(first)), running(config(second)):
        await furnish(first)
        await ok(first, "fleet", "export", str(one))
        assert sorted(texts(one)) == [
            "fleet.yaml",
            "networks/blue.yaml",
            "networks/green.yaml",
            "policies/shut.yaml",
            "services/all.yaml",
            "services/web.yaml",
        ]
        would = await ok(second, "fleet", "import", "--dry-run", str(one))
        assert "+ services/web\n" in would and "~ fleet/settings\n    vni_range[0]: 4096 → 5000" in would
        assert "blue" not in await ok(second, "network", "ls")
        assert await ok(second, "fleet", "import", str(one)) == would
        assert await ok(second, "fleet", "import", str(one)) == "nothing changes\n"
        await ok(second, "fleet", "export", str(two))
        assert texts(two) == texts(one)
        document = await ok(first, "fleet", "export")
        assert await ok(second, "fleet", "import", "-", stdin=document) == "nothing changes\n"
        assert await ok(second, "fleet", "export", "-") == document


async def test_import_changes_what_differs_and_refuses_all_of_a_bad_one(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    first, _ = folders
    one = tmp_path / "one"
    async with running(config(first)):
        await furnish(first)
        await ok(first, "fleet", "export", str(one))
        web = one / "services" / "web.yaml"
        web.write_text(web.read_text().replace("replicas: 3", "replicas: 4"))
        told = await ok(first, "fleet", "import", str(one))
        assert told == "~ services/web\n    mode.replicas: 3 → 4\n"
        assert '"replicas": 4' in await ok(first, "service", "inspect", "web")
        green = one / "networks" / "green.yaml"
        green.write_text(green.read_text() + "internal: true\n")
        (one / "volumes").mkdir()
        (one / "volumes" / "v.yaml").write_text("name: v\nhosts: [n9]\n")
        web.write_text(web.read_text().replace("replicas: 4", "replicas: 5"))
        code, told, failed = await flota(first, "fleet", "import", str(one))
        assert (code, told) == (1, "")
        assert "networks/green: it can't be changed (internal: - → True): remove it first" in failed
        assert "volumes/v: there is no host 'n9'" in failed
        assert '"replicas": 4' in await ok(first, "service", "inspect", "web")
        web.write_text("name: web\ncontainer: {image: a, prots: []}\n")
        code, _, failed = await flota(first, "fleet", "import", str(one))
        assert code and "services/web.yaml:2: container.prots: unknown field" in failed


async def test_export_names_files_of_what_is_not_in_the_fleet_and_leaves_them(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    stray = tmp_path / "out" / "services" / "old.yaml"
    stray.parent.mkdir(parents=True)
    stray.write_text("x: y\n")
    async with running(config(folders[0])):
        code, _, failed = await flota(folders[0], "fleet", "export", str(tmp_path / "out"))
    assert code == 0 and "files of what this fleet does not have: services/old.yaml" in failed
    assert stray.exists()


def test_containers_that_are_marked_and_volumes_are_exported_and_made_again(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    with served(tmp_path / "x") as fleet:
        fleet.ok("volume", "create", "--label", "a=b", "data")
        fleet.ok("run", "-d", "--name", "kept", "--label", "flota.export=yes", "box:1", "sleep", "9")
        fleet.ok("run", "-d", "--name", "other", "box:1", "sleep", "9")
        document = fleet.ok("fleet", "export")
    assert "kept" in document and "other" not in document and "start: true" in document
    assert "hosts:\n      - n1\n      - n2\n      - n3\n" in document or "hosts:\n    - n1" in document
    with served(tmp_path / "y") as fleet:
        told = fleet.ok("fleet", "import", "-", stdin=document.encode())
        assert "+ containers/kept" in told and "+ volumes/data" in told
        assert fleet.ok("fleet", "import", "-", stdin=document.encode()) == "nothing changes\n"
        assert fleet.ok("fleet", "export") == document
