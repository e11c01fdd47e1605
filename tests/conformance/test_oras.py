"""oras's own tests (Apache-2.0, from its sdist) against the fleet's registry: once as everybody over plain
HTTP, once with a token over TLS. Each case is for one of the two, and skips the other."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance.suite import PASSED, Expected, Suite, Verdict, verdicts, violations
from tests.support.fleetregistry import serving
from tests.support.servedregistry import controlled

pytestmark = [pytest.mark.rig, pytest.mark.timeout(600)]
SUITE = Suite("oras", ("oras==0.2.43", "pytest==8.3.5", "pytest-timeout==2.4.0"), sdist="oras==0.2.43")
OUTSIDE = ("get_many_tags", "ssl_no_verify", "ssl_verify_fails_if_bad_ca", "ssl_verify_fails_fast_if_bad_ca")
"""Ask registries of the internet."""
SMALLER = "import oras.defaults\noras.defaults.default_chunksize = 1 << 16\n"
"""A thousand chunks of 64 KiB, where a case pushes 16 GiB."""


def judged(folder: Path, port: str, login: Mapping[str, str]) -> dict[str, Verdict]:
    made = SUITE.fetched()
    source, report = folder / "source", folder / "report.xml"
    shutil.copytree(made / "source", source)  # tests write into it
    (source / "smaller.py").write_text(SMALLER)
    words = [
        str(made / "bin/python"),
        "-m",
        "pytest",
        "oras/tests",
        "--ignore=oras/tests/auth",
        "-p",
        "smaller",
    ]
    words += [f"--deselect=oras/tests/test_oras.py::test_{name}" for name in OUTSIDE]
    words += ["-q", "--timeout=120", "-p", "no:cacheprovider", f"--junitxml={report}"]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(source)}
    env |= {"ORAS_HOST": "127.0.0.1", "ORAS_PORT": port, **login}
    done = subprocess.run(
        words, cwd=source, env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert report.exists(), done.stdout + done.stderr
    return verdicts(report.read_text())


async def open_to_all(folder: Path) -> dict[str, Verdict]:
    async with serving(folder / "registry") as served:
        return await asyncio.to_thread(judged, folder, str(served.port), {})


async def with_a_token(folder: Path) -> dict[str, Verdict]:
    async with controlled(folder / "fleet") as fleet:
        secret = await fleet.token("ci", scope="delete")
        login = {"ORAS_AUTH": "true", "ORAS_USER": "ci", "ORAS_PASS": secret}
        return await asyncio.to_thread(judged, folder, fleet.host.rpartition(":")[2], login)


async def test_oras_passes_all_but_what_asks_the_internet(tmp_path: Path) -> None:
    found: dict[str, Verdict] = {}
    for name, run in (("open", open_to_all), ("token", with_a_token)):
        folder = tmp_path / name
        folder.mkdir()
        for case, verdict in (await run(folder)).items():
            if found.get(case, verdict).outcome in ("skipped", PASSED) and verdict.outcome != "skipped":
                found[case] = verdict
            found.setdefault(case, verdict)
    assert not (lines := violations(found, Expected())), "\n".join(lines)
    own = {name for name in found if ".test_oras." in name or ".test_provider." in name}
    assert len(own) > 12 and len(found) > 60
