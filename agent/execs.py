"""A further process in a container: as the container's own, but for what the exec says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent import freeze, inroot
from agent.context import Context
from agent.oci.process import exec_process
from agent.runtime.base import ExecHandle
from model.ids import InstanceId
from model.streams import ExecSpec


async def start(
    context: Context, instance: InstanceId, spec: ExecSpec, *, deadline: float = 0.0
) -> ExecHandle:
    """Run it in a container that runs; with `deadline` for so many seconds at most. Raises InvalidInput,
    CommandFailed, WrongState."""
    directory = context.bundle(instance)
    config: Mapping[str, Any] = json.loads((directory / "config.json").read_bytes())
    root = config["root"]["path"]
    passwd, group = (inroot.read_file(root, path) for path in ("/etc/passwd", "/etc/group"))
    process = exec_process(spec, config, context.limits, passwd=passwd, group=group)
    async with freeze.entering(context, instance):
        return await context.runtime.exec(instance, str(directory), spec, process, deadline=deadline)
