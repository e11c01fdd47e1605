"""The Vagrantfile that people run: Vagrant takes it as it is, for each provider."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.rig.vagrant import FILES

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_the_vagrantfile_is_valid(tmp_path: Path, provider: str) -> None:
    settings = {
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"),
        "VAGRANT_DEFAULT_PROVIDER": provider,
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }
    words = ["vagrant", "validate", *(["--ignore-provider"] if provider != "libvirt" else [])]
    done = subprocess.run(
        words, cwd=FILES, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
